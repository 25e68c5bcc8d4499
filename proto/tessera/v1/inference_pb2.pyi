from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PartyStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PARTY_STATUS_OK: _ClassVar[PartyStatus]
    PARTY_STATUS_NOT_FOUND: _ClassVar[PartyStatus]
    PARTY_STATUS_TIMEOUT: _ClassVar[PartyStatus]
    PARTY_STATUS_REJECTED: _ClassVar[PartyStatus]
    PARTY_STATUS_UNREACHABLE: _ClassVar[PartyStatus]
    PARTY_STATUS_MISMATCH: _ClassVar[PartyStatus]
    PARTY_STATUS_INTERNAL: _ClassVar[PartyStatus]

class CacheLevel(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CACHE_LEVEL_NONE: _ClassVar[CacheLevel]
    CACHE_LEVEL_L1: _ClassVar[CacheLevel]
    CACHE_LEVEL_L2: _ClassVar[CacheLevel]
    CACHE_LEVEL_L3: _ClassVar[CacheLevel]
PARTY_STATUS_OK: PartyStatus
PARTY_STATUS_NOT_FOUND: PartyStatus
PARTY_STATUS_TIMEOUT: PartyStatus
PARTY_STATUS_REJECTED: PartyStatus
PARTY_STATUS_UNREACHABLE: PartyStatus
PARTY_STATUS_MISMATCH: PartyStatus
PARTY_STATUS_INTERNAL: PartyStatus
CACHE_LEVEL_NONE: CacheLevel
CACHE_LEVEL_L1: CacheLevel
CACHE_LEVEL_L2: CacheLevel
CACHE_LEVEL_L3: CacheLevel

class PredictRequest(_message.Message):
    __slots__ = ("service", "model", "version", "case_id", "user_id", "numbers", "texts", "vector", "parameters")
    class NumbersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class TextsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class ParametersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CASE_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    service: str
    model: str
    version: str
    case_id: str
    user_id: str
    numbers: _containers.ScalarMap[str, float]
    texts: _containers.ScalarMap[str, str]
    vector: FeatureVector
    parameters: _containers.ScalarMap[str, str]
    def __init__(self, service: _Optional[str] = ..., model: _Optional[str] = ..., version: _Optional[str] = ..., case_id: _Optional[str] = ..., user_id: _Optional[str] = ..., numbers: _Optional[_Mapping[str, float]] = ..., texts: _Optional[_Mapping[str, str]] = ..., vector: _Optional[_Union[FeatureVector, _Mapping]] = ..., parameters: _Optional[_Mapping[str, str]] = ...) -> None: ...

class FeatureVector(_message.Message):
    __slots__ = ("signature_hash", "numbers")
    SIGNATURE_HASH_FIELD_NUMBER: _ClassVar[int]
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    signature_hash: bytes
    numbers: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, signature_hash: _Optional[bytes] = ..., numbers: _Optional[_Iterable[float]] = ...) -> None: ...

class PartyOutcome(_message.Message):
    __slots__ = ("party", "status", "level")
    PARTY_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    party: str
    status: PartyStatus
    level: CacheLevel
    def __init__(self, party: _Optional[str] = ..., status: _Optional[_Union[PartyStatus, str]] = ..., level: _Optional[_Union[CacheLevel, str]] = ...) -> None: ...

class PredictReply(_message.Message):
    __slots__ = ("score", "label", "model", "version", "variant", "complete", "parties", "cache", "attribution")
    SCORE_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    PARTIES_FIELD_NUMBER: _ClassVar[int]
    CACHE_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    score: _containers.RepeatedScalarFieldContainer[float]
    label: str
    model: str
    version: str
    variant: str
    complete: bool
    parties: _containers.RepeatedCompositeFieldContainer[PartyOutcome]
    cache: CacheLevel
    attribution: bytes
    def __init__(self, score: _Optional[_Iterable[float]] = ..., label: _Optional[str] = ..., model: _Optional[str] = ..., version: _Optional[str] = ..., variant: _Optional[str] = ..., complete: _Optional[bool] = ..., parties: _Optional[_Iterable[_Union[PartyOutcome, _Mapping]]] = ..., cache: _Optional[_Union[CacheLevel, str]] = ..., attribution: _Optional[bytes] = ...) -> None: ...

class BatchPredictRequest(_message.Message):
    __slots__ = ("service", "model", "version", "user_ids", "numbers", "texts", "matrix", "parameters", "attributed")
    class NumbersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: NumberColumn
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[NumberColumn, _Mapping]] = ...) -> None: ...
    class TextsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: TextColumn
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[TextColumn, _Mapping]] = ...) -> None: ...
    class ParametersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    USER_IDS_FIELD_NUMBER: _ClassVar[int]
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    MATRIX_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTED_FIELD_NUMBER: _ClassVar[int]
    service: str
    model: str
    version: str
    user_ids: _containers.RepeatedScalarFieldContainer[str]
    numbers: _containers.MessageMap[str, NumberColumn]
    texts: _containers.MessageMap[str, TextColumn]
    matrix: FeatureMatrix
    parameters: _containers.ScalarMap[str, str]
    attributed: bool
    def __init__(self, service: _Optional[str] = ..., model: _Optional[str] = ..., version: _Optional[str] = ..., user_ids: _Optional[_Iterable[str]] = ..., numbers: _Optional[_Mapping[str, NumberColumn]] = ..., texts: _Optional[_Mapping[str, TextColumn]] = ..., matrix: _Optional[_Union[FeatureMatrix, _Mapping]] = ..., parameters: _Optional[_Mapping[str, str]] = ..., attributed: _Optional[bool] = ...) -> None: ...

class NumberColumn(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, values: _Optional[_Iterable[float]] = ...) -> None: ...

class TextColumn(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, values: _Optional[_Iterable[str]] = ...) -> None: ...

class FeatureMatrix(_message.Message):
    __slots__ = ("signature_hash", "numbers")
    SIGNATURE_HASH_FIELD_NUMBER: _ClassVar[int]
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    signature_hash: bytes
    numbers: bytes
    def __init__(self, signature_hash: _Optional[bytes] = ..., numbers: _Optional[bytes] = ...) -> None: ...

class BatchPredictReply(_message.Message):
    __slots__ = ("width", "scores", "statuses", "parties", "model", "version", "variants", "labels", "attributions")
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    STATUSES_FIELD_NUMBER: _ClassVar[int]
    PARTIES_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    VARIANTS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTIONS_FIELD_NUMBER: _ClassVar[int]
    width: int
    scores: _containers.RepeatedScalarFieldContainer[float]
    statuses: bytes
    parties: _containers.RepeatedCompositeFieldContainer[BatchPartyOutcome]
    model: str
    version: str
    variants: _containers.RepeatedScalarFieldContainer[str]
    labels: _containers.RepeatedScalarFieldContainer[str]
    attributions: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, width: _Optional[int] = ..., scores: _Optional[_Iterable[float]] = ..., statuses: _Optional[bytes] = ..., parties: _Optional[_Iterable[_Union[BatchPartyOutcome, _Mapping]]] = ..., model: _Optional[str] = ..., version: _Optional[str] = ..., variants: _Optional[_Iterable[str]] = ..., labels: _Optional[_Iterable[str]] = ..., attributions: _Optional[_Iterable[bytes]] = ...) -> None: ...

class BatchPartyOutcome(_message.Message):
    __slots__ = ("party", "statuses", "levels")
    PARTY_FIELD_NUMBER: _ClassVar[int]
    STATUSES_FIELD_NUMBER: _ClassVar[int]
    LEVELS_FIELD_NUMBER: _ClassVar[int]
    party: str
    statuses: bytes
    levels: bytes
    def __init__(self, party: _Optional[str] = ..., statuses: _Optional[bytes] = ..., levels: _Optional[bytes] = ...) -> None: ...
