"""Inference by either carrier: finds the model, asks the pipeline, counts."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from apps.app import CacheLevel, Request, Response
from serving.codec import Codec
from serving.errors import InvalidRequestError, LimitError, TesseraError
from serving.frontdoor.oip.figures import Figures, Named
from serving.frontdoor.oip.models import Models, ModelView
from serving.frontdoor.oip.rows import Answered, Asked, answer_of, key_of, request_of
from serving.pipeline import Pipeline
from serving.transport import Code

Encode = Callable[[Answered], bytes]
GRPC, HTTP = "oip", "oip-http"
"""As figures call the protocol, by what carries it."""
TIMEOUT = "timeout"
"""The parameter that says how long there is, in microseconds."""
_LONGEST_US = 10**12


@dataclass(frozen=True, slots=True)
class Terms:
    """Who asks, and how long there is."""

    remaining_s: float | None
    caller: str

    def within(self, parameters: Mapping[str, Any]) -> Terms:
        """No longer than parameter `timeout` says."""
        timeout_us = parameters.get(TIMEOUT)
        if isinstance(timeout_us, bool) or not isinstance(timeout_us, int) or timeout_us <= 0:
            return self
        timeout_s = min(timeout_us, _LONGEST_US) / 1e6
        return Terms(timeout_s if self.remaining_s is None else min(timeout_s, self.remaining_s), self.caller)


class Form(NamedTuple):
    """How a call came: its protocol, and the method and whatever else of the carrier shapes the reply."""

    protocol: str
    shape: str


class OverCapacityError(LimitError):
    """A limit that lets the same call pass later, as the protocol's clients know it."""

    code = Code.UNAVAILABLE


@dataclass(slots=True)
class _Codec(Codec):
    """Of one call. `name` has all that shapes the reply beside the raw bytes, since equal ones share cached replies.
    `rows`: how many each version answered; none when the reply was at hand."""

    name: str
    protocol: str
    asked: Asked
    view: ModelView
    into: Encode
    rows: Counter[str] = field(default_factory=Counter)

    def decode(self, raw: bytes) -> Request:
        return request_of(self.asked, self.view)

    def encode(self, response: Response, level: CacheLevel) -> bytes:
        """May be called several times for one call."""
        self.rows = _rows_by_version(response)
        return self.into(answer_of(response, self.view, self.asked))


def _rows_by_version(response: Response) -> Counter[str]:
    if response.version:
        return Counter({response.version: len(response.scores)})
    return Counter(variant.rpartition(":")[2] for variant in response.variants)


@dataclass(frozen=True, slots=True)
class Door:
    pipeline: Pipeline
    models: Models
    figures: dict[Named, Figures] = field(default_factory=dict)

    def infer(self, form: Form, asked: Asked, into: Encode, raw: bytes, terms: Terms) -> Awaitable[bytes]:
        """The reply without the call's id. What is asked for shapes it beside the form, since a carrier may name it
        outside of `raw`."""
        view = self.models.find(asked.model, asked.version)
        codec = _Codec(repr((form.shape, asked.shape)), form.protocol, asked, view, into)
        return self._counted(codec, raw, terms.within(asked.parameters))

    async def _counted(self, codec: _Codec, raw: bytes, terms: Terms) -> bytes:
        began = time.perf_counter_ns()
        try:
            reply = self.pipeline.answer(codec, raw, terms.remaining_s, terms.caller)
            answer = reply if isinstance(reply, bytes) else await reply
        except BaseException as error:
            figures = self._likely(codec)
            figures.failed += 1
            figures.failed_ns += time.perf_counter_ns() - began
            if isinstance(error, LimitError):
                raise _worded(error) from error
            raise
        self._succeeded(codec, time.perf_counter_ns() - began)
        return answer

    def _succeeded(self, codec: _Codec, took_ns: int) -> None:
        for version, rows in codec.rows.items():
            self._of(codec.view.name, version).executed(rows, took_ns)
        if not codec.rows:
            figures = self._likely(codec)
            figures.hits += 1
            figures.hits_ns += took_ns

    def _of(self, name: str, version: str) -> Figures:
        return self.figures.setdefault((name, version), Figures())

    def _likely(self, codec: _Codec) -> Figures:
        """Of the version that the first row leads to, where nothing says which one answered."""
        try:
            version = self.models.answering(codec.view, key_of(codec.asked))
        except TesseraError:
            version = codec.view.versions[0]
        return self._of(codec.view.name, version)


def _worded(error: LimitError) -> Exception:
    """Too many rows for any call are a wrong shape."""
    if error.retry_after_s is None:
        return InvalidRequestError(str(error))
    return OverCapacityError(str(error), error.retry_after_s)
