"""Kinds of values in settings, with their limits."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

from msgspec import Meta


class Text(Enum):
    """What a text means, where it is more than text; `settings_file` checks and completes it."""

    PATH = "path"
    PLACE = "place"
    ADDRESS = "address"
    CRON = "cron"
    ZONE = "zone"


# Relative paths are resolved against the settings file's folder. Empty stays empty.
FilePath = Annotated[str, Meta(extra={"text": Text.PATH})]
# A path, or a URL, which is taken as it is.
Place = Annotated[str, Meta(extra={"text": Text.PLACE})]
# `host:port`, IPv6 hosts in brackets.
Address = Annotated[str, Meta(extra={"text": Text.ADDRESS})]
# Five fields as cron has them, or empty; a name of the IANA time zone database.
CronExpression = Annotated[str, Meta(extra={"text": Text.CRON})]
TimeZone = Annotated[str, Meta(extra={"text": Text.ZONE})]
PartyId = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$",
        description="up to 64 of a-z, 0-9, '.', '_' and '-', beginning with a letter or a digit",
    ),
]
Seconds = Annotated[float, Meta(gt=0, le=366 * 86_400)]
SecondsOrOff = Annotated[float, Meta(ge=0, le=366 * 86_400)]
Count = Annotated[int, Meta(gt=0, le=1 << 40)]
HttpUrl = Annotated[str, Meta(pattern="^https?://", description="a http:// or https:// address")]
RedisUrl = Annotated[
    str, Meta(pattern="^$|^(redis|rediss|unix)://", description="a redis://, rediss:// or unix:// address")
]
