"""A pipeline that tells the spans of its calls what happens to them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from apps.app import Request, Response, Result
from loaders.loader import Outputs
from serving.calls import Waiting
from serving.codec import Codec
from serving.peers.partials import HostPartials
from serving.pipeline import Pipeline
from serving.pool import ModelHandle
from serving.request_log import LoggedPipeline
from serving.rounds import Round
from serving.routing import Target
from serving.settings import FallbackSettings
from serving.telemetry.served import variant_of
from serving.telemetry.spans import HERE, Span, within
from serving.threads import ModelThreads
from serving.transport import Promise


class TracedRound(Round):
    """Its steps are those of the first of its calls that is traced."""

    __slots__ = ("span",)

    def __init__(
        self, target: Target, handle: ModelHandle, calls: Sequence[Waiting[Any]], clock: Callable[[], float]
    ) -> None:
        super().__init__(target, handle, calls, clock)
        spans = _spans_of(calls)
        self.span = spans[0] if spans else None

    def prepare(self) -> None:
        if self.span is None:
            super().prepare()
            return
        with self.span.step("app preprocess"):
            super().prepare()

    def run(self) -> Outputs:
        if self.span is None or self.outputs is not None:
            return super().run()
        with self.span.step("local") as step:
            step.attributes["tessera.rows"] = len(self.users)
            return super().run()

    def run_on(self, threads: ModelThreads) -> asyncio.Future[Outputs]:
        local = super().run_on(threads)
        if self.span is not None:
            step = self.span.child("local")
            step.attributes |= {"tessera.rows": len(self.users), "tessera.thread": True}
            local.add_done_callback(partial(_ended, step))
        return local

    def _merged(self, outputs: Outputs, remote: Sequence[HostPartials], fallback: FallbackSettings) -> Result:
        if self.span is None:
            return super()._merged(outputs, remote, fallback)
        with self.span.step("merge"):
            return super()._merged(outputs, remote, fallback)

    def _finished(self, merged: Result, outputs: Outputs, remote: Sequence[HostPartials]) -> Result:
        if self.span is None:
            return super()._finished(merged, outputs, remote)
        with self.span.step("app postprocess"):
            return super()._finished(merged, outputs, remote)


class TracedPipeline(Pipeline):
    """Hosts and codecs find the span of what they do in `HERE`."""

    rounds = TracedRound

    def answer(self, codec: Codec, raw: bytes, remaining_s: float | None, caller: str = "") -> bytes | Promise[bytes]:
        reply = super().answer(codec, raw, remaining_s, caller)
        span = HERE.get()
        if span is not None and isinstance(reply, bytes):
            span.attributes["tessera.cache"] = "l1"
        return reply

    def _counted(self, target: Target, call: Waiting[Any]) -> None:
        call.span = HERE.get()
        super()._counted(target, call)

    def _start(self, target: Target, calls: Sequence[Waiting[Any]]) -> None:
        spans = _spans_of(calls)
        for span in spans:
            _describe(span, target)
        for other in spans[1:]:
            other.links.append(spans[0].context)
        with within(None):
            super()._start(target, calls)

    def _prepared(self, target: Target, handle: ModelHandle, calls: Sequence[Waiting[Any]]) -> Round | None:
        spans = _spans_of(calls)
        with within(spans[0] if spans else None):
            return super()._prepared(target, handle, calls)

    async def _find(self, round_: Round) -> None:
        with within(_span(round_)):
            await super()._find(round_)

    async def _ask_all(self, round_: Round) -> None:
        with within(_span(round_)):
            await super()._ask_all(round_)

    async def _shadow(self, target: Target, request: Request) -> Response:
        """Is of no call."""
        with within(None):
            return await super()._shadow(target, request)


class LoggedTracedPipeline(LoggedPipeline, TracedPipeline):
    """Does both."""


def _spans_of(calls: Sequence[Waiting[Any]]) -> list[Span]:
    """Of those that are traced. Parts of one call have the same."""
    return list(dict.fromkeys([call.span for call in calls if call.span is not None]))


def _span(round_: Round) -> Span | None:
    return round_.span if isinstance(round_, TracedRound) else None


def _ended(step: Span, local: asyncio.Future[Outputs]) -> None:
    error = asyncio.CancelledError() if local.cancelled() else local.exception()
    step.end("" if error is None else type(error).__name__)


def _describe(span: Span, target: Target) -> None:
    """Which version a call meets: the last one, when its rows meet several."""
    span.attributes |= {
        "tessera.service": target.service,
        "tessera.model": target.model.model,
        "tessera.version": target.model.version,
        "tessera.variant": variant_of(target),
    }
