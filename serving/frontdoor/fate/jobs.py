"""`startInferenceJob` and `getInferenceResult` of FATE-Serving 1: an answer is computed while its caller does something
else, and asked for by its case.

Results are kept in this process, and in the shared level of the cache where there is one, so that other workers and
replicas have them too.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Protocol

import msgspec

from apps.app import PartyStatus
from serving.cache.memory import MemoryTier
from serving.cache.tier import CacheTier, Entry, Found, Miss
from serving.errors import InvalidRequestError, LimitError
from serving.frontdoor.fate.bodies import NamedBody, Reply, body_in, message_of
from serving.frontdoor.fate.inference import Ask
from serving.frontdoor.fate.served import JOB_RESULT, START_JOB
from serving.transport import Code
from tessera.compat import fate_inference_pb2 as wire

KEPT_S = 300.0
MAX_KEPT = 1_000
"""Of FATE-Serving 1."""
MAX_RUNNING = 1_000
NO_RESULT = 109
WORD = 8
"""The shared level keeps values of so many bytes and their multiples."""


class Answering(Protocol):
    """What answers the calls of one method."""

    def single(self, raw: bytes, remaining_s: float | None, caller: str) -> bytes | Awaitable[bytes]: ...

    def refusal(self, raw: bytes, error: Exception) -> tuple[bytes, Code]: ...


class Jobs:
    """Of one node. Only who began a job gets its result. `clock` is Unix seconds."""

    def __init__(
        self, door: Answering, party: str, shared: CacheTier | None, clock: Callable[[], float] = time.time
    ) -> None:
        self._door = door
        self._party = party
        self._here = MemoryTier(MAX_KEPT, KEPT_S, clock)
        self._shared = shared
        self._clock = clock
        self._running: set[asyncio.Future[bytes]] = set()

    def methods(self) -> Mapping[str, Ask]:
        return {START_JOB: self.start, JOB_RESULT: self.result}

    def start(self, raw: bytes, remaining_s: float | None, caller: str) -> bytes:
        """The reply names the case; the job has the time of any call without a deadline. Raises what can be seen to be
        wrong at once."""
        body = body_in(raw, NamedBody)
        if len(self._running) >= MAX_RUNNING:
            raise LimitError(f"{MAX_RUNNING} jobs are running already")
        case = body.case or secrets.token_hex(16)
        key = self._key(caller, body.party, case)
        reply = self._door.single(raw, None, caller)
        if isinstance(reply, bytes):
            self._keep(key, case, reply)
        else:
            self._put(key, PartyStatus.NOT_FOUND, b"")
            job = asyncio.ensure_future(reply)
            self._running.add(job)
            job.add_done_callback(partial(self._ended, key, case, raw))
        return message_of(Reply(caseid=case))

    async def result(self, raw: bytes, remaining_s: float | None, caller: str) -> bytes:
        """The answer of a case that was started, as often as it is asked for while it is kept."""
        body = body_in(raw, NamedBody)
        if not body.case:
            raise InvalidRequestError("caseid is required")
        found = await self._find(self._key(caller, body.party, body.case))
        if not isinstance(found, Miss) and found.status is PartyStatus.OK:
            return wire.InferenceMessage(body=found.payload.rstrip()).SerializeToString()
        text = "it is not known here" if isinstance(found, Miss) else "it is not finished"
        return message_of(Reply(retcode=NO_RESULT, retmsg=f"no result of case {body.case!r}: {text}", caseid=body.case))

    async def _find(self, key: bytes) -> Found:
        found = self._here.look(key)
        is_result = not isinstance(found, Miss) and found.status is PartyStatus.OK
        if is_result or self._shared is None:
            return found
        [elsewhere] = await self._shared.get_many([key])
        return found if isinstance(elsewhere, Miss) else elsewhere

    def _ended(self, key: bytes, case: str, raw: bytes, job: asyncio.Future[bytes]) -> None:
        self._running.discard(job)
        if job.cancelled():
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
        """OK: a result; NOT_FOUND: the job runs."""
        until = self._clock() + KEPT_S
        entries = {key: Entry(status, until, until, payload)}
        self._here.put_many(entries)
        if self._shared is not None:
            self._shared.put_many(entries)

    def _key(self, *named: str) -> bytes:
        return b"fate-job:" + hashlib.sha256(msgspec.msgpack.encode((self._party, *named))).digest()
