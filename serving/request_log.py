"""A line in the log for a share of the requests: what answered them and how, never whom they were about, and what they
said only if an operator wants that."""

from __future__ import annotations

import hmac
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from apps.app import CacheLevel, PartyOutcome, Request, Response
from serving.codec import Codec
from serving.errors import code_of
from serving.limits import Limiter
from serving.peers.hosts import Hosts
from serving.pipeline import Answers, Pipeline
from serving.pool import ModelPool
from serving.routing import RouteTable
from serving.transport import Code, Promise

T = TypeVar("T")

logger = logging.getLogger(__name__)

_CASE_BYTES = 16
PREDICT = "predict"
"""The method of calls that came without one."""


class RequestLog:
    """`share` of the calls, each by chance. `secret` keys the hashes that stand for cases: equal on all replicas, so
    that a retry is seen to be one. `features`: tell those of calls of one row. `clock` is monotonic seconds; `chance`
    uniform in [0, 1)."""

    def __init__(
        self,
        share: float,
        secret: bytes,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
        features: bool = False,
    ) -> None:
        self._share = share
        self._features = features
        self._key = hmac.digest(secret, b"tessera request log", "sha256")
        self._clock = clock
        self._chance = chance

    def begin(self, method: str, caller: str) -> Line | None:
        """The line of a call that is taken."""
        return Line(self, method, caller, self._clock()) if self._chance() < self._share else None

    def case(self, case_id: str) -> str:
        return hmac.digest(self._key, case_id.encode(), "sha256")[:_CASE_BYTES].hex()

    def write(self, line: Line, service: str, code: Code) -> None:
        seconds, rows = self._clock() - line.began, line.request.rows if line.request else 0
        fields: dict[str, Any] = {"method": line.method, "service": service, "code": code.name, "rows": rows}
        fields |= {"seconds": round(seconds, 6), "cache": line.level.name.lower(), "caller": line.caller}
        if line.request is not None and line.request.case_id:
            fields["case"] = self.case(line.request.case_id)
        if self._features and line.request is not None and line.request.rows == 1:
            fields["features"] = _features(line.request)
        if line.response is not None:
            fields |= _answered(line.response)
        variants = ", ".join(fields.get("variants", ())) or "no version"
        text = "request to %s by %s: %s after %.1f ms, rows %d"
        logger.info(text, service or "no service", variants, code.name, 1_000 * seconds, rows, extra={"fields": fields})


class Line:
    """What becomes known of one call."""

    __slots__ = ("began", "caller", "level", "log", "method", "request", "response")

    def __init__(self, log: RequestLog, method: str, caller: str, began: float) -> None:
        self.log = log
        self.method = method
        self.caller = caller
        self.began = began
        self.level = CacheLevel.L1
        """Until something is computed."""
        self.request: Request | None = None
        self.response: Response | None = None


class _Watched(Codec):
    """A codec that tells what it sees."""

    def __init__(self, codec: Codec, line: Line) -> None:
        self.name, self.protocol = codec.name, codec.protocol
        self._codec = codec
        self._line = line

    def decode(self, raw: bytes) -> Request:
        self._line.request = request = self._codec.decode(raw)
        return request

    def encode(self, response: Response, level: CacheLevel) -> bytes:
        self._line.response, self._line.level = response, level
        return self._codec.encode(response, level)

    def encode_row(self, response: Response, row: int, level: CacheLevel) -> bytes:
        self._line.response, self._line.level = response.row(row), level
        return self._codec.encode_row(response, row, level)


class LoggedPipeline(Pipeline):
    """A Pipeline that writes down a share of its calls."""

    def __init__(
        self, log: RequestLog, routes: RouteTable, pool: ModelPool, hosts: Hosts, answers: Answers, limiter: Limiter
    ) -> None:
        super().__init__(routes, pool, hosts, answers, limiter)
        self._log = log

    def answer(self, codec: Codec, raw: bytes, remaining_s: float | None, caller: str = "") -> bytes | Promise[bytes]:
        line = self._log.begin(codec.name, caller)
        if line is None:
            return super().answer(codec, raw, remaining_s, caller)
        try:
            reply = super().answer(_Watched(codec, line), raw, remaining_s, caller)
        except Exception as error:
            self._end(line, code_of(error))
            raise
        if isinstance(reply, bytes):
            line.request = line.request or codec.decode(raw)
            self._end(line, Code.OK)
            return reply
        return self._until_done(line, reply)

    def predict(self, request: Request, remaining_s: float | None, protocol: str = "") -> Promise[Response]:
        line = self._log.begin(PREDICT, "")
        if line is None:
            return super().predict(request, remaining_s, protocol)
        line.request, line.level = request, CacheLevel.NONE
        try:
            reply = super().predict(request, remaining_s, protocol)
        except Exception as error:
            self._end(line, code_of(error))
            raise
        reply.add_done_callback(partial(self._answered, line))
        return self._until_done(line, reply)

    def _answered(self, line: Line, reply: Promise[Response]) -> None:
        if not reply.cancelled() and reply.exception() is None:
            line.response = reply.result()

    def _until_done(self, line: Line, reply: Promise[T]) -> Promise[T]:
        reply.add_done_callback(lambda done: self._end(line, _code(done)))
        return reply

    def _end(self, line: Line, code: Code) -> None:
        if line.response is None and code is not Code.OK:
            line.level = CacheLevel.NONE
        routes, request = self._routes.current, line.request
        service = routes.service_name(request.address) if request is not None else ""
        self._log.write(line, service if service in routes.services else "", code)


def _code(done: Promise[Any]) -> Code:
    if done.cancelled():
        return Code.CANCELLED
    error = done.exception()
    return Code.OK if error is None else code_of(error)


def _features(request: Request) -> dict[str, Any]:
    """By name, else as they were packed. NaN, a missing number, is null in JSON."""
    if request.matrix is not None:
        return {"packed": request.matrix[0].tolist(), **_of_one_row(request, request.texts)}
    return _of_one_row(request, {**request.numbers, **request.texts})


def _of_one_row(request: Request, named: Mapping[str, Any]) -> dict[str, Any]:
    return {name: values[0] if request.columnar else values for name, values in named.items()}


def _answered(response: Response) -> dict[str, Any]:
    """Rows are counted, not told one by one."""
    return {
        "model": response.model,
        "version": response.version,
        "variants": sorted(set(response.variants)),
        "complete": response.complete,
        "parties": {one.party: _party(one) for one in response.parties},
    }


def _party(outcome: PartyOutcome) -> dict[str, dict[str, int]]:
    statuses, levels = Counter(outcome.statuses), Counter(outcome.levels)
    return {
        "statuses": {status.name.lower(): rows for status, rows in sorted(statuses.items())},
        "levels": {level.name.lower(): rows for level, rows in sorted(levels.items())},
    }
