from __future__ import annotations

import logging
from pathlib import Path

import msgspec
import pytest

from serving.control import Binding, Service, State, Variant
from serving.peers.fallback import Fallbacks
from serving.pool import ModelPool
from serving.settings import FallbackPolicy, FallbackSettings
from serving.undeclared import UndeclaredLog
from tests.unit.serving.peers.host_party import halves

PARTIAL = FallbackSettings(policy=FallbackPolicy.PARTIAL)
SAID = "policy partial is fail for m/1: its artifact declares no mean partial of 'shop'"


def state(*versions: str) -> State:
    """Service `s` of these versions."""
    each = tuple(Variant(model="m", version=one, weight=1, ranges=()) for one in versions)
    service = Service(revision=1, epoch=1, salt="00", current=Binding(variants=each, app="passthrough"))
    return msgspec.structs.replace(State(), services={"s": service})


def log(folder: Path, fallbacks: dict[str, FallbackSettings], **stand_ins: list[float]) -> UndeclaredLog:
    pool = ModelPool(1 << 20)
    pool.put(halves(folder, stand_ins)[0])
    return UndeclaredLog(Fallbacks(fallbacks), pool)


@pytest.mark.parametrize("name", ["s", "default"])
def test_it_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str) -> None:
    watch = log(tmp_path, {name: PARTIAL})
    for _ in range(2):
        watch.look(state("1"))
    assert caplog.messages == [f"service s: {SAID}"]
    watch.look(State())
    watch.look(state("1"))
    assert len(caplog.messages) == 2


def test_nothing_is_said_of_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    log(tmp_path / "a", {"s": PARTIAL}, shop=[0.5]).look(state("1"))
    log(tmp_path / "b", {"t": PARTIAL}).look(state("1"))
    log(tmp_path / "c", {"s": PARTIAL}).look(state("2"))
    assert not caplog.messages
