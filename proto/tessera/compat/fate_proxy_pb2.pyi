from tessera.compat import fate_endpoint_pb2 as _fate_endpoint_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Model(_message.Message):
    __slots__ = ("namespace", "tableName")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    TABLENAME_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    tableName: str
    def __init__(self, namespace: _Optional[str] = ..., tableName: _Optional[str] = ...) -> None: ...

class Task(_message.Message):
    __slots__ = ("taskId", "model")
    TASKID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    taskId: str
    model: Model
    def __init__(self, taskId: _Optional[str] = ..., model: _Optional[_Union[Model, _Mapping]] = ...) -> None: ...

class Topic(_message.Message):
    __slots__ = ("name", "partyId", "role", "callback")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PARTYID_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    CALLBACK_FIELD_NUMBER: _ClassVar[int]
    name: str
    partyId: str
    role: str
    callback: _fate_endpoint_pb2.Endpoint
    def __init__(self, name: _Optional[str] = ..., partyId: _Optional[str] = ..., role: _Optional[str] = ..., callback: _Optional[_Union[_fate_endpoint_pb2.Endpoint, _Mapping]] = ...) -> None: ...

class Command(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class Conf(_message.Message):
    __slots__ = ("overallTimeout", "completionWaitTimeout", "packetIntervalTimeout", "maxRetries")
    OVERALLTIMEOUT_FIELD_NUMBER: _ClassVar[int]
    COMPLETIONWAITTIMEOUT_FIELD_NUMBER: _ClassVar[int]
    PACKETINTERVALTIMEOUT_FIELD_NUMBER: _ClassVar[int]
    MAXRETRIES_FIELD_NUMBER: _ClassVar[int]
    overallTimeout: int
    completionWaitTimeout: int
    packetIntervalTimeout: int
    maxRetries: int
    def __init__(self, overallTimeout: _Optional[int] = ..., completionWaitTimeout: _Optional[int] = ..., packetIntervalTimeout: _Optional[int] = ..., maxRetries: _Optional[int] = ...) -> None: ...

class Metadata(_message.Message):
    __slots__ = ("task", "src", "dst", "command", "operator", "version", "ack", "conf")
    TASK_FIELD_NUMBER: _ClassVar[int]
    SRC_FIELD_NUMBER: _ClassVar[int]
    DST_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    OPERATOR_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    CONF_FIELD_NUMBER: _ClassVar[int]
    task: Task
    src: Topic
    dst: Topic
    command: Command
    operator: str
    version: int
    ack: int
    conf: Conf
    def __init__(self, task: _Optional[_Union[Task, _Mapping]] = ..., src: _Optional[_Union[Topic, _Mapping]] = ..., dst: _Optional[_Union[Topic, _Mapping]] = ..., command: _Optional[_Union[Command, _Mapping]] = ..., operator: _Optional[str] = ..., version: _Optional[int] = ..., ack: _Optional[int] = ..., conf: _Optional[_Union[Conf, _Mapping]] = ...) -> None: ...

class Data(_message.Message):
    __slots__ = ("key", "value")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    key: str
    value: bytes
    def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...

class AuthInfo(_message.Message):
    __slots__ = ("timestamp", "appKey", "signature", "applyId", "nonce", "version", "serviceId")
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    APPKEY_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    APPLYID_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SERVICEID_FIELD_NUMBER: _ClassVar[int]
    timestamp: int
    appKey: str
    signature: str
    applyId: str
    nonce: str
    version: str
    serviceId: str
    def __init__(self, timestamp: _Optional[int] = ..., appKey: _Optional[str] = ..., signature: _Optional[str] = ..., applyId: _Optional[str] = ..., nonce: _Optional[str] = ..., version: _Optional[str] = ..., serviceId: _Optional[str] = ...) -> None: ...

class Packet(_message.Message):
    __slots__ = ("header", "body", "auth")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    AUTH_FIELD_NUMBER: _ClassVar[int]
    header: Metadata
    body: Data
    auth: AuthInfo
    def __init__(self, header: _Optional[_Union[Metadata, _Mapping]] = ..., body: _Optional[_Union[Data, _Mapping]] = ..., auth: _Optional[_Union[AuthInfo, _Mapping]] = ...) -> None: ...
