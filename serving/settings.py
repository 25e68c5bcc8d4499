"""Settings of one node: a TOML file, overridden by `TESSERA_` environment variables, validated once, frozen.

Environment names are the key in capitals with two underscores between levels: `TESSERA_CACHE__URL` is `cache.url`.
Every error names the file (or variable), the key and the reason; all errors are reported at once.
"""

from __future__ import annotations

from enum import Enum

import msgspec


class Transport(Enum):
    """Which implementation of `serving.transport` serves every port."""

    GRPCIO = "grpcio"


class Ports(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`host:port` of each port; port 0 takes a free one."""

    service: str = "127.0.0.1:8700"
    party: str = "127.0.0.1:8701"
    admin: str = "127.0.0.1:8702"


class PeerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Another party. `may_load`: names of models whose versions it may load here, `*` for any."""

    address: str = ""
    may_load: tuple[str, ...] = ()


class FeatureSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where this party, as a host, finds features. `path` is a CSV or Parquet file, read at start and on change."""

    kind: str = "file"
    path: str = ""
    id_column: str = "id"
    max_age_s: float | None = None


class CacheSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The three levels. `url` empty: an embedded server when `embedded`, else no shared level.

    `secret_file` holds the 32 bytes that key the shared level, equal on all replicas; empty: made in the state folder.
    """

    url: str = ""
    embedded: bool = True
    embedded_max_bytes: int = 256 << 20
    secret_file: str = ""
    key_id: int = 0
    result_ttl_s: float = 120.0
    result_max_entries: int = 100_000
    remote_ttl_s: float = 600.0
    remote_max_entries: int = 1_000_000
    shared_ttl_s: float = 86_400.0
    not_found_ttl_s: float = 60.0
    shared_timeout_s: float = 0.02


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds on calls and memory."""

    max_request_bytes: int = 4 << 20
    max_batch_rows: int = 1_000
    peer_timeout_s: float = 0.5
    load_timeout_s: float = 60.0
    pool_max_bytes: int = 4 << 30
    drain_s: float = 10.0


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything a node is told. `party` is this party's id.

    `features` maps a model name, or `default`, to its source. `plaintext_caller` is the party that whoever connects to
    the party port without TLS counts as; without it such callers are refused.
    """

    party: str
    state_dir: str
    registry: str
    insecure: bool = False
    plaintext_caller: str = ""
    transport: Transport = Transport.GRPCIO
    log_level: str = "info"
    ports: Ports = Ports()
    peers: dict[str, PeerSettings] = {}
    features: dict[str, FeatureSettings] = {}
    cache: CacheSettings = CacheSettings()
    limits: Limits = Limits()
