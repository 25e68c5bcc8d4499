from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class MetricType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    INTERFACE: _ClassVar[MetricType]
    MODEL: _ClassVar[MetricType]
INTERFACE: MetricType
MODEL: MetricType

class QueryMetricRequest(_message.Message):
    __slots__ = ("beginMs", "endMs", "source", "type")
    BEGINMS_FIELD_NUMBER: _ClassVar[int]
    ENDMS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    beginMs: int
    endMs: int
    source: str
    type: MetricType
    def __init__(self, beginMs: _Optional[int] = ..., endMs: _Optional[int] = ..., source: _Optional[str] = ..., type: _Optional[_Union[MetricType, str]] = ...) -> None: ...

class UpdateFlowRuleRequest(_message.Message):
    __slots__ = ("source", "allowQps")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    ALLOWQPS_FIELD_NUMBER: _ClassVar[int]
    source: str
    allowQps: float
    def __init__(self, source: _Optional[str] = ..., allowQps: _Optional[float] = ...) -> None: ...

class QueryPropsRequest(_message.Message):
    __slots__ = ("keyword",)
    KEYWORD_FIELD_NUMBER: _ClassVar[int]
    keyword: str
    def __init__(self, keyword: _Optional[str] = ...) -> None: ...

class QueryJvmInfoRequest(_message.Message):
    __slots__ = ("keyword",)
    KEYWORD_FIELD_NUMBER: _ClassVar[int]
    keyword: str
    def __init__(self, keyword: _Optional[str] = ...) -> None: ...

class UpdateServiceRequest(_message.Message):
    __slots__ = ("url", "routerMode", "weight", "version")
    URL_FIELD_NUMBER: _ClassVar[int]
    ROUTERMODE_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    url: str
    routerMode: str
    weight: int
    version: int
    def __init__(self, url: _Optional[str] = ..., routerMode: _Optional[str] = ..., weight: _Optional[int] = ..., version: _Optional[int] = ...) -> None: ...

class UpdateConfigRequest(_message.Message):
    __slots__ = ("filePath", "data")
    FILEPATH_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    filePath: str
    data: str
    def __init__(self, filePath: _Optional[str] = ..., data: _Optional[str] = ...) -> None: ...

class HealthCheckRequest(_message.Message):
    __slots__ = ("type", "version", "mode")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    type: str
    version: str
    mode: str
    def __init__(self, type: _Optional[str] = ..., version: _Optional[str] = ..., mode: _Optional[str] = ...) -> None: ...

class CommonResponse(_message.Message):
    __slots__ = ("statusCode", "message", "data")
    STATUSCODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    statusCode: int
    message: str
    data: bytes
    def __init__(self, statusCode: _Optional[int] = ..., message: _Optional[str] = ..., data: _Optional[bytes] = ...) -> None: ...
