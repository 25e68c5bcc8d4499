"""Trace settings of the protocol as choices of what is traced."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from serving.errors import ConflictError, InvalidRequestError
from serving.frontdoor.oip.trace_settings import TraceChoices
from serving.settings import TraceSettings
from serving.telemetry.tracer import Sampling
from tests.unit.serving.parties import running

ENDPOINT = "http://collector:4318/v1/traces"
SETTINGS = TraceSettings(endpoint=ENDPOINT, share=0.01)
FIXED = {"trace_mode": ("opentelemetry",), "trace_file": ("",), "log_frequency": ("0",)}


@pytest.fixture
async def traces(tmp_path: Path) -> AsyncIterator[TraceChoices]:
    async with running("bank", tmp_path) as party:
        yield TraceChoices(party.publishing, SETTINGS)


def sampling(traces: TraceChoices) -> tuple[bool, float, int]:
    followed = Sampling(traces.settings)
    traces.publishing.watch(followed.follow)
    return followed.is_on, followed.share, followed.left


async def test_the_settings_files_choice_is_shown_until_it_is_changed(traces: TraceChoices) -> None:
    assert traces.shown == {"trace_level": ("TIMESTAMPS",), "trace_rate": ("100",), "trace_count": ("-1",), **FIXED}
    assert sampling(traces) == (True, 0.01, -1)


@pytest.mark.parametrize(
    ("given", "sampled"),
    [
        ({"trace_level": ["OFF"]}, (False, 0.01, -1)),
        ({"trace_level": ["TIMESTAMPS"], "trace_rate": ["1"]}, (True, 1.0, -1)),
        ({"trace_rate": ["0"]}, (True, 0.0, -1)),
        ({"trace_rate": ["4"], "trace_count": ["7"]}, (True, 0.25, 7)),
        ({"trace_count": ["-1"]}, (True, 0.01, -1)),
    ],
)
async def test_a_change_is_followed_and_shown(traces: TraceChoices, given: Any, sampled: Any) -> None:
    await traces.change(given)
    assert sampling(traces) == sampled
    assert {name: traces.shown[name] for name in given} == {name: tuple(value) for name, value in given.items()}
    await traces.change(traces.shown)  # what is shown can be given back
    assert sampling(traces) == sampled
    await traces.change({name: [] for name in given})
    assert sampling(traces) == (True, 0.01, -1)


async def test_every_change_counts_anew(traces: TraceChoices) -> None:
    followed = Sampling(SETTINGS, lambda: 0.0)
    traces.publishing.watch(followed.follow)
    for _ in range(2):
        await traces.change({"trace_count": ["2"]})
        assert [followed.takes(None) for _ in range(3)] == [True, True, False]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"trace_level": ["TENSORS"]}, "spans hold no tensors"),
        ({"trace_level": ["OFF", "TIMESTAMPS"]}, "is OFF or TIMESTAMPS"),
        ({"trace_rate": ["-1"]}, "'trace_rate' is one whole number from 0"),
        ({"trace_rate": ["half"]}, "'trace_rate' is one whole number from 0"),
        ({"trace_rate": ["1", "2"]}, "'trace_rate' is one whole number from 0"),
        ({"trace_count": ["-2"]}, "'trace_count' is one whole number from -1"),
        ({"trace_mode": ["triton"]}, "'trace_mode' is 'opentelemetry' here"),
        ({"trace_file": ["/etc/passwd"]}, "'trace_file' is '' here"),
        ({"log_frequency": ["5"]}, "'log_frequency' is '0' here"),
        ({"trace_rates": ["1"]}, "unknown trace setting 'trace_rates'"),
    ],
)
async def test_what_has_no_meaning_here_is_refused(traces: TraceChoices, given: Any, text: str) -> None:
    with pytest.raises(InvalidRequestError, match=text):
        await traces.change({"trace_rate": ["3"], **given})
    assert sampling(traces) == (True, 0.01, -1)


async def test_without_a_collector_nothing_is_chosen(traces: TraceChoices) -> None:
    off = TraceChoices(traces.publishing, TraceSettings(share=1))
    assert off.shown["trace_level"] == ("OFF",)
    with pytest.raises(ConflictError, match=r"names no traces\.endpoint"):
        await off.change({"trace_level": ["TIMESTAMPS"]})
    await off.change(FIXED)
