import socket

import pytest

from serving.doctor.collector import collector
from serving.doctor.finding import Level
from serving.settings import Settings, TraceSettings


async def found(endpoint: str, **traces: object) -> list[tuple[Level, str]]:
    made = TraceSettings(endpoint=endpoint, **traces)  # type: ignore[arg-type]
    settings = Settings(party="bank", state_dir="s", registry="r", traces=made)
    return [(finding.level, finding.text) async for finding in collector(settings)]


@pytest.fixture
def listening() -> socket.socket:
    with socket.create_server(("127.0.0.1", 0)) as one:
        yield one


async def test_a_collector_that_answers(listening: socket.socket) -> None:
    port = listening.getsockname()[1]
    assert await found(f"http://127.0.0.1:{port}/v1/traces") == [(Level.OK, f"127.0.0.1:{port} answers")]


async def test_a_collector_that_is_away_and_none_at_all() -> None:
    [(level, text)] = await found("http://127.0.0.1:1/v1/traces")
    assert (level, "spans are lost" in text) == (Level.WARNING, True)
    assert await found("") == []


async def test_what_is_missing_to_send(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OF_THE_COLLECTOR", raising=False)
    [(level, text)] = await found("http://127.0.0.1:1/v1/traces", token_env="OF_THE_COLLECTOR")
    assert (level, "OF_THE_COLLECTOR is not set" in text) == (Level.ERROR, True)
