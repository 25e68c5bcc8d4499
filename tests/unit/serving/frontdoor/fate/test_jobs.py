"""Jobs of FATE-Serving 1."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from typing import Any

import pytest

from serving.cache.memory import MemoryTier
from serving.errors import InvalidRequestError, LimitError, UnknownNameError
from serving.frontdoor.fate import jobs
from serving.frontdoor.fate.cases import UNHEARD_S, Cases
from serving.frontdoor.fate.jobs import Jobs
from serving.transport import Code
from tessera.compat import fate_inference_pb2 as wire
from tests.clock import Clock


def message(**body: object) -> bytes:
    return wire.InferenceMessage(body=json.dumps(body).encode()).SerializeToString()


def body_of(raw: bytes) -> dict[str, Any]:
    return dict(json.loads(wire.InferenceMessage.FromString(raw).body))


TIME_S = 0.5


class Door:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.replies: list[asyncio.Future[bytes]] = []

    def single(self, raw: bytes, remaining_s: float | None, caller: str) -> bytes | Awaitable[bytes]:
        if body_of(raw).get("known"):
            return message(retcode=0, caseid="", data={"score": 0.5})
        self.replies.append(asyncio.get_running_loop().create_future())
        return self.replies[-1]

    def refusal(self, raw: bytes, error: Exception) -> tuple[bytes, Code]:
        return message(retcode=104, retmsg=str(error)), Code.NOT_FOUND


class Node:
    def __init__(self, clock: Clock, shared: MemoryTier | None = None, name: str = "one") -> None:
        self.door = Door()
        self.living = {name}
        self.cases = Cases(b"s" * 32, "9999", name, lambda: self.living, clock)
        self.jobs = Jobs(self.door, self.cases, shared, TIME_S, clock)

    def start(self, caller: str = "", **body: object) -> dict[str, Any]:
        begun = self.jobs.start(message(**body), 1.0, caller)
        assert isinstance(begun, bytes)
        return body_of(begun)

    async def result(self, caller: str = "", **body: object) -> dict[str, Any]:
        return body_of(await self.jobs.result(message(**body), None, caller))

    async def finish(self, score: float) -> None:
        self.door.replies.pop(0).set_result(message(retcode=0, caseid="", data={"score": score}))
        await asyncio.sleep(0)


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def test_a_result_is_there_once_the_job_is_done(clock: Clock) -> None:
    node = Node(clock)
    assert node.start(caseid="c") == {**node.start(caseid="d"), "caseid": "c"}
    assert await node.result(caseid="c") == {
        **node.start(caseid="d"), "retcode": 109, "retmsg": "no result of case 'c': it is not finished", "caseid": "c"
    }  # fmt: skip
    await node.finish(0.25)
    for _ in range(2):
        assert await node.result(caseId="c") == {"retcode": 0, "caseid": "c", "data": {"score": 0.25}}


async def test_one_at_hand_is_there_at_once_under_a_made_up_case(clock: Clock) -> None:
    node = Node(clock)
    case = node.start(known=True)["caseid"]
    assert len(case) == 32
    assert (await node.result(caseid=case))["data"] == {"score": 0.5}


async def test_a_job_that_fails_has_a_code_for_a_result(clock: Clock) -> None:
    node = Node(clock)
    node.start(caseid="c")
    node.door.replies.pop().set_exception(UnknownNameError("gone"))
    await asyncio.sleep(0)
    assert await node.result(caseid="c") == {"retcode": 104, "retmsg": "gone", "caseid": "c"}


async def test_results_are_of_who_began_the_job_and_of_its_party(clock: Clock) -> None:
    node = Node(clock)
    node.start("a", caseid="c", appid="9999", known=True)
    assert (await node.result("a", caseid="c", appid=9999))["retcode"] == 0
    for caller, party in (("b", "9999"), ("", "9999"), ("a", "9998")):
        assert (await node.result(caller, caseid="c", appid=party))["retmsg"].endswith("lost with its worker")


async def test_they_are_forgotten_after_a_while(clock: Clock) -> None:
    node = Node(clock)
    node.start(caseid="c", known=True)
    clock.tick(jobs.KEPT_S - 1)
    assert (await node.result(caseid="c"))["retcode"] == 0
    clock.tick(2)
    assert (await node.result(caseid="c"))["retcode"] == 109


async def test_another_worker_finds_them_in_the_shared_level(clock: Clock) -> None:
    shared = MemoryTier(100, 600.0, clock)
    one, other = Node(clock, shared), Node(clock, shared)
    one.start(caseid="c")
    assert (await other.result(caseid="c"))["retmsg"].endswith("not finished")
    await one.finish(0.75)
    assert (await other.result(caseid="c"))["data"] == {"score": 0.75}
    other.start(caseid="c")
    for node in (one, other):
        found = await node.result(caseid="c")
        assert found["retcode"] == (0 if node is one else 109)
    [entry] = await shared.get_many([key for key in shared._entries])
    assert len(entry.payload) % 8 == 0


@pytest.mark.parametrize(("named", "code"), [({"appid": "9999"}, 1110), ({}, 110)])
async def test_a_job_that_ended_with_its_worker_is_said_to_have(clock: Clock, named: dict[str, str], code: int) -> None:
    """The other worker, and the one that was begun anew, know from the shared level only that it was begun."""
    shared = MemoryTier(100, 600.0, clock)
    one, other = Node(clock, shared), Node(clock, shared)
    one.start(caseid="c", **named)
    clock.tick(TIME_S + jobs.LATE_S - 0.01)
    assert (await other.result(caseid="c", **named))["retcode"] == 109
    clock.tick(0.02)
    lost = await other.result(caseid="c", **named)
    assert (lost["retcode"], "ended with the worker" in lost["retmsg"], lost["caseid"]) == (code, True, "c")
    assert (await one.result(caseid="c", **named))["retcode"] == 109  # which is late, but knows that it runs
    await one.finish(0.5)
    assert (await other.result(caseid="c", **named))["data"] == {"score": 0.5}


async def test_a_job_is_acknowledged_once_other_workers_know_of_it(clock: Clock) -> None:
    node, known = Node(clock), asyncio.Event()

    async def written() -> None:
        await known.wait()

    node.jobs = Jobs(node.door, node.cases, MemoryTier(100, 600.0, clock), TIME_S, clock, written)
    for body in ({"caseid": "c"}, {"caseid": "d", "known": True}):
        known.clear()
        begun = node.jobs.start(message(**body), 1.0, "")
        assert not isinstance(begun, bytes)
        waiting = asyncio.ensure_future(begun)
        await asyncio.sleep(0)
        assert not waiting.done()
        known.set()
        assert body_of(await waiting)["caseid"] == body["caseid"]


async def test_a_worker_that_stops_finishes_what_it_began(clock: Clock) -> None:
    shared = MemoryTier(100, 600.0, clock)
    one, other = Node(clock, shared), Node(clock, shared)
    one.start(caseid="c")
    stopping = asyncio.ensure_future(one.jobs.stop())
    await asyncio.sleep(0)
    assert not stopping.done()
    await one.finish(0.5)
    await stopping
    assert (await other.result(caseid="c"))["data"] == {"score": 0.5}


async def test_what_a_worker_that_stops_does_not_finish_is_lost_at_once(clock: Clock) -> None:
    shared = MemoryTier(100, 600.0, clock)
    one, other = Node(clock, shared), Node(clock, shared)
    one.jobs = Jobs(one.door, one.cases, shared, 0.0, clock)
    one.start(caseid="c", appid="9999")
    await one.jobs.stop()
    assert one.door.replies[0].cancelled()
    lost = await other.result(caseid="c", appid="9999")
    assert (lost["retcode"], "ended with the worker" in lost["retmsg"]) == (1110, True)
    await one.jobs.stop()


async def test_without_a_shared_level_a_case_that_was_named_here_tells_who_had_it(clock: Clock) -> None:
    one, other = Node(clock, name="one"), Node(clock, name="other")
    case = one.start(appid="9999")["caseid"]

    async def said() -> tuple[int, str]:
        found = await other.result(caseid=case, appid="9999")
        return found["retcode"], found["retmsg"].partition(": ")[2]

    other.living.add("one")
    clock.tick(UNHEARD_S)
    assert await said() == (109, "another worker has it: ask over the connection that began it")
    other.living.remove("one")
    assert await said() == (1110, "its job ended with the worker that computed it; begin it again")
    clock.tick(jobs.KEPT_S + TIME_S + jobs.LATE_S)
    assert await said() == (109, "it is long over")


async def test_a_worker_that_was_not_heard_of_yet_is_not_gone(clock: Clock) -> None:
    one, other = Node(clock, name="one"), Node(clock, name="other")
    case = one.start()["caseid"]
    clock.tick(UNHEARD_S - 1)
    assert (await other.result(caseid=case))["retmsg"].endswith("over the connection that began it")
    clock.tick(1)
    assert (await other.result(caseid=case))["retcode"] == 110


async def test_what_was_never_begun_is_not_said_to_be_lost(clock: Clock) -> None:
    """Nor what others began."""
    one, other = Node(clock, name="one"), Node(clock, name="other")
    case = one.start("a", appid="9999")["caseid"]
    clock.tick(UNHEARD_S)
    changed = f"{case[:-1]}{'0' if case[-1] != '0' else '1'}"
    for caller, appid, asked in (
        ("b", "9999", case), ("a", "9998", case), ("a", "9999", changed), ("a", "9999", "0" * 32), ("a", "9999", "c")
    ):  # fmt: skip
        found = await other.result(caller, caseid=asked, appid=appid)
        assert (found["retcode"], found["retmsg"].endswith("lost with its worker")) == (109, True)
    assert (await other.result("a", caseid=case, appid="9999"))["retcode"] == 1110


async def test_what_its_own_worker_forgot_is_long_over(clock: Clock) -> None:
    node = Node(clock)
    case = node.start(known=True)["caseid"]
    clock.tick(jobs.KEPT_S + 1)
    assert (await node.result(caseid=case))["retmsg"].endswith("it is long over")


async def test_what_is_wrong_is_said_at_once(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node(clock)
    monkeypatch.setattr(jobs, "MAX_RUNNING", 1)
    node.start(caseid="c")
    with pytest.raises(LimitError, match="1 jobs are running"):
        node.start(caseid="d")
    await node.finish(0.5)
    node.start(caseid="d")
    with pytest.raises(InvalidRequestError, match="caseid is required"):
        await node.result(appid="9999")
