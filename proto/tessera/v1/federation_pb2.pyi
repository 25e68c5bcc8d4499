from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Purpose(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PURPOSE_INFER: _ClassVar[Purpose]
    PURPOSE_WARMUP: _ClassVar[Purpose]
    PURPOSE_SHADOW: _ClassVar[Purpose]
    PURPOSE_HEDGE: _ClassVar[Purpose]

class LoadState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LOAD_STATE_LOADED: _ClassVar[LoadState]
    LOAD_STATE_ALREADY_LOADED: _ClassVar[LoadState]
    LOAD_STATE_FAILED: _ClassVar[LoadState]
    LOAD_STATE_UNMANAGED: _ClassVar[LoadState]

class HalfState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    HALF_STATE_READY: _ClassVar[HalfState]
    HALF_STATE_NOT_LOADED: _ClassVar[HalfState]
    HALF_STATE_OTHER_BINDING: _ClassVar[HalfState]
    HALF_STATE_NO_FEATURES: _ClassVar[HalfState]
    HALF_STATE_NOT_YOURS: _ClassVar[HalfState]
PURPOSE_INFER: Purpose
PURPOSE_WARMUP: Purpose
PURPOSE_SHADOW: Purpose
PURPOSE_HEDGE: Purpose
LOAD_STATE_LOADED: LoadState
LOAD_STATE_ALREADY_LOADED: LoadState
LOAD_STATE_FAILED: LoadState
LOAD_STATE_UNMANAGED: LoadState
HALF_STATE_READY: HalfState
HALF_STATE_NOT_LOADED: HalfState
HALF_STATE_OTHER_BINDING: HalfState
HALF_STATE_NO_FEATURES: HalfState
HALF_STATE_NOT_YOURS: HalfState

class Protocol(_message.Message):
    __slots__ = ("major", "minor")
    MAJOR_FIELD_NUMBER: _ClassVar[int]
    MINOR_FIELD_NUMBER: _ClassVar[int]
    major: int
    minor: int
    def __init__(self, major: _Optional[int] = ..., minor: _Optional[int] = ...) -> None: ...

class InferRequest(_message.Message):
    __slots__ = ("protocol", "model", "version", "binding_digest", "purpose", "attempt_id", "user_ids")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BINDING_DIGEST_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_ID_FIELD_NUMBER: _ClassVar[int]
    USER_IDS_FIELD_NUMBER: _ClassVar[int]
    protocol: Protocol
    model: str
    version: str
    binding_digest: bytes
    purpose: Purpose
    attempt_id: bytes
    user_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, protocol: _Optional[_Union[Protocol, _Mapping]] = ..., model: _Optional[str] = ..., version: _Optional[str] = ..., binding_digest: _Optional[bytes] = ..., purpose: _Optional[_Union[Purpose, str]] = ..., attempt_id: _Optional[bytes] = ..., user_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class InferReply(_message.Message):
    __slots__ = ("protocol", "binding_digest", "width", "partials", "directions", "leaves", "statuses", "max_age_ms")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    BINDING_DIGEST_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    PARTIALS_FIELD_NUMBER: _ClassVar[int]
    DIRECTIONS_FIELD_NUMBER: _ClassVar[int]
    LEAVES_FIELD_NUMBER: _ClassVar[int]
    STATUSES_FIELD_NUMBER: _ClassVar[int]
    MAX_AGE_MS_FIELD_NUMBER: _ClassVar[int]
    protocol: Protocol
    binding_digest: bytes
    width: int
    partials: bytes
    directions: bytes
    leaves: bytes
    statuses: bytes
    max_age_ms: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, protocol: _Optional[_Union[Protocol, _Mapping]] = ..., binding_digest: _Optional[bytes] = ..., width: _Optional[int] = ..., partials: _Optional[bytes] = ..., directions: _Optional[bytes] = ..., leaves: _Optional[bytes] = ..., statuses: _Optional[bytes] = ..., max_age_ms: _Optional[_Iterable[int]] = ...) -> None: ...

class LoadRequest(_message.Message):
    __slots__ = ("model", "version", "binding_digest")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BINDING_DIGEST_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    binding_digest: bytes
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., binding_digest: _Optional[bytes] = ...) -> None: ...

class ReplicaOutcome(_message.Message):
    __slots__ = ("party", "replica", "state", "reason")
    PARTY_FIELD_NUMBER: _ClassVar[int]
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    party: str
    replica: str
    state: LoadState
    reason: str
    def __init__(self, party: _Optional[str] = ..., replica: _Optional[str] = ..., state: _Optional[_Union[LoadState, str]] = ..., reason: _Optional[str] = ...) -> None: ...

class LoadReply(_message.Message):
    __slots__ = ("replicas",)
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    replicas: _containers.RepeatedCompositeFieldContainer[ReplicaOutcome]
    def __init__(self, replicas: _Optional[_Iterable[_Union[ReplicaOutcome, _Mapping]]] = ...) -> None: ...

class HoldRequest(_message.Message):
    __slots__ = ("model", "version", "binding_digest", "revision", "ttl_s", "service", "publish", "replaces")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BINDING_DIGEST_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    TTL_S_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    PUBLISH_FIELD_NUMBER: _ClassVar[int]
    REPLACES_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    binding_digest: bytes
    revision: int
    ttl_s: int
    service: str
    publish: str
    replaces: str
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., binding_digest: _Optional[bytes] = ..., revision: _Optional[int] = ..., ttl_s: _Optional[int] = ..., service: _Optional[str] = ..., publish: _Optional[str] = ..., replaces: _Optional[str] = ...) -> None: ...

class HoldReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReleaseRequest(_message.Message):
    __slots__ = ("model", "version", "service", "publish")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    PUBLISH_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    service: str
    publish: str
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., service: _Optional[str] = ..., publish: _Optional[str] = ...) -> None: ...

class ReleaseReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[ModelRef]
    def __init__(self, models: _Optional[_Iterable[_Union[ModelRef, _Mapping]]] = ...) -> None: ...

class ModelRef(_message.Message):
    __slots__ = ("model", "version", "binding_digest")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BINDING_DIGEST_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    binding_digest: bytes
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., binding_digest: _Optional[bytes] = ...) -> None: ...

class StatusReply(_message.Message):
    __slots__ = ("protocol", "software", "time_ms", "caller", "halves")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    HALVES_FIELD_NUMBER: _ClassVar[int]
    protocol: Protocol
    software: str
    time_ms: int
    caller: str
    halves: _containers.RepeatedScalarFieldContainer[HalfState]
    def __init__(self, protocol: _Optional[_Union[Protocol, _Mapping]] = ..., software: _Optional[str] = ..., time_ms: _Optional[int] = ..., caller: _Optional[str] = ..., halves: _Optional[_Iterable[_Union[HalfState, str]]] = ...) -> None: ...
