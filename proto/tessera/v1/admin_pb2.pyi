from tessera.v1 import federation_pb2 as _federation_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LimitKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LIMIT_KIND_UNSPECIFIED: _ClassVar[LimitKind]
    LIMIT_KIND_SERVICE: _ClassVar[LimitKind]
    LIMIT_KIND_MODEL: _ClassVar[LimitKind]
    LIMIT_KIND_CALLER: _ClassVar[LimitKind]
    LIMIT_KIND_PARTY: _ClassVar[LimitKind]
    LIMIT_KIND_RESOURCE: _ClassVar[LimitKind]

class PrefetchOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PREFETCH_OUTCOME_CACHED: _ClassVar[PrefetchOutcome]
    PREFETCH_OUTCOME_FETCHED: _ClassVar[PrefetchOutcome]
    PREFETCH_OUTCOME_NOT_FOUND: _ClassVar[PrefetchOutcome]
    PREFETCH_OUTCOME_MISSING: _ClassVar[PrefetchOutcome]
    PREFETCH_OUTCOME_FAILED: _ClassVar[PrefetchOutcome]
    PREFETCH_OUTCOME_REFUSED: _ClassVar[PrefetchOutcome]
LIMIT_KIND_UNSPECIFIED: LimitKind
LIMIT_KIND_SERVICE: LimitKind
LIMIT_KIND_MODEL: LimitKind
LIMIT_KIND_CALLER: LimitKind
LIMIT_KIND_PARTY: LimitKind
LIMIT_KIND_RESOURCE: LimitKind
PREFETCH_OUTCOME_CACHED: PrefetchOutcome
PREFETCH_OUTCOME_FETCHED: PrefetchOutcome
PREFETCH_OUTCOME_NOT_FOUND: PrefetchOutcome
PREFETCH_OUTCOME_MISSING: PrefetchOutcome
PREFETCH_OUTCOME_FAILED: PrefetchOutcome
PREFETCH_OUTCOME_REFUSED: PrefetchOutcome

class PublishLoadRequest(_message.Message):
    __slots__ = ("model", "version")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class PublishLoadReply(_message.Message):
    __slots__ = ("replicas", "binding_digest")
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    BINDING_DIGEST_FIELD_NUMBER: _ClassVar[int]
    replicas: _containers.RepeatedCompositeFieldContainer[_federation_pb2.ReplicaOutcome]
    binding_digest: bytes
    def __init__(self, replicas: _Optional[_Iterable[_Union[_federation_pb2.ReplicaOutcome, _Mapping]]] = ..., binding_digest: _Optional[bytes] = ...) -> None: ...

class VariantWeight(_message.Message):
    __slots__ = ("model", "version", "weight")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    weight: int
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., weight: _Optional[int] = ...) -> None: ...

class PublishOnlineRequest(_message.Message):
    __slots__ = ("service", "revision", "variants", "app", "app_parameters", "shadows", "accept_unmanaged", "probe_user_id")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    VARIANTS_FIELD_NUMBER: _ClassVar[int]
    APP_FIELD_NUMBER: _ClassVar[int]
    APP_PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    SHADOWS_FIELD_NUMBER: _ClassVar[int]
    ACCEPT_UNMANAGED_FIELD_NUMBER: _ClassVar[int]
    PROBE_USER_ID_FIELD_NUMBER: _ClassVar[int]
    service: str
    revision: int
    variants: _containers.RepeatedCompositeFieldContainer[VariantWeight]
    app: str
    app_parameters: str
    shadows: _containers.RepeatedCompositeFieldContainer[VariantWeight]
    accept_unmanaged: _containers.RepeatedScalarFieldContainer[str]
    probe_user_id: str
    def __init__(self, service: _Optional[str] = ..., revision: _Optional[int] = ..., variants: _Optional[_Iterable[_Union[VariantWeight, _Mapping]]] = ..., app: _Optional[str] = ..., app_parameters: _Optional[str] = ..., shadows: _Optional[_Iterable[_Union[VariantWeight, _Mapping]]] = ..., accept_unmanaged: _Optional[_Iterable[str]] = ..., probe_user_id: _Optional[str] = ...) -> None: ...

class PublishOnlineReply(_message.Message):
    __slots__ = ("service", "revision", "variants", "shadows", "unmanaged")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    VARIANTS_FIELD_NUMBER: _ClassVar[int]
    SHADOWS_FIELD_NUMBER: _ClassVar[int]
    UNMANAGED_FIELD_NUMBER: _ClassVar[int]
    service: str
    revision: int
    variants: _containers.RepeatedCompositeFieldContainer[VariantWeight]
    shadows: _containers.RepeatedCompositeFieldContainer[VariantWeight]
    unmanaged: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, service: _Optional[str] = ..., revision: _Optional[int] = ..., variants: _Optional[_Iterable[_Union[VariantWeight, _Mapping]]] = ..., shadows: _Optional[_Iterable[_Union[VariantWeight, _Mapping]]] = ..., unmanaged: _Optional[_Iterable[str]] = ...) -> None: ...

class RollbackRequest(_message.Message):
    __slots__ = ("service", "revision")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    service: str
    revision: int
    def __init__(self, service: _Optional[str] = ..., revision: _Optional[int] = ...) -> None: ...

class UnloadRequest(_message.Message):
    __slots__ = ("model", "version", "force")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    force: bool
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., force: _Optional[bool] = ...) -> None: ...

class UnloadReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SetDefaultServiceRequest(_message.Message):
    __slots__ = ("service",)
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    service: str
    def __init__(self, service: _Optional[str] = ...) -> None: ...

class SetDefaultServiceReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RemoveServiceRequest(_message.Message):
    __slots__ = ("service", "revision")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    service: str
    revision: int
    def __init__(self, service: _Optional[str] = ..., revision: _Optional[int] = ...) -> None: ...

class RemoveServiceReply(_message.Message):
    __slots__ = ("removed",)
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    removed: bool
    def __init__(self, removed: _Optional[bool] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReplicaState(_message.Message):
    __slots__ = ("replica", "generation", "state", "reason", "binding_digest", "age_ms")
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    BINDING_DIGEST_FIELD_NUMBER: _ClassVar[int]
    AGE_MS_FIELD_NUMBER: _ClassVar[int]
    replica: str
    generation: str
    state: str
    reason: str
    binding_digest: bytes
    age_ms: int
    def __init__(self, replica: _Optional[str] = ..., generation: _Optional[str] = ..., state: _Optional[str] = ..., reason: _Optional[str] = ..., binding_digest: _Optional[bytes] = ..., age_ms: _Optional[int] = ...) -> None: ...

class ModelStatus(_message.Message):
    __slots__ = ("model", "version", "state", "reason", "since_ms", "role", "bytes", "binding_digest", "held_by", "format", "replicas")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SINCE_MS_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    BINDING_DIGEST_FIELD_NUMBER: _ClassVar[int]
    HELD_BY_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    state: str
    reason: str
    since_ms: int
    role: str
    bytes: int
    binding_digest: bytes
    held_by: _containers.RepeatedScalarFieldContainer[str]
    format: str
    replicas: _containers.RepeatedCompositeFieldContainer[ReplicaState]
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., state: _Optional[str] = ..., reason: _Optional[str] = ..., since_ms: _Optional[int] = ..., role: _Optional[str] = ..., bytes: _Optional[int] = ..., binding_digest: _Optional[bytes] = ..., held_by: _Optional[_Iterable[str]] = ..., format: _Optional[str] = ..., replicas: _Optional[_Iterable[_Union[ReplicaState, _Mapping]]] = ...) -> None: ...

class ListModelsReply(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[ModelStatus]
    def __init__(self, models: _Optional[_Iterable[_Union[ModelStatus, _Mapping]]] = ...) -> None: ...

class ListServicesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ServiceStatus(_message.Message):
    __slots__ = ("service", "revision", "variants", "previous", "app", "app_parameters", "is_default", "shadows", "unmanaged")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    VARIANTS_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    APP_FIELD_NUMBER: _ClassVar[int]
    APP_PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    IS_DEFAULT_FIELD_NUMBER: _ClassVar[int]
    SHADOWS_FIELD_NUMBER: _ClassVar[int]
    UNMANAGED_FIELD_NUMBER: _ClassVar[int]
    service: str
    revision: int
    variants: _containers.RepeatedCompositeFieldContainer[VariantWeight]
    previous: _containers.RepeatedCompositeFieldContainer[VariantWeight]
    app: str
    app_parameters: str
    is_default: bool
    shadows: _containers.RepeatedCompositeFieldContainer[VariantWeight]
    unmanaged: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, service: _Optional[str] = ..., revision: _Optional[int] = ..., variants: _Optional[_Iterable[_Union[VariantWeight, _Mapping]]] = ..., previous: _Optional[_Iterable[_Union[VariantWeight, _Mapping]]] = ..., app: _Optional[str] = ..., app_parameters: _Optional[str] = ..., is_default: _Optional[bool] = ..., shadows: _Optional[_Iterable[_Union[VariantWeight, _Mapping]]] = ..., unmanaged: _Optional[_Iterable[str]] = ...) -> None: ...

class ListServicesReply(_message.Message):
    __slots__ = ("services",)
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    services: _containers.RepeatedCompositeFieldContainer[ServiceStatus]
    def __init__(self, services: _Optional[_Iterable[_Union[ServiceStatus, _Mapping]]] = ...) -> None: ...

class Outcome(_message.Message):
    __slots__ = ("attribution", "label")
    ATTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    attribution: bytes
    label: float
    def __init__(self, attribution: _Optional[bytes] = ..., label: _Optional[float] = ...) -> None: ...

class FeedbackRequest(_message.Message):
    __slots__ = ("outcomes",)
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    outcomes: _containers.RepeatedCompositeFieldContainer[Outcome]
    def __init__(self, outcomes: _Optional[_Iterable[_Union[Outcome, _Mapping]]] = ...) -> None: ...

class FeedbackReply(_message.Message):
    __slots__ = ("accepted", "known", "refused")
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    accepted: int
    known: int
    refused: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, accepted: _Optional[int] = ..., known: _Optional[int] = ..., refused: _Optional[_Iterable[int]] = ...) -> None: ...

class FiguresRequest(_message.Message):
    __slots__ = ("service",)
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    service: str
    def __init__(self, service: _Optional[str] = ...) -> None: ...

class VariantFigures(_message.Message):
    __slots__ = ("service", "variant", "shadow", "answers", "positives", "negatives", "auc", "ks", "auc_error", "score_quantiles", "seconds_mean", "seconds_p50", "seconds_p99", "moved")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    SHADOW_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    POSITIVES_FIELD_NUMBER: _ClassVar[int]
    NEGATIVES_FIELD_NUMBER: _ClassVar[int]
    AUC_FIELD_NUMBER: _ClassVar[int]
    KS_FIELD_NUMBER: _ClassVar[int]
    AUC_ERROR_FIELD_NUMBER: _ClassVar[int]
    SCORE_QUANTILES_FIELD_NUMBER: _ClassVar[int]
    SECONDS_MEAN_FIELD_NUMBER: _ClassVar[int]
    SECONDS_P50_FIELD_NUMBER: _ClassVar[int]
    SECONDS_P99_FIELD_NUMBER: _ClassVar[int]
    MOVED_FIELD_NUMBER: _ClassVar[int]
    service: str
    variant: str
    shadow: bool
    answers: int
    positives: int
    negatives: int
    auc: float
    ks: float
    auc_error: float
    score_quantiles: _containers.RepeatedScalarFieldContainer[float]
    seconds_mean: float
    seconds_p50: float
    seconds_p99: float
    moved: float
    def __init__(self, service: _Optional[str] = ..., variant: _Optional[str] = ..., shadow: _Optional[bool] = ..., answers: _Optional[int] = ..., positives: _Optional[int] = ..., negatives: _Optional[int] = ..., auc: _Optional[float] = ..., ks: _Optional[float] = ..., auc_error: _Optional[float] = ..., score_quantiles: _Optional[_Iterable[float]] = ..., seconds_mean: _Optional[float] = ..., seconds_p50: _Optional[float] = ..., seconds_p99: _Optional[float] = ..., moved: _Optional[float] = ...) -> None: ...

class FiguresReply(_message.Message):
    __slots__ = ("variants",)
    VARIANTS_FIELD_NUMBER: _ClassVar[int]
    variants: _containers.RepeatedCompositeFieldContainer[VariantFigures]
    def __init__(self, variants: _Optional[_Iterable[_Union[VariantFigures, _Mapping]]] = ...) -> None: ...

class ListPeersRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PeerHalf(_message.Message):
    __slots__ = ("model", "version", "state")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    state: _federation_pb2.HalfState
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., state: _Optional[_Union[_federation_pb2.HalfState, str]] = ...) -> None: ...

class PeerState(_message.Message):
    __slots__ = ("party", "address", "problem", "round_trip_s", "protocol", "software", "takes_us_for", "halves", "may_load", "purposes", "users", "budget", "spent", "refused", "window_s", "window_ends_ms")
    PARTY_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    ROUND_TRIP_S_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    TAKES_US_FOR_FIELD_NUMBER: _ClassVar[int]
    HALVES_FIELD_NUMBER: _ClassVar[int]
    MAY_LOAD_FIELD_NUMBER: _ClassVar[int]
    PURPOSES_FIELD_NUMBER: _ClassVar[int]
    USERS_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    SPENT_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    WINDOW_S_FIELD_NUMBER: _ClassVar[int]
    WINDOW_ENDS_MS_FIELD_NUMBER: _ClassVar[int]
    party: str
    address: str
    problem: str
    round_trip_s: float
    protocol: str
    software: str
    takes_us_for: str
    halves: _containers.RepeatedCompositeFieldContainer[PeerHalf]
    may_load: _containers.RepeatedScalarFieldContainer[str]
    purposes: _containers.RepeatedScalarFieldContainer[str]
    users: int
    budget: int
    spent: int
    refused: int
    window_s: float
    window_ends_ms: int
    def __init__(self, party: _Optional[str] = ..., address: _Optional[str] = ..., problem: _Optional[str] = ..., round_trip_s: _Optional[float] = ..., protocol: _Optional[str] = ..., software: _Optional[str] = ..., takes_us_for: _Optional[str] = ..., halves: _Optional[_Iterable[_Union[PeerHalf, _Mapping]]] = ..., may_load: _Optional[_Iterable[str]] = ..., purposes: _Optional[_Iterable[str]] = ..., users: _Optional[int] = ..., budget: _Optional[int] = ..., spent: _Optional[int] = ..., refused: _Optional[int] = ..., window_s: _Optional[float] = ..., window_ends_ms: _Optional[int] = ...) -> None: ...

class ListPeersReply(_message.Message):
    __slots__ = ("peers",)
    PEERS_FIELD_NUMBER: _ClassVar[int]
    peers: _containers.RepeatedCompositeFieldContainer[PeerState]
    def __init__(self, peers: _Optional[_Iterable[_Union[PeerState, _Mapping]]] = ...) -> None: ...

class SetLogLevelRequest(_message.Message):
    __slots__ = ("level",)
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    level: str
    def __init__(self, level: _Optional[str] = ...) -> None: ...

class SetLogLevelReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Limit(_message.Message):
    __slots__ = ("per_s", "burst", "concurrent", "across_nodes")
    PER_S_FIELD_NUMBER: _ClassVar[int]
    BURST_FIELD_NUMBER: _ClassVar[int]
    CONCURRENT_FIELD_NUMBER: _ClassVar[int]
    ACROSS_NODES_FIELD_NUMBER: _ClassVar[int]
    per_s: float
    burst: int
    concurrent: int
    across_nodes: bool
    def __init__(self, per_s: _Optional[float] = ..., burst: _Optional[int] = ..., concurrent: _Optional[int] = ..., across_nodes: _Optional[bool] = ...) -> None: ...

class SetLimitRequest(_message.Message):
    __slots__ = ("kind", "name", "limit")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    kind: LimitKind
    name: str
    limit: Limit
    def __init__(self, kind: _Optional[_Union[LimitKind, str]] = ..., name: _Optional[str] = ..., limit: _Optional[_Union[Limit, _Mapping]] = ...) -> None: ...

class SetLimitReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ClearLimitRequest(_message.Message):
    __slots__ = ("kind", "name")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    kind: LimitKind
    name: str
    def __init__(self, kind: _Optional[_Union[LimitKind, str]] = ..., name: _Optional[str] = ...) -> None: ...

class ClearLimitReply(_message.Message):
    __slots__ = ("cleared", "status")
    CLEARED_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    cleared: bool
    status: LimitStatus
    def __init__(self, cleared: _Optional[bool] = ..., status: _Optional[_Union[LimitStatus, _Mapping]] = ...) -> None: ...

class ListLimitsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class LimitStatus(_message.Message):
    __slots__ = ("kind", "name", "limit", "is_set", "settings")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    IS_SET_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    kind: LimitKind
    name: str
    limit: Limit
    is_set: bool
    settings: Limit
    def __init__(self, kind: _Optional[_Union[LimitKind, str]] = ..., name: _Optional[str] = ..., limit: _Optional[_Union[Limit, _Mapping]] = ..., is_set: _Optional[bool] = ..., settings: _Optional[_Union[Limit, _Mapping]] = ...) -> None: ...

class ListLimitsReply(_message.Message):
    __slots__ = ("limits",)
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    limits: _containers.RepeatedCompositeFieldContainer[LimitStatus]
    def __init__(self, limits: _Optional[_Iterable[_Union[LimitStatus, _Mapping]]] = ...) -> None: ...

class PrefetchRequest(_message.Message):
    __slots__ = ("service", "model", "version", "user_ids", "dry_run")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    USER_IDS_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    service: str
    model: str
    version: str
    user_ids: _containers.RepeatedScalarFieldContainer[str]
    dry_run: bool
    def __init__(self, service: _Optional[str] = ..., model: _Optional[str] = ..., version: _Optional[str] = ..., user_ids: _Optional[_Iterable[str]] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class PrefetchReply(_message.Message):
    __slots__ = ("fetched", "cached", "outcomes", "reason")
    FETCHED_FIELD_NUMBER: _ClassVar[int]
    CACHED_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    fetched: int
    cached: int
    outcomes: bytes
    reason: str
    def __init__(self, fetched: _Optional[int] = ..., cached: _Optional[int] = ..., outcomes: _Optional[bytes] = ..., reason: _Optional[str] = ...) -> None: ...

class ActivityRequest(_message.Message):
    __slots__ = ("service", "first_day", "last_day", "offset", "limit")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    FIRST_DAY_FIELD_NUMBER: _ClassVar[int]
    LAST_DAY_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    service: str
    first_day: int
    last_day: int
    offset: int
    limit: int
    def __init__(self, service: _Optional[str] = ..., first_day: _Optional[int] = ..., last_day: _Optional[int] = ..., offset: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...

class ActivityReply(_message.Message):
    __slots__ = ("user_ids", "counts", "total_users", "total_count")
    USER_IDS_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_USERS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_COUNT_FIELD_NUMBER: _ClassVar[int]
    user_ids: _containers.RepeatedScalarFieldContainer[str]
    counts: _containers.RepeatedScalarFieldContainer[int]
    total_users: int
    total_count: int
    def __init__(self, user_ids: _Optional[_Iterable[str]] = ..., counts: _Optional[_Iterable[int]] = ..., total_users: _Optional[int] = ..., total_count: _Optional[int] = ...) -> None: ...

class LoadAppRequest(_message.Message):
    __slots__ = ("name", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class LoadAppReply(_message.Message):
    __slots__ = ("replicas", "digest")
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    replicas: _containers.RepeatedCompositeFieldContainer[_federation_pb2.ReplicaOutcome]
    digest: bytes
    def __init__(self, replicas: _Optional[_Iterable[_Union[_federation_pb2.ReplicaOutcome, _Mapping]]] = ..., digest: _Optional[bytes] = ...) -> None: ...

class UnloadAppRequest(_message.Message):
    __slots__ = ("name", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class UnloadAppReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListAppsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AppStatus(_message.Message):
    __slots__ = ("name", "version", "state", "reason", "since_ms", "digest", "used_by")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SINCE_MS_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    USED_BY_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    state: str
    reason: str
    since_ms: int
    digest: bytes
    used_by: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., state: _Optional[str] = ..., reason: _Optional[str] = ..., since_ms: _Optional[int] = ..., digest: _Optional[bytes] = ..., used_by: _Optional[_Iterable[str]] = ...) -> None: ...

class ListAppsReply(_message.Message):
    __slots__ = ("apps",)
    APPS_FIELD_NUMBER: _ClassVar[int]
    apps: _containers.RepeatedCompositeFieldContainer[AppStatus]
    def __init__(self, apps: _Optional[_Iterable[_Union[AppStatus, _Mapping]]] = ...) -> None: ...
