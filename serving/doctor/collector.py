"""The collector of traces: whether there is what sends them, and whether somebody answers."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from urllib.parse import urlsplit

from serving.doctor.finding import TIMEOUT_S, Finding, Findings, Level
from serving.settings import Settings
from serving.settings_file import SettingsError


async def collector(settings: Settings) -> Findings:
    """Nothing where there are no traces."""
    if not settings.traces.endpoint:
        return
    subject = "traces.endpoint"
    try:
        await asyncio.to_thread(_try_to_trace, settings)
    except SettingsError as error:
        yield Finding(Level.ERROR, subject, str(error))
        return
    where = urlsplit(settings.traces.endpoint)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            _, writer = await asyncio.open_connection(where.hostname, where.port or _PORTS[where.scheme])
    except (OSError, ValueError):
        yield Finding(Level.WARNING, subject, "nothing answers there: spans are lost until something does")
        return
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    yield Finding(Level.OK, subject, f"{where.netloc.rpartition('@')[2]} answers")


def _try_to_trace(settings: Settings) -> None:
    """Raises SettingsError."""
    from serving.traced.tracing import make_tracing  # noqa: PLC0415 - only a node that sends traces pays for it

    make_tracing(settings)


_PORTS = {"http": 80, "https": 443}
