"""A client for business callers: typed cases in, typed predictions out, retries within the deadline.

    async with Client("127.0.0.1:8700") as client:
        prediction = await client.predict(Case(user_id="0001", numbers={"age": 42}), service="credit")

One client serves any number of concurrent calls of one event loop. Predictions change nothing, so a call that a server
could not take is tried again while time is left: when it is unavailable, and when it says after what time it has room.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType

from apps.app import CacheLevel, PartyStatus
from serving.transport import ChannelCredentials, ChannelOptions, Code, Metadata, RpcError, Transport, channel
from tessera.v1 import inference_pb2 as wire

PUSHBACK = "grpc-retry-pushback-ms"
FIRST_PAUSE_S = 0.01
LONGEST_PAUSE_S = 1.0
_PREDICT = "/tessera.v1.Inference/Predict"
_BATCH_PREDICT = "/tessera.v1.Inference/BatchPredict"


@dataclass(frozen=True, slots=True)
class Case:
    """One business case. A retry with the same `case_id` may be answered from the result cache. Features that are left
    out or NaN are missing, and handled as the model declares."""

    user_id: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    case_id: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    """For the app."""


@dataclass(frozen=True, slots=True)
class Cases:
    """Many users in one call: a column per feature, each with a value per user."""

    user_ids: Sequence[str]
    numbers: Mapping[str, Sequence[float]] = field(default_factory=dict)
    texts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    attributed: bool = False
    """Whether outcomes will be sent back: the server then gives an attribution for every row."""


@dataclass(frozen=True, slots=True)
class Party:
    """What one party's part of an answer came to."""

    party: str
    status: PartyStatus
    level: CacheLevel


@dataclass(frozen=True, slots=True)
class Prediction:
    """`score`: one value, or one per class, of which `label` names the largest. Not `complete`: a party's part is
    missing, and the service's policy let the answer go out. `attribution` goes back with the outcome, once that is
    known."""

    score: tuple[float, ...]
    label: str
    model: str
    version: str
    variant: str
    complete: bool
    parties: tuple[Party, ...]
    cache: CacheLevel
    attribution: bytes


@dataclass(frozen=True, slots=True)
class Predictions:
    """In the order of the users. `statuses`: the first party's failure of each row, else OK; the scores of rows that
    are not OK are NaN. `variants` and `labels` have one entry per row, one for all, or none; `attributions` one per row
    when the cases asked for them, empty where there is no score."""

    scores: tuple[tuple[float, ...], ...]
    statuses: tuple[PartyStatus, ...]
    variants: tuple[str, ...]
    labels: tuple[str, ...]
    model: str
    version: str
    attributions: tuple[bytes, ...] = ()


class Client:
    """Of the service port at `host:port`. `timeout_s` bounds a call with its retries. Raises RpcError with the server's
    code and text. `clock` is monotonic seconds; `pause` waits for some."""

    def __init__(
        self,
        target: str,
        *,
        credentials: ChannelCredentials | None = None,
        token: str = "",
        timeout_s: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Call it on the running event loop."""
        self._channel = channel(Transport.NATIVE, target, ChannelOptions(credentials=credentials))
        self._metadata: Metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._timeout_s = timeout_s
        self._clock = clock
        self._pause = pause

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._channel.close()

    async def predict(self, case: Case, *, service: str = "", model: str = "", version: str = "") -> Prediction:
        """Name a service, or a model and its version, or nothing for the party's default service."""
        request = wire.PredictRequest(
            service=service,
            model=model,
            version=version,
            case_id=case.case_id,
            user_id=case.user_id,
            numbers=case.numbers,
            texts=case.texts,
            parameters=case.parameters,
        )
        reply = wire.PredictReply.FromString(await self._ask(_PREDICT, request.SerializeToString()))
        return Prediction(
            score=tuple(reply.score),
            label=reply.label,
            model=reply.model,
            version=reply.version,
            variant=reply.variant,
            complete=reply.complete,
            parties=tuple(Party(one.party, PartyStatus(one.status), CacheLevel(one.level)) for one in reply.parties),
            cache=CacheLevel(reply.cache),
            attribution=reply.attribution,
        )

    async def predict_many(self, cases: Cases, *, service: str = "", model: str = "", version: str = "") -> Predictions:
        """All rows in one call; the server says in its settings how many it takes."""
        request = wire.BatchPredictRequest(
            service=service,
            model=model,
            version=version,
            user_ids=cases.user_ids,
            numbers={name: wire.NumberColumn(values=column) for name, column in cases.numbers.items()},
            texts={name: wire.TextColumn(values=column) for name, column in cases.texts.items()},
            parameters=cases.parameters,
            attributed=cases.attributed,
        )
        reply = wire.BatchPredictReply.FromString(await self._ask(_BATCH_PREDICT, request.SerializeToString()))
        width = reply.width or 1
        return Predictions(
            scores=tuple(tuple(reply.scores[at : at + width]) for at in range(0, len(reply.scores), width)),
            statuses=tuple(PartyStatus(status) for status in reply.statuses),
            variants=tuple(reply.variants),
            labels=tuple(reply.labels),
            model=reply.model,
            version=reply.version,
            attributions=tuple(reply.attributions),
        )

    async def _ask(self, method: str, request: bytes) -> bytes:
        end = self._clock() + self._timeout_s
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                return await self._channel.unary(method, request, end - self._clock(), self._metadata)
            except RpcError as error:
                wait_s = _wait_s(error, pause_s)
                if wait_s is None or self._clock() + wait_s >= end:
                    raise
            await self._pause(wait_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def _wait_s(error: RpcError, pause_s: float) -> float | None:
    """Until the next attempt; None when there is to be none. A server that says when is believed
    (https://github.com/grpc/proposal/blob/master/A6-client-retries.md)."""
    said = dict(error.trailing_metadata).get(PUSHBACK)
    if isinstance(said, str) and said.isdigit():
        return int(said) / 1_000
    if error.code is not Code.UNAVAILABLE or said is not None:
        return None
    return pause_s * random.uniform(0.5, 1.0)  # noqa: S311 - spreads retries, and guards nothing
