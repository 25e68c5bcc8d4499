"""`InferenceService` on the service port: one case, or a batch of them, as JSON in a message."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from apps.app import CacheLevel, PartyStatus, Request, Response
from serving.access import Access
from serving.codec import Codec
from serving.errors import PeerError, TesseraError
from serving.frontdoor.fate.batch import BatchCodec
from serving.frontdoor.fate.bodies import NamedBody, Reply, SingleBody, body_in, message_of
from serving.frontdoor.fate.codes import failure, is_of_a_call, of_first_line
from serving.frontdoor.fate.features import features_in, specs_of, user_id_in
from serving.frontdoor.fate.rules import Flow
from serving.frontdoor.fate.served import BATCH_INFERENCE, GRPC, INFERENCE, FateModels
from serving.peers.occasions import Occasion
from serving.pipeline import Pipeline
from serving.pool import ModelId
from serving.routing import Address
from serving.telemetry.requests import MethodFigures, RequestFigures
from serving.transport import Call, Code, Server


class SingleCodec(Codec):
    """One case of one user, of one call."""

    def __init__(self, models: FateModels, protocol: str) -> None:
        self.name, self.protocol = f"{protocol} {INFERENCE}" if protocol != GRPC else INFERENCE, protocol
        self._models = models
        self._asked: tuple[Address, str] | None = None
        self._answered: ModelId | None = None
        self._occasion: Occasion | None = None

    def decode(self, raw: bytes) -> Request:
        body = body_in(raw, SingleBody)
        service, model, version = address = self._models.address(body)
        handles = self._models.admitted(address, 1)
        self._asked = address, ""
        user = user_id_in(body.sent(self._models.user_id), self._models.user_id)
        self._asked = address, user or body.case
        self._occasion = self._models.begun(handles, (user,), body)
        numbers, texts = features_in(body.feature_data, specs_of(handle.servable.signature for handle in handles))
        return Request(
            service=service,
            model=model,
            version=version,
            case_id=body.case,
            user_ids=(user,),
            numbers=numbers,
            texts=texts,
        )

    def encode(self, response: Response, level: CacheLevel) -> bytes:
        """May be called several times for one call."""
        self._answered = model = ModelId(response.model, response.version)
        scored, described = self._models.scored(response, 0, model), self._models.described(model)
        return message_of(Reply(data={**scored, **described}, warn=_warnings(response)))

    def count(self) -> None:
        """For the figures of the model, once the reply is there; one from the result cache is no model's."""
        if self._answered is not None:
            self._models.answered(self._answered, 1)

    def count_failure(self, error: Exception) -> None:
        if self._asked is not None:
            self._models.failed(*self._asked, error, 1)


def _warnings(response: Response) -> dict[str, Any]:
    """Which hosts an answer had to do without."""
    return {
        one.party: one.statuses[0].name.lower() for one in response.parties if one.statuses[0] is not PartyStatus.OK
    }


class _Counting(Protocol):
    """Tells the figures of models how a call ended."""

    def count(self) -> None: ...

    def count_failure(self, error: Exception) -> None: ...


class FateInference:
    """Answers calls with messages, and counts them, whatever carries them. `protocol`: as figures call it; `clock` is
    monotonic seconds."""

    def __init__(
        self,
        pipeline: Pipeline,
        models: FateModels,
        max_rows: int,
        protocol: str = GRPC,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pipeline = pipeline
        self._models = models
        self._max_rows = max_rows
        self.protocol = protocol
        self._clock = clock

    @property
    def _flow(self) -> Flow:
        return self._models.flow

    def single(self, raw: bytes, remaining_s: float | None, caller: str) -> bytes | Awaitable[bytes]:
        resource, codec = _resource(INFERENCE), SingleCodec(self._models, self.protocol)
        try:
            self._flow.take(resource, 1)
            reply = self._pipeline.answer(codec, raw, remaining_s, caller)
        except Exception as error:
            self._failed(resource, codec, error)
            raise
        return self._counted(resource, codec, reply)

    def batch(self, raw: bytes, remaining_s: float | None, caller: str) -> bytes | Awaitable[bytes]:
        resource, codec = _resource(BATCH_INFERENCE), None
        try:
            self._flow.take(resource, 1)
            codec = BatchCodec(self._models, raw, self._max_rows, self.protocol)
            reply = self._batch(codec, raw, remaining_s, caller)
        except Exception as error:
            self._failed(resource, codec, error)
            raise
        return self._counted(resource, codec, reply)

    def _batch(self, codec: BatchCodec, raw: bytes, remaining_s: float | None, caller: str) -> bytes | Awaitable[bytes]:
        if codec.is_hopeless:
            return codec.refusal()
        reply = self._pipeline.answer(codec, raw, remaining_s, caller)
        return reply if isinstance(reply, bytes) else self._by_rows(codec, raw, reply, remaining_s)

    async def _by_rows(
        self, codec: BatchCodec, raw: bytes, reply: Awaitable[bytes], remaining_s: float | None
    ) -> bytes:
        """A host that answers none of the rows that it was asked for fails them one by one; one that does not answer
        fails the call. Rows are asked once more by themselves where that tells why they failed."""
        began = self._clock()
        try:
            answered = await reply
        except PeerError as error:
            if error.failure is None or is_of_a_call(error.failure):
                raise
            answered, places = b"", tuple(codec.places)
        else:
            places = tuple(codec.unexplained)
        if not places:
            return answered
        left_s = None if remaining_s is None else remaining_s - (self._clock() - began)
        rows = [self._alone(one, left_s) for one in codec.row_by_row(raw, places)]
        return codec.encode_each(places, await asyncio.gather(*rows, return_exceptions=True))

    async def _alone(self, row: Request, remaining_s: float | None) -> Response:
        return await self._pipeline.predict(row, remaining_s, self.protocol)

    def _counted(self, resource: str, codec: _Counting, reply: bytes | Awaitable[bytes]) -> bytes | Awaitable[bytes]:
        if not isinstance(reply, bytes):
            return self._awaited(resource, codec, reply)
        self._flow.succeeded(resource)
        codec.count()
        return reply

    async def _awaited(self, resource: str, codec: _Counting, reply: Awaitable[bytes]) -> bytes:
        try:
            answer = await reply
        except Exception as error:
            self._failed(resource, codec, error)
            raise
        self._flow.succeeded(resource)
        codec.count()
        return answer

    def _failed(self, resource: str, codec: _Counting | None, error: Exception) -> None:
        self._flow.refused(resource, error)
        if codec is not None:
            codec.count_failure(error)

    def refusal(self, raw: bytes, error: Exception) -> tuple[bytes, Code]:
        """The reply to a call that failed, which shows the model if there is one, and the status for our figures."""
        code, status, text = failure(error)
        described: dict[str, Any] = {}
        try:
            body = body_in(raw, NamedBody)
            code = of_first_line(code, error) if body.is_first_line else code
            described = self._models.described(self._models.handles(self._models.address(body))[0].id)
        except TesseraError:
            pass  # it names no model
        return message_of(Reply(retcode=code, retmsg=text, data=described)), status


Ask = Callable[[bytes, float | None, str], bytes | Awaitable[bytes]]


def register(
    server: Server, door: FateInference, jobs: Mapping[str, Ask], figures: RequestFigures, access: Access
) -> None:
    """Serve the protocol on `server`."""
    methods: dict[str, Ask] = {INFERENCE: door.single, BATCH_INFERENCE: door.batch, **jobs}
    for name, ask in methods.items():
        server.add_bytes_handler(name, _handler(ask, door, access, figures.of(door.protocol, name)))


def _resource(method: str) -> str:
    return f"I_{method.rpartition('/')[2]}"


def _handler(
    ask: Ask, door: FateInference, access: Access, figures: MethodFigures
) -> Callable[[bytes, Call], bytes | Awaitable[bytes]]:
    """Like every front door's, but errors become replies."""

    def handle(raw: bytes, call: Call) -> bytes | Awaitable[bytes]:
        began = figures.start()
        try:
            reply = ask(raw, call.time_remaining(), access.caller(call))
        except Exception as error:  # noqa: BLE001 - the outermost frame of a call
            return failed(raw, error, began)
        if isinstance(reply, bytes):
            figures.finish(began)
            return reply
        return awaited(raw, reply, began)

    async def awaited(raw: bytes, reply: Awaitable[bytes], began: float) -> bytes:
        try:
            answer = await reply
        except Exception as error:  # noqa: BLE001 - the outermost frame of a call
            return failed(raw, error, began)
        except BaseException:
            figures.finish(began, Code.CANCELLED)
            raise
        figures.finish(began)
        return answer

    def failed(raw: bytes, error: Exception, began: float) -> bytes:
        reply, status = door.refusal(raw, error)
        figures.finish(began, status)
        return reply

    return handle
