"""Real nodes with one, two and five hosts: one of them dies, stalls and returns, while calls go on."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.harness.parties import Parties, running
from bench.harness.population import (
    MODEL,
    SERVICE,
    VERSION,
    expected_scores,
    guest_columns,
    guest_numbers,
    mean_score,
    scores_without,
    user,
)
from serving.transport import Channel, Code, RpcError, Transport, channel
from tessera.v1 import inference_pb2 as wire
from tessera.v1 import inference_pb2_grpc

pytestmark = pytest.mark.usefixtures("untraced")

FEATURES = dict(zip(guest_columns(), guest_numbers(), strict=True))
RECOVERY_S, DOWN_S, PAUSE_S = 2.0, 0.8, 0.01
DEFAULT_SCORE = 0.0625
PARTIAL = f"[fallbacks.{SERVICE}]\npolicy = 'partial'\n"
OTHER = "other"
DEFAULT = f"[fallbacks.{OTHER}]\npolicy = 'default'\nscore = {DEFAULT_SCORE}\n"
KEPT = "kept"
STALE = f"[fallbacks.{KEPT}]\npolicy = 'stale'\n[cache]\nshared_ttl_s = 0.05\nremote_ttl_s = 0.05\nstale_s = 600\n"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one call: when it ended and how long it took, monotonic seconds. `reply` or `error`."""

    at: float
    took_s: float
    number: int
    service: str
    reply: wire.PredictReply | None
    error: RpcError | None


async def _call(link: Channel, number: int, service: str) -> Outcome:
    began, reply, error = time.monotonic(), None, None
    request = wire.PredictRequest(service=service, user_id=user(number), numbers=FEATURES)
    try:
        reply = await inference_pb2_grpc.InferenceStub(link.stub_channel).Predict(request, timeout=3)
    except RpcError as caught:
        error = caught
    ended = time.monotonic()
    return Outcome(ended, ended - began, number, service, reply, error)


async def _calls_until(address: str, services: tuple[str, ...], over: asyncio.Event) -> list[Outcome]:
    """The services take turns."""
    link = channel(Transport.NATIVE, address)
    calls: list[asyncio.Future[Outcome]] = []
    while not over.is_set():
        calls.append(asyncio.ensure_future(_call(link, len(calls), services[len(calls) % len(services)])))
        await asyncio.sleep(PAUSE_S)
    outcomes = list(await asyncio.gather(*calls))
    await link.close()
    return outcomes


def outcomes_beside(
    parties: Parties, down: Callable[[], None], up: Callable[[], None], services: tuple[str, ...] = (SERVICE,)
) -> tuple[list[Outcome], float]:
    """What became of a stream of calls while a host went and came back, and when it was back."""

    address = parties.address

    async def play() -> tuple[list[Outcome], float]:
        over = asyncio.Event()
        calls = asyncio.ensure_future(_calls_until(address, services, over))
        await asyncio.sleep(DOWN_S / 4)
        await asyncio.to_thread(down)
        await asyncio.sleep(DOWN_S)
        await asyncio.to_thread(up)
        back = time.monotonic()
        await asyncio.sleep(RECOVERY_S + 0.5)
        over.set()
        return await calls, back

    return asyncio.run(play())


def kill(parties: Parties) -> None:
    process = parties.hosts[0].process
    assert process is not None
    process.kill()
    process.wait()


def stall(parties: Parties) -> None:
    parties.hosts[0].worker().send_signal(signal.SIGSTOP)


def go_on(parties: Parties) -> None:
    parties.hosts[0].worker().send_signal(signal.SIGCONT)


def check_recovery(outcomes: list[Outcome], back: float, hosts: int) -> None:
    """Well again within the time, and every score that claims to be whole is right."""
    scores = expected_scores(hosts)
    for one in outcomes:
        if one.reply is not None and one.reply.complete:
            assert one.reply.score[0] == pytest.approx(scores[one.number % len(scores)])
    late = [one for one in outcomes if one.at > back + RECOVERY_S]
    assert late
    assert all(one.reply is not None and one.reply.complete for one in late)


@pytest.mark.parametrize("hosts", [1, *(pytest.param(hosts, marks=pytest.mark.soak) for hosts in (2, 5))])
def test_a_host_that_stalls_then_dies_leaves_no_call_without_an_answer(tmp_path: Path, hosts: int) -> None:
    with running(tmp_path, transport=Transport.NATIVE, hosts=hosts, users=2_000) as parties:
        for down, up in ((stall, go_on), (kill, lambda parties: parties.hosts[0].start())):
            outcomes, back = outcomes_beside(parties, lambda down=down: down(parties), lambda up=up: up(parties))
            failed = [one for one in outcomes if one.error is not None]
            assert failed
            assert {one.error.code for one in failed if one.error} == {Code.UNAVAILABLE}
            assert all("'host0'" in one.error.details for one in failed if one.error)
            assert max(one.took_s for one in outcomes) < 1.5
            check_recovery(outcomes, back, hosts)


def check_stranger(parties: Parties) -> None:
    """A user whom no host knows: the mean partials, or the configured score, and the hosts' word; an old partial is
    none."""
    for service in (SERVICE, OTHER):
        reply = parties.guest.predict(service=service, user_id="nobody", numbers=FEATURES)
        assert not reply.complete
        assert [party.status for party in reply.parties] == [wire.PARTY_STATUS_NOT_FOUND] * 2
        assert reply.score[0] == pytest.approx(mean_score(2) if service == SERVICE else DEFAULT_SCORE)
    with pytest.raises(RpcError) as caught:
        parties.guest.predict(service=KEPT, user_id="nobody", numbers=FEATURES)
    assert (caught.value.code, "'host0' does not know" in caught.value.details) == (Code.FAILED_PRECONDITION, True)


def test_what_was_kept_is_configured_or_the_mean_stands_in_while_the_host_is_gone(tmp_path: Path) -> None:
    settings, number = PARTIAL + DEFAULT + STALE, 1_999
    with running(tmp_path, transport=Transport.NATIVE, hosts=2, users=2_000, guest=settings) as parties:
        for service in (OTHER, KEPT):
            parties.guest.online(service, MODEL, VERSION)
        check_stranger(parties)

        def asked_again() -> wire.PredictReply:
            return parties.guest.predict(service=KEPT, user_id=user(number), numbers=FEATURES)

        def kill_and_ask() -> None:
            assert asked_again().complete
            time.sleep(0.1)  # of real caches: what is kept is not fresh any more
            kill(parties)
            reply = asked_again()
            assert not reply.complete
            assert reply.score[0] == pytest.approx(expected_scores(2)[number % len(expected_scores(2))])
            assert [party.status == wire.PARTY_STATUS_OK for party in reply.parties] == [False, True]

        outcomes, back = outcomes_beside(parties, kill_and_ask, parties.hosts[0].start, (SERVICE, OTHER))
        assert not [one for one in outcomes if one.error is not None]
        degraded = [one for one in outcomes if one.reply is not None and not one.reply.complete]
        assert {one.service for one in degraded} == {SERVICE, OTHER}
        scores = scores_without(0, 2)
        for one in degraded:
            assert one.reply is not None
            partial = scores[one.number % len(scores)]
            assert one.reply.score[0] == (pytest.approx(partial) if one.service == SERVICE else DEFAULT_SCORE)
            assert [party.status == wire.PARTY_STATUS_OK for party in one.reply.parties] == [False, True]
        check_recovery(outcomes, back, 2)
