"""Calls that wait for an answer, and how those of one turn of the event loop come together.

What one read from a socket brings, and what several sockets bring at once, is worth one execution: one preparation of
features, one question to each cache level, one call to each host, one product. Nobody waits for company: what is there
when the loop has gone round once goes.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from apps.app import Request, Response
from serving.routing import Target
from serving.telemetry.spans import Span
from serving.transport.promise import Promise

T = TypeVar("T")

_STEPS = 4
"""Calls may go together whose remaining times are alike within a factor of 2 ** (1 / _STEPS)."""

Key = tuple[object, ...]

Finish = Callable[[Response, int | None], T]
"""Makes the reply of a response and the place of the call's row in it, None when all rows are the call's."""


class Waiting(Generic[T]):
    """A call that is executed. `times`: when it came and its deadline, in monotonic seconds. `protocol`: as figures
    call it. `span`: of one that is traced."""

    __slots__ = ("came", "deadline", "finish", "protocol", "reply", "request", "span")

    def __init__(self, request: Request, times: tuple[float, float], finish: Finish[T], protocol: str = "") -> None:
        self.request = request
        self.came, self.deadline = times
        self.finish = finish
        self.protocol = protocol
        self.reply: Promise[T] = Promise()
        self.span: Span | None = None

    def succeed(self, response: Response, row: int | None) -> None:
        if self.reply.done():
            return
        try:
            answer = self.finish(response, row)
        except Exception as error:  # noqa: BLE001 - the caller is told, whatever went wrong
            self.reply.set_exception(error)
        else:
            self.reply.set_result(answer)

    def fail(self, error: BaseException) -> None:
        self.reply.set_exception(error)


Start = Callable[[Target, Sequence[Waiting[Any]]], None]


class Gathering:
    """Collects calls of one row, and starts those that can run as one batch at the end of the turn. `start` fails the
    calls rather than raise. `patience_s` is how long hosts get at most: who has no less time is not told apart."""

    def __init__(self, start: Start, patience_s: float) -> None:
        self._start = start
        self._patience_s = patience_s
        self._groups: dict[Key, tuple[Target, list[Waiting[Any]]]] = {}
        self._due = False

    def add(self, target: Target, call: Waiting[Any]) -> None:
        request, left_s = call.request, call.deadline - call.came
        urgency = 0 if left_s >= self._patience_s else round(_STEPS * math.log2(left_s / self._patience_s))
        matrix = request.matrix
        key: Key = (target, request.attributed, urgency, request.signature_hash,
            -1 if matrix is None else matrix.shape[1], tuple(request.parameters.items()))  # fmt: skip
        group = self._groups.get(key)
        if group is None:
            self._groups[key] = (target, [call])
        else:
            group[1].append(call)
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._go)

    def _go(self) -> None:
        self._due = False
        groups, self._groups = self._groups, {}
        for target, came in groups.values():
            calls = [call for call in came if not call.reply.done()]
            if calls:
                self._start(target, calls)


def together(requests: Sequence[Request]) -> Request:
    """One request of as many rows, for calls of one row that were gathered. It has no case: an app sees what it would
    see of a batch."""
    if len(requests) == 1:
        return requests[0]
    first = requests[0]
    numbers = _columns([request.numbers for request in requests], math.nan)
    texts = _columns([request.texts for request in requests], None)
    matrix = None if first.matrix is None else np.concatenate([request.matrix for request in requests])
    return Request(
        service=first.service,
        model=first.model,
        version=first.version,
        case_id="",
        user_ids=tuple([request.user_ids[0] for request in requests]),
        numbers=numbers,
        texts=texts,
        matrix=matrix,
        signature_hash=first.signature_hash,
        parameters=first.parameters,
        columnar=True,
        attributed=first.attributed,
    )


def _columns(rows: Sequence[Any], absent: object) -> dict[str, list[Any]]:
    """By name one value per row."""
    first = rows[0]
    if all(row.keys() == first.keys() for row in rows):
        return {name: [row[name] for row in rows] for name in first}
    return {name: [row.get(name, absent) for row in rows] for name in {name: None for row in rows for name in row}}


def itself(response: Response, row: int | None) -> Response:
    """The `finish` of who wants the response."""
    return response if row is None else response.row(row)


async def all_replies(replies: Sequence[Promise[T]]) -> Sequence[T]:
    return [await replies[0]] if len(replies) == 1 else await asyncio.gather(*replies)
