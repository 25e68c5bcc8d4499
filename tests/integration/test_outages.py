"""Guests of one, two and five hosts, all in one process, while a host stalls or breaks off: what callers see.

Processes that are stopped and killed are in e2e/test_host_outage.py.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bench.harness.population import (
    MODEL,
    SERVICE,
    VERSION,
    expected_scores,
    guest_columns,
    guest_numbers,
    scores_without,
    user,
)
from loaders.loader import Outputs
from serving.rounds import Round
from serving.transport import Code, RpcError
from tessera.v1 import inference_pb2 as wire
from tessera.v1 import inference_pb2_grpc
from tests.assembled import parties
from tests.proxy import Proxy

FEATURES = dict(zip(guest_columns(), guest_numbers(), strict=True))
GUEST = """
[limits]
peer_timeout_s = 0.6
[breaker]
failures = 1
open_s = 0.1
[fallbacks.default]
policy = 'partial'
[fallbacks.s]
policy = 'fail'
"""
CALLS = 10
Asking = inference_pb2_grpc.InferenceStub


async def frozen(proxy: Proxy) -> None:
    proxy.freeze(new_ones_too=True)


async def thawed(proxy: Proxy) -> None:
    proxy.thaw()


async def killed(proxy: Proxy) -> None:
    proxy.kill()


def by_service(number: int) -> wire.PredictRequest:
    """Where a host is lacking: an error."""
    return wire.PredictRequest(service=SERVICE, user_id=user(number), numbers=FEATURES)


def by_version(number: int) -> wire.PredictRequest:
    """Where a host is lacking: its mean partial."""
    return wire.PredictRequest(model=MODEL, version=VERSION, user_id=user(number), numbers=FEATURES)


async def check_whole(stub: Asking, numbers: range, hosts: int) -> None:
    scores = expected_scores(hosts)
    for number, reply in zip(
        numbers, await asyncio.gather(*(stub.Predict(by_service(one)) for one in numbers)), strict=True
    ):
        assert reply.complete
        assert reply.score[0] == pytest.approx(scores[number % len(scores)])


async def check_outage(stub: Asking, numbers: range, hosts: int) -> None:
    """Every call of new users is answered: by an error that names the host, or flagged."""
    refused = await asyncio.gather(*(stub.Predict(by_service(one)) for one in numbers), return_exceptions=True)
    assert {error.code for error in refused if isinstance(error, RpcError)} == {Code.UNAVAILABLE}
    assert all("'host0'" in error.details for error in refused)
    scores = scores_without(0, hosts)
    for number, reply in zip(
        numbers, await asyncio.gather(*(stub.Predict(by_version(one)) for one in numbers)), strict=True
    ):
        assert not reply.complete
        assert reply.score[0] == pytest.approx(scores[number % len(scores)])
        assert [party.status == wire.PARTY_STATUS_OK for party in reply.parties] == [False] + [True] * (hosts - 1)


async def until_whole(stub: Asking, number: int) -> None:
    async with asyncio.timeout(5):
        while True:
            try:
                await stub.Predict(by_service(number))
                return
            except RpcError:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("hosts", [1, 2, 5])
async def test_a_host_that_stalls_then_breaks_off_leaves_no_call_without_an_answer(tmp_path: Path, hosts: int) -> None:
    known, new = range(CALLS), iter(range(CALLS, 1_000, CALLS))
    async with parties(tmp_path, hosts=hosts, users=1_000, guest=GUEST) as running, running.calling() as stub:
        await check_whole(stub, known, hosts)
        for down, up in ((frozen, thawed), (killed, Proxy.start)):
            await down(running.proxy)
            first = next(new)
            await check_outage(stub, range(first, first + CALLS), hosts)
            await check_whole(stub, known, hosts)
            await up(running.proxy)
            await until_whole(stub, first)
            await check_whole(stub, range(first, first + CALLS), hosts)
            first = next(new)
            await check_whole(stub, range(first, first + CALLS), hosts)


@pytest.mark.parametrize("hosts", [1, 2])
async def test_the_local_half_is_spared_while_a_breaker_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hosts: int
) -> None:
    ran, run = [], Round.run

    def counted(round_: Round) -> Outputs:
        ran.append(len(round_.users))
        return run(round_)

    monkeypatch.setattr(Round, "run", counted)
    breaker = "[breaker]\nfailures = 1\nopen_s = 60\n"
    async with parties(tmp_path, hosts=hosts, guest=breaker) as running, running.calling() as stub:
        await check_whole(stub, range(CALLS), hosts)
        running.proxy.kill()
        with pytest.raises(RpcError, match="unreachable"):
            await stub.Predict(by_service(CALLS))
        ran.clear()
        for number in range(2 * CALLS, 3 * CALLS):
            with pytest.raises(RpcError, match="not asked: it did not answer the last calls"):
                await stub.Predict(by_service(number))
        assert ran == []
