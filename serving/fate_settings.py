"""Settings of FATE-Serving's protocols."""

from __future__ import annotations

from enum import Enum

import msgspec

from serving.setting_kinds import Count, FilePath, HttpUrl, PartyId, Seconds


class FateMode(Enum):
    """Whose numbers models exported by FATE give: those of FATE offline, or those of FATE-Serving."""

    STRICT_OFFLINE = "strict_offline"
    SERVING_COMPAT = "serving_compat"


class FateKeySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """With which a party signs its packets; `secret_file` holds the secret."""

    party: PartyId
    secret_file: FilePath


class FateSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """FATE-Serving's protocols. `user_id`: the name of the user's id among what callers send to hosts.

    Models come from FATE-Flow at one of `transfer_urls` (the first when it names none), or from files in `models_root`;
    from elsewhere they are refused. `synchronize`: other nodes may copy models from here, and this one from `sources`.
    With `keys`, by app key, packets of other parties must be signed, and be at most `request_expire_s` old.
    `unary_over_http`: the HTTP port takes them too, where the signature alone tells whose they are.
    """

    mode: FateMode = FateMode.STRICT_OFFLINE
    user_id: str = ""
    transfer_urls: tuple[HttpUrl, ...] = ()
    models_root: FilePath = ""
    max_model_bytes: Count = 1 << 30
    fetch_timeout_s: Seconds = 60.0
    synchronize: bool = False
    sources: tuple[str, ...] = ()
    keys: dict[str, FateKeySettings] = {}
    request_expire_s: Seconds = 10.0
    unary_over_http: bool = False
