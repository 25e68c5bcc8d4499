"""Settings of one node: a TOML file, overridden by `TESSERA_` environment variables, validated once, frozen.

Environment names are the key in capitals with two underscores between levels: `TESSERA_CACHE__URL` is `cache.url`.
`settings_file.load` reads them; the limits of each value stand with its type, here or in `setting_kinds`.
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from serving.fate_settings import FateSettings
from serving.setting_kinds import (
    Address,
    Count,
    CronExpression,
    FilePath,
    PartyId,
    Place,
    RedisUrl,
    Seconds,
    SecondsOrOff,
    TimeZone,
)
from serving.transport import ClientCertificates, Transport


class LogLevel(Enum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(Enum):
    """Lines for people, or one JSON object a line."""

    PLAIN = "plain"
    JSON = "json"


class Ports(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`host:port` of each port; port 0 takes a free one. With `single`, callers, other parties and operators all come
    there: then `service`, `party` and `admin` are not bound."""

    service: Address = "127.0.0.1:8700"
    party: Address = "127.0.0.1:8701"
    admin: Address = "127.0.0.1:8702"
    http: Address = "127.0.0.1:8703"
    single: Address = ""

    def bound(self) -> dict[str, str]:
        """The address of each port that there is, by its name."""
        if self.single:
            return {"single": self.single, "http": self.http}
        return {"service": self.service, "party": self.party, "admin": self.admin, "http": self.http}

    def of(self, port: str) -> str:
        """The name of the port that serves those whom the port of this name is for."""
        return "single" if self.single and port != "http" else port


PortName = Annotated[
    str,
    Meta(
        pattern="^(default|service|party|admin|http|single)$",
        description="default, service, party, admin, http or single",
    ),
]


class TlsSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """PEM files of a port, read again when they change; without a certificate the port has no TLS.

    `authority` signs the certificates of those who call. `clients` says whether they must show one; the party port
    always asks for it. Calls to other parties go out with the certificate of the party port, or of the single one.
    """

    certificate: FilePath = ""
    key: FilePath = ""
    authority: FilePath = ""
    clients: ClientCertificates = ClientCertificates.NONE


class Role(Enum):
    """A caller asks for predictions; a viewer also sees what is loaded and bound; an operator also changes it."""

    CALLER = "caller"
    VIEWER = "viewer"
    OPERATOR = "operator"


class PrincipalSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Somebody known by a name in its certificate or by a token, as its SHA-256 in hexadecimal."""

    role: Role = Role.CALLER
    certificate: str = ""
    token_sha256: Annotated[
        str, Meta(pattern="^$|^[0-9a-fA-F]{64}$", description="a SHA-256 in hexadecimal; `tessera token` makes one")
    ] = ""


class Purpose(Enum):
    """What another party wants partials for: an answer; its cache at night; a version that answers nobody; an answer
    that is late elsewhere."""

    INFER = "infer"
    WARMUP = "warmup"
    SHADOW = "shadow"
    HEDGE = "hedge"


class PeerProtocol(Enum):
    """How this party asks another one: tessera.v1.Federation, or FATE-Serving's unaryCall."""

    TESSERA = "tessera"
    FATE = "fate"


class PeerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Another party. `may_load`: names of models whose versions it may load here, `*` for any.

    `purposes`: what it may ask partials for. `budget`: about how many users and versions it may ask in
    `budget_window_s`; None for any number. `users`: a file of the ids it may ask about, one a line; empty for any.
    `limit`: how much it may ask. `hedge_address`: a second one, asked when the first took `hedge_after_s`; or none.
    `traces`: whether calls to it say which trace they belong to.
    With protocol fate: `app_key` names the key of `fate.keys` that signs packets to it; `probe_user` is a user that it
    knows, and with one it is accepted unmanaged where FATE-Flow binds.
    """

    address: Address = ""
    hedge_address: Address = ""
    hedge_after_s: Seconds = 0.05
    may_load: tuple[str, ...] = ()
    purposes: tuple[Purpose, ...] = (Purpose.INFER,)
    budget: Count | None = None
    budget_window_s: Seconds = 86_400.0
    users: FilePath = ""
    limit: RateLimit | None = None
    protocol: PeerProtocol = PeerProtocol.TESSERA
    app_key: str = ""
    probe_user: str = ""
    traces: bool = True


class FeatureKind(Enum):
    FILE = "file"
    REDIS = "redis"
    HTTP = "http"
    SQL = "sql"


class FeatureSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where this party, as a host, finds features.

    file: `path`, a CSV or Parquet file, read at start and on change, and `id_column`. redis: `url`; the hash of a user
    is at `prefix` + id. http: `url`, and the bearer token in the variable `token_env`. sql: `url`, `table` and
    `id_column`. `timeout_s` bounds a look-up of all but files.
    """

    kind: FeatureKind = FeatureKind.FILE
    path: FilePath = ""
    id_column: str = "id"
    url: str = ""
    prefix: str = "features:"
    table: str = ""
    token_env: str = ""
    timeout_s: Seconds = 0.2
    max_age_s: Seconds | None = None

    def lacking(self) -> tuple[str, ...]:
        """Settings that this kind needs and that are not given."""
        needed = {
            FeatureKind.FILE: ("path",),
            FeatureKind.REDIS: ("url",),
            FeatureKind.HTTP: ("url",),
            FeatureKind.SQL: ("url", "table"),
        }
        return tuple(name for name in needed[self.kind] if not getattr(self, name))


class CacheSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The three levels. `url` empty: an embedded server when `embedded`, else no shared level. TTL 0: off.

    `secret_file` holds the 32 bytes that key the shared level, equal on all replicas; empty: made in the state folder.
    `stale_s`: how long partials are kept after they are fresh, for services whose policy is stale.
    """

    url: RedisUrl = ""
    embedded: bool = True
    embedded_max_bytes: Count = 256 << 20
    secret_file: FilePath = ""
    key_id: Annotated[int, Meta(ge=0, le=(1 << 31) - 1)] = 0
    result_ttl_s: SecondsOrOff = 120.0
    result_max_entries: Count = 100_000
    remote_ttl_s: SecondsOrOff = 600.0
    remote_max_entries: Count = 1_000_000
    shared_ttl_s: Seconds = 86_400.0
    not_found_ttl_s: SecondsOrOff = 60.0
    stale_s: SecondsOrOff = 0.0
    shared_timeout_s: Seconds = 0.02


class WarmupSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who is worth warming the remote caches for: with `count`, calls are counted by user, service and day, for at most
    `max_users` of each.

    With a `schedule`, by the clock of `time_zone`, one replica fetches the partials of the most active `share` of each
    service's users, of `services` or of all; `days` before the run count; at most `users_per_s`.
    """

    count: bool = True
    max_users: Count = 1_000_000
    schedule: CronExpression = ""
    time_zone: TimeZone = "UTC"
    services: tuple[str, ...] = ()
    share: Annotated[float, Meta(gt=0, le=1)] = 0.2
    days: Annotated[int, Meta(ge=1, le=30)] = 7
    users_per_s: Annotated[float, Meta(gt=0, le=1e6)] = 500.0


class ControlSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the wanted state is kept: a Redis-protocol server for replicas on several machines; else a file in the
    state folder, which the workers of one node share."""

    url: RedisUrl = ""


Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", description="a SHA-256 in small hexadecimal digits")]


class TraceSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Spans go to `endpoint`, where a collector takes OTLP over HTTP; empty: there are no traces.

    `share` of the calls that come without a `traceparent` are traced, each by chance; `follow`: one that comes decides.
    `token_env`: the variable that holds a bearer token for the collector; `authority` signs its certificate, as PEM;
    empty: those that requests knows. Up to `max_spans` wait to be sent, more are dropped; `timeout_s` bounds a sending.
    """

    endpoint: Annotated[
        str, Meta(pattern="^$|^https?://[^/]+/.", description="a http:// or https:// address with its path")
    ] = ""
    share: Annotated[float, Meta(ge=0, le=1)] = 0.0
    follow: bool = True
    token_env: str = ""
    authority: FilePath = ""
    max_spans: Annotated[int, Meta(ge=1, le=1 << 20)] = 8_192
    timeout_s: Seconds = 5.0


class AppSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Apps beside those built in: `root`, a folder or a URL, holds them as `NAME/VERSION.py` or `NAME/VERSION/`. They
    run with the rights of the node, so only those load whose digest is in `allowed`."""

    root: Place = ""
    allowed: tuple[Sha256, ...] = ()


class ArtifactSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of a registry, and of apps, behind a URL: the protocols that it may have, and what is brought from there may take
    of the local disk."""

    protocols: tuple[str, ...] = ("file",)
    max_bytes: Count = 10 << 30


class RateLimit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`per_s` (0 lets nothing in) and `burst` (of one second when not given) in rows; `concurrent` in calls.
    `across_nodes`: rate and burst are those of all living nodes with one control store, and each has an equal part."""

    per_s: Annotated[float, Meta(ge=0)] | None = None
    burst: Count | None = None
    concurrent: Count | None = None
    across_nodes: bool = False

    @property
    def burst_rows(self) -> float:
        return float(self.burst or max(1.0, self.per_s or 1.0))


class BatchSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Calls to one party at a time: up to `in_flight` batches of up to `max_rows` users, which the party's own
    limits.max_batch_rows must allow. Of the rest up to `max_queued_rows` users wait, more are rejected."""

    in_flight: Annotated[int, Meta(ge=1, le=256)] = 2
    max_rows: Count = 256
    max_queued_rows: Count = 20_000


class BreakerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A party that failed `failures` calls in a row is left alone for `open_s`, then asked once. A call that had less
    than `min_wait_s` does not count as late."""

    failures: Count = 5
    open_s: Seconds = 0.5
    min_wait_s: Seconds = 0.05


class FallbackPolicy(Enum):
    """What a service answers when a party fails: an error; a score with the party's mean partial, if the artifact
    declares one; a score with a partial that is not fresh any more; a configured score."""

    FAIL = "fail"
    PARTIAL = "partial"
    STALE = "stale"
    DEFAULT = "default"


class FallbackSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The policy of a service. `score`: with policy default, what the model's score is then, before the app."""

    policy: FallbackPolicy = FallbackPolicy.FAIL
    score: float | None = None


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds on calls and memory. `services`, `models` and `callers` by name, `default` for names not listed."""

    max_request_bytes: Count = 4 << 20
    max_batch_rows: Count = 1_000
    peer_timeout_s: Seconds = 0.5
    load_timeout_s: Seconds = 60.0
    pool_max_bytes: Count = 4 << 30
    concurrent_calls: Count = 512
    model_threads: Annotated[int, Meta(ge=0, le=256)] = 0
    model_queue: Count = 64
    drain_s: Annotated[float, Meta(ge=0, le=3_600)] = 10.0
    services: dict[str, RateLimit] = {}
    models: dict[str, RateLimit] = {}
    callers: dict[str, RateLimit] = {}


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything a node is told. `party` is this party's id. `features` maps a model name, or `default`, to its source.
    `plaintext_caller` is the party that whoever connects to the party port without TLS counts as; without it such
    callers are refused. `principals` are who may use the admin port; while there are none, everybody who reaches it
    may. `anonymous_callers`: whether the service and HTTP ports take calls of nobody in particular. `replica` names
    this node among those of the party; empty: the host's name.
    """

    party: PartyId
    state_dir: FilePath
    registry: Place
    insecure: bool = False
    plaintext_caller: str = ""
    transport: Transport = Transport.NATIVE
    workers: Annotated[int, Meta(ge=1, le=256)] = 1
    log_level: LogLevel = LogLevel.INFO
    log_format: LogFormat = LogFormat.PLAIN
    request_log_share: Annotated[float, Meta(ge=0, le=1)] = 0.0
    request_log_features: bool = False
    ports: Ports = Ports()
    tls: dict[PortName, TlsSettings] = {}
    principals: dict[PartyId, PrincipalSettings] = {}
    anonymous_callers: bool = True
    peers: dict[PartyId, PeerSettings] = {}
    batching: BatchSettings = BatchSettings()
    breaker: BreakerSettings = BreakerSettings()
    fallbacks: dict[str, FallbackSettings] = {}
    features: dict[str, FeatureSettings] = {}
    cache: CacheSettings = CacheSettings()
    warmup: WarmupSettings = WarmupSettings()
    fate: FateSettings = FateSettings()
    control: ControlSettings = ControlSettings()
    artifacts: ArtifactSettings = ArtifactSettings()
    apps: AppSettings = AppSettings()
    traces: TraceSettings = TraceSettings()
    replica: str = ""
    limits: Limits = Limits()

    @property
    def registry_folder(self) -> Path:
        """The local one: the registry itself, or where halves are brought to from its URL."""
        return Path(self.state_dir) / "registry" if "://" in self.registry else Path(self.registry)

    @property
    def apps_folder(self) -> Path:
        """Where apps are kept that come from a URL."""
        return Path(self.state_dir) / "apps"

    def tls_of(self, port: str) -> TlsSettings | None:
        """None for a port without TLS."""
        found = self.tls.get(self.ports.of(port)) or self.tls.get("default")
        return found if found is not None and found.certificate else None
