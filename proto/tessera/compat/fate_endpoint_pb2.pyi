from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class Endpoint(_message.Message):
    __slots__ = ("ip", "port", "hostname", "useSSL", "negotiationType", "certChainFile", "privateKeyFile", "caFile", "url")
    IP_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    USESSL_FIELD_NUMBER: _ClassVar[int]
    NEGOTIATIONTYPE_FIELD_NUMBER: _ClassVar[int]
    CERTCHAINFILE_FIELD_NUMBER: _ClassVar[int]
    PRIVATEKEYFILE_FIELD_NUMBER: _ClassVar[int]
    CAFILE_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    ip: str
    port: int
    hostname: str
    useSSL: bool
    negotiationType: str
    certChainFile: str
    privateKeyFile: str
    caFile: str
    url: str
    def __init__(self, ip: _Optional[str] = ..., port: _Optional[int] = ..., hostname: _Optional[str] = ..., useSSL: _Optional[bool] = ..., negotiationType: _Optional[str] = ..., certChainFile: _Optional[str] = ..., privateKeyFile: _Optional[str] = ..., caFile: _Optional[str] = ..., url: _Optional[str] = ...) -> None: ...
