"""Whether a node sends traces, and what it needs for that."""

from __future__ import annotations

import asyncio
import sys

import pytest
from msgspec import structs

from serving.assembly import _peer_channel
from serving.settings import PeerSettings, Settings, TraceSettings
from serving.settings_file import SettingsError
from serving.traced.peers import TracedChannel
from serving.traced.tracing import Tracing, Untraced, make_tracing
from serving.transport import Transport, server

ENDPOINT = "http://127.0.0.1:1/v1/traces"


def settings(**traces: object) -> Settings:
    return Settings(party="bank", state_dir="", registry="", traces=TraceSettings(**traces))  # type: ignore[arg-type]


async def test_without_a_collector_everything_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "serving.telemetry.otlp", None)  # which would be in vain here
    none = make_tracing(settings(share=1.0))
    assert type(none) is Untraced
    port = server(Transport.NATIVE)
    assert none.server(port) is port
    assert (none.parts(), none.readings(), none.sampling) == ((), (), None)


def test_with_one_it_is_told_what_is_traced() -> None:
    made = make_tracing(settings(endpoint=ENDPOINT, share=0.25))
    assert isinstance(made, Tracing)
    assert made.sampling.share == 0.25


async def test_a_party_may_be_left_in_the_dark() -> None:
    known = {"a": PeerSettings(), "b": PeerSettings(traces=False)}
    some = structs.replace(settings(endpoint=ENDPOINT), peers=known)
    tracing = await asyncio.to_thread(make_tracing, some)
    links = [await _peer_channel(some, party, "127.0.0.1:1", tracing) for party in known]
    assert [isinstance(link, TracedChannel) for link in links] == [True, False]


def test_an_extra_that_is_missing_says_how_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "serving.telemetry.otlp", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http", None)
    with pytest.raises(SettingsError, match=r"traces need opentelemetry.*: pip install 'tessera-federated\[traces\]'"):
        make_tracing(settings(endpoint=ENDPOINT))


def test_a_token_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OF_THE_COLLECTOR", raising=False)
    with pytest.raises(SettingsError, match="OF_THE_COLLECTOR is not set"):
        make_tracing(settings(endpoint=ENDPOINT, token_env="OF_THE_COLLECTOR"))
