"""`startInferenceJob` and `getInferenceResult` of FATE-Serving 1: an answer is computed while its caller does something
else, and asked for by its case.

Results are kept in this process, and in the shared level of the cache where there is one, so that other workers and
replicas have them too, and know of a job that ended with its worker. Without one they know it of cases that were named
here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Protocol

import msgspec

from apps.app import PartyStatus
from serving.cache.memory import MemoryTier
from serving.cache.tier import CacheTier, Entry, Found, Miss
from serving.errors import InvalidRequestError, LimitError, NotReadyError
from serving.frontdoor.fate.bodies import NamedBody, Reply, body_in, message_of
from serving.frontdoor.fate.cases import Cases, Whereabouts
from serving.frontdoor.fate.codes import FateCode, of_first_line
from serving.frontdoor.fate.inference import Ask
from serving.frontdoor.fate.served import JOB_RESULT, START_JOB
from serving.transport import Code
from tessera.compat import fate_inference_pb2 as wire

KEPT_S = 300.0
MAX_KEPT = 1_000
"""Of FATE-Serving 1."""
MAX_RUNNING = 1_000
NO_RESULT = 109
LATE_S = 2.0
"""A job that is not over so long after its time ended with its worker. A worker that stops waits no longer for jobs."""
WORD = 8
"""The shared level keeps values of so many bytes and their multiples."""
_MISSING = {
    Whereabouts.UNKNOWN: "it is not known here: not begun, long over, or lost with its worker",
    Whereabouts.OVER: "it is long over",
    Whereabouts.ELSEWHERE: "another worker has it: ask over the connection that began it",
}


class Answering(Protocol):
    """What answers the calls of one method."""

    def single(self, raw: bytes, remaining_s: float | None, caller: str) -> bytes | Awaitable[bytes]: ...

    def refusal(self, raw: bytes, error: Exception) -> tuple[bytes, Code]: ...


class Jobs:
    """Of one node. Only who began a job gets its result. `time_s`: how long a job has; `clock` is Unix seconds;
    `written` returns when the shared level has all that it was given."""

    def __init__(
        self,
        door: Answering,
        cases: Cases,
        shared: CacheTier | None,
        time_s: float,
        clock: Callable[[], float] = time.time,
        written: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._written = written
        self._door = door
        self._cases = cases
        self._time_s = time_s
        self._here = MemoryTier(MAX_KEPT, KEPT_S, clock)
        self._shared = shared
        self._clock = clock
        self._running: dict[asyncio.Future[bytes], bytes] = {}

    def methods(self) -> Mapping[str, Ask]:
        return {START_JOB: self.start, JOB_RESULT: self.result}

    def start(self, raw: bytes, remaining_s: float | None, caller: str) -> bytes | Awaitable[bytes]:
        """The reply names the case, of which other workers know by then; the job has the time of any call without a
        deadline. Raises what can be seen to be wrong at once."""
        body = body_in(raw, NamedBody)
        if len(self._running) >= MAX_RUNNING:
            raise LimitError(f"{MAX_RUNNING} jobs are running already")
        case = body.case or self._cases.make(caller, body.party)
        key = self._cases.key(caller, body.party, case)
        reply = self._door.single(raw, None, caller)
        if isinstance(reply, bytes):
            self._keep(key, case, reply)
        else:
            self._put(key, PartyStatus.NOT_FOUND, b"")
            job = asyncio.ensure_future(reply)
            self._running[job] = key
            job.add_done_callback(partial(self._ended, case, raw))
        begun = message_of(Reply(caseid=case))
        return begun if self._written is None else self._once_written(begun, self._written)

    async def _once_written(self, reply: bytes, written: Callable[[], Awaitable[None]]) -> bytes:
        await written()
        return reply

    async def result(self, raw: bytes, remaining_s: float | None, caller: str) -> bytes:
        """The answer of a case that was started, as often as it is asked for while it is kept."""
        body = body_in(raw, NamedBody)
        if not body.case:
            raise InvalidRequestError("caseid is required")
        key = self._cases.key(caller, body.party, body.case)
        found = await self._find(key)
        if isinstance(found, Miss):
            return self._missing(body, caller)
        if found.status is PartyStatus.OK:
            return wire.InferenceMessage(body=found.payload.rstrip()).SerializeToString()
        if found.fresh_until > self._clock() or key in self._running.values():
            return _none(NO_RESULT, body.case, "it is not finished")
        return _lost(body, body.case)

    def _missing(self, body: NamedBody, caller: str) -> bytes:
        where = self._cases.whereabouts(caller, body.party, body.case, KEPT_S + self._time_s + LATE_S)
        if where is Whereabouts.GONE:
            return _lost(body, body.case)
        return _none(NO_RESULT, body.case, _MISSING[where])

    async def stop(self) -> None:
        """What is begun is finished; what takes too long for that is said to be lost."""
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=min(self._time_s, LATE_S))
            for job in late:
                job.cancel()
            if late:
                await asyncio.wait(late)

    async def _find(self, key: bytes) -> Found:
        found = self._here.look(key)
        is_result = not isinstance(found, Miss) and found.status is PartyStatus.OK
        if is_result or self._shared is None:
            return found
        [elsewhere] = await self._shared.get_many([key])
        return found if isinstance(elsewhere, Miss) else elsewhere

    def _ended(self, case: str, raw: bytes, job: asyncio.Future[bytes]) -> None:
        key = self._running.pop(job)
        if job.cancelled():
            self._keep(key, case, _lost(body_in(raw, NamedBody), case))
            return
        error = job.exception()
        if error is None:
            self._keep(key, case, job.result())
        elif isinstance(error, Exception):
            self._keep(key, case, self._door.refusal(raw, error)[0])

    def _keep(self, key: bytes, case: str, reply: bytes) -> None:
        shown: dict[str, Any] = msgspec.json.decode(wire.InferenceMessage.FromString(reply).body)
        body = msgspec.json.encode({**shown, "caseid": case})
        self._put(key, PartyStatus.OK, body + b" " * (-len(body) % WORD))

    def _put(self, key: bytes, status: PartyStatus, payload: bytes) -> None:
        """OK: a result; NOT_FOUND: the job runs, as long as that is fresh."""
        now_s = self._clock()
        until = now_s + KEPT_S
        fresh_until = until if status is PartyStatus.OK else now_s + self._time_s + LATE_S
        entries = {key: Entry(status, fresh_until, until, payload)}
        self._here.put_many(entries)
        if self._shared is not None:
            self._shared.put_many(entries)


def _lost(body: NamedBody, case: str) -> bytes:
    """No 109, at which callers ask again."""
    text = "its job ended with the worker that computed it; begin it again"
    code = int(FateCode.SYSTEM)
    return _none(of_first_line(code, NotReadyError(text)) if body.is_first_line else code, case, text)


def _none(code: int, case: str, text: str) -> bytes:
    return message_of(Reply(retcode=code, retmsg=f"no result of case {case!r}: {text}", caseid=case))
