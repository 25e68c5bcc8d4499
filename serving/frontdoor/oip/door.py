"""Inference by either carrier: finds the model, asks the pipeline, counts."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from apps.app import CacheLevel, Request, Response
from serving.errors import InvalidRequestError, LimitError
from serving.frontdoor.oip.models import Models, ModelView
from serving.frontdoor.oip.rows import Answered, Asked, answer_of, request_of
from serving.pipeline import Pipeline
from serving.transport import Code

Encode = Callable[[Answered], bytes]


@dataclass(slots=True)
class Figures:
    """Of one model, for ModelStatistics. Durations in nanoseconds; hits of the result cache are not executions."""

    succeeded: int = 0
    succeeded_ns: int = 0
    failed: int = 0
    failed_ns: int = 0
    hits: int = 0
    hits_ns: int = 0
    rows: int = 0
    executions: int = 0
    last_ms: int = 0
    batches: dict[int, tuple[int, int]] = field(default_factory=dict)
    """By number of rows: executions, and how long they took together."""

    def executed(self, rows: int, took_ns: int) -> None:
        self.succeeded += 1
        self.succeeded_ns += took_ns
        self.executions += 1
        self.rows += rows
        count, total_ns = self.batches.get(rows, (0, 0))
        self.batches[rows] = (count + 1, total_ns + took_ns)
        self.last_ms = time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Terms:
    """Who asks, and how long there is."""

    remaining_s: float | None
    caller: str


class OverCapacityError(LimitError):
    """A limit that lets the same call pass later, as the protocol's clients know it."""

    code = Code.UNAVAILABLE


@dataclass(slots=True)
class _Codec:
    """Of one call. `name` has all that shapes the reply beside the raw bytes, since equal ones share cached replies.
    `executed`: the pipeline had no reply at hand."""

    name: str
    asked: Asked
    view: ModelView
    into: Encode
    executed: bool = False

    def decode(self, raw: bytes) -> Request:
        return request_of(self.asked, self.view)

    def encode(self, response: Response, level: CacheLevel) -> bytes:
        self.executed = True
        return self.into(answer_of(response, self.view, self.asked.outputs))


@dataclass(frozen=True, slots=True)
class Door:
    pipeline: Pipeline
    models: Models
    figures: dict[str, Figures] = field(default_factory=dict)
    """By the name that the caller used."""

    def infer(self, form: str, asked: Asked, into: Encode, raw: bytes, terms: Terms) -> Awaitable[bytes]:
        """The reply without the call's id. `form` names the carrier and whatever else of it shapes the reply; what is
        asked for counts besides, since a carrier may name it outside of `raw`."""
        view = self.models.find(asked.model, asked.version)
        codec = _Codec(repr((form, asked.model, asked.version, asked.outputs)), asked, view, into)
        return self._counted(codec, raw, terms)

    async def _counted(self, codec: _Codec, raw: bytes, terms: Terms) -> bytes:
        figures = self.figures.setdefault(codec.asked.model, Figures())
        began = time.perf_counter_ns()
        try:
            reply = self.pipeline.answer(codec, raw, terms.remaining_s, terms.caller)
            answer = reply if isinstance(reply, bytes) else await reply
        except BaseException as error:
            figures.failed += 1
            figures.failed_ns += time.perf_counter_ns() - began
            if isinstance(error, LimitError):
                raise _worded(error) from error
            raise
        took_ns = time.perf_counter_ns() - began
        if not codec.executed:
            figures.hits += 1
            figures.hits_ns += took_ns
            return answer
        figures.executed(max((int(tensor.array.shape[0]) for tensor in codec.asked.inputs), default=0), took_ns)
        return answer


def _worded(error: LimitError) -> Exception:
    """Too many rows for any call are a wrong shape."""
    if error.retry_after_s is None:
        return InvalidRequestError(str(error))
    return OverCapacityError(str(error), error.retry_after_s)
