"""`InferenceService` on the service port: one case, or a batch of them, as JSON in a message."""

from __future__ import annotations

import math
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from apps.app import CacheLevel, PartyStatus, Request, Response
from loaders.artifact import Link, Merge
from loaders.fate.names import FateName, name_in
from loaders.signature import FeatureError
from serving.access import Access
from serving.errors import InvalidRequestError, LimitError, TesseraError
from serving.frontdoor.fate.bodies import (
    BatchBody,
    BatchReply,
    NamedBody,
    Reply,
    RowBody,
    RowReply,
    SingleBody,
    body_in,
    message_of,
)
from serving.frontdoor.fate.codes import FateCode, failure, row_failure
from serving.frontdoor.fate.descriptions import named, resource_of
from serving.frontdoor.fate.features import Specs, check_row, features_in, specs_of, user_id_in
from serving.frontdoor.fate.rules import Flow
from serving.pipeline import Pipeline
from serving.pool import ModelHandle, ModelId, ModelPool
from serving.publishing import Publishing
from serving.routing import Address
from serving.telemetry.requests import MethodFigures, RequestFigures
from serving.transport import Call, Code, Server

SERVICE = "com.webank.ai.fate.api.serving.InferenceService"
INFERENCE = f"/{SERVICE}/inference"
BATCH_INFERENCE = f"/{SERVICE}/batchInference"


@dataclass(frozen=True, slots=True)
class FateModels:
    """What FATE's names lead to here. `user_id`: the name of the user's id among what is sent to hosts."""

    publishing: Publishing
    pool: ModelPool
    user_id: str
    flow: Flow

    def address(self, body: NamedBody) -> Address:
        """Raises InvalidRequestError."""
        if body.service_id:
            return (body.service_id, "", "")
        if body.model_id and body.model_version:
            name = FateName(body.model_id, body.model_version)
            return ("", name.model, name.version)
        raise InvalidRequestError("serviceId is required")

    def admitted(self, address: Address, rows: int) -> list[ModelHandle]:
        """The versions that may answer. Raises UnknownNameError, and LimitError when a flow rule is used up."""
        handles = self.handles(address)
        for handle in handles:
            self.flow.take(resource_of(named(handle)), rows)
        return handles

    def answered(self, model: str, version: str, rows: int) -> None:
        """For the figures of a model."""
        handle = self.pool.find(ModelId(model, version))
        if handle is not None:
            self.flow.succeeded(resource_of(named(handle)), rows)

    def handles(self, address: Address) -> list[ModelHandle]:
        """The versions that may answer. Raises UnknownNameError."""
        service, model, version = address
        if version:
            return [self.pool.acquire(ModelId(model, version))]
        variants = self.publishing.routes.current.service(service, model).variants
        return [self.pool.acquire(variant.model) for variant in variants]

    def described(self, model: str, version: str) -> dict[str, Any]:
        """Who answered, by FATE's names where it has them; `timestamp`: since when it is loaded, in milliseconds."""
        handle = self.pool.find(ModelId(model, version))
        name = None if handle is None else name_in(handle.artifact.manifest.provenance)
        life = self.publishing.life(ModelId(model, version))
        return {
            "modelId": name.namespace if name else model,
            "modelVersion": name.table if name else version,
            "timestamp": int(1_000 * life.since_s) if life else 0,
        }

    def scored(self, response: Response, row: int, model: str, version: str) -> dict[str, Any]:
        """One-vs-rest gives the score of its best class, many classes at once all scores; both the label."""
        handle = self.pool.find(ModelId(model, version))
        scores = response.scores[row]
        several: Any = scores.tolist()
        if handle is not None and _takes_best(handle.artifact.manifest.merge):
            several = float(scores.max())
        found = {"score": float(scores[0]) if scores.size == 1 else several}
        return {**found, "label": response.labels[row]} if response.labels else found


def _takes_best(merge: Merge) -> bool:
    return bool(merge.labels) and merge.link is Link.SIGMOID


@dataclass(frozen=True, slots=True)
class SingleCodec:
    """One case of one user."""

    models: FateModels
    name: str = INFERENCE

    def decode(self, raw: bytes) -> Request:
        body = body_in(raw, SingleBody)
        service, model, version = address = self.models.address(body)
        specs = specs_of(handle.servable.signature for handle in self.models.admitted(address, 1))
        numbers, texts = features_in(body.feature_data, specs)
        return Request(
            service=service,
            model=model,
            version=version,
            case_id=body.case_id or "",
            user_ids=(user_id_in(body.send_to_remote_feature_data, self.models.user_id),),
            numbers=numbers,
            texts=texts,
        )

    def encode(self, response: Response, level: CacheLevel) -> bytes:
        scored = self.models.scored(response, 0, response.model, response.version)
        described = self.models.described(response.model, response.version)
        self.models.answered(response.model, response.version, 1)
        return message_of(Reply(data={**scored, **described}, warn=_warnings(response)))


class BatchCodec:
    """Of one call. Rows whose features cannot be used fail by themselves; the others are asked together."""

    name = BATCH_INFERENCE

    def __init__(self, models: FateModels, raw: bytes, max_rows: int) -> None:
        """Raises InvalidRequestError, LimitError, UnknownNameError."""
        self._models = models
        self._body = body_in(raw, BatchBody)
        self._address = models.address(self._body)
        _check_rows(self._body, max_rows)
        handles = models.admitted(self._address, len(self._body.batch_data_list))
        specs = specs_of(handle.servable.signature for handle in handles)
        self._failed: dict[int, RowReply] = {}
        self._good: list[tuple[RowBody, dict[str, float], dict[str, str]]] = []
        for row in self._body.batch_data_list:
            self._take(row, specs)
        self._specs = specs

    def _take(self, row: RowBody, specs: Specs) -> None:
        try:
            numbers, texts = features_in(row.feature_data, specs)
            check_row(numbers, texts, specs)
        except FeatureError as error:
            self._failed[row.index] = RowReply(index=row.index, retcode=int(FateCode.FEATURE), retmsg=str(error))
        else:
            self._good.append((row, numbers, texts))

    @property
    def is_hopeless(self) -> bool:
        """No row can be asked."""
        return not self._good

    def decode(self, raw: bytes) -> Request:
        service, model, version = self._address
        sent = [row.send_to_remote_feature_data for row, *_ in self._good]
        return Request(
            service=service,
            model=model,
            version=version,
            case_id="",
            user_ids=tuple(user_id_in(one, self._models.user_id) for one in sent),
            numbers={
                name: [numbers.get(name, math.nan) for _, numbers, _ in self._good]
                for name, spec in self._specs.items()
                if not spec.is_text
            },
            texts={
                name: [texts.get(name) for *_, texts in self._good]
                for name, spec in self._specs.items()
                if spec.is_text
            },
            columnar=True,
        )

    def encode(self, response: Response, level: CacheLevel) -> bytes:
        answered = {row.index: self._answered(response, place, row.index) for place, (row, *_) in enumerate(self._good)}
        model, version = _answering(response, 0)
        self._models.answered(model, version, len(answered))
        return self._reply(answered, self._models.described(model, version))

    def refusal(self) -> bytes:
        """The reply when no row could be asked."""
        handle = self._models.handles(self._address)[0]
        return self._reply({}, self._models.described(handle.id.model, handle.id.version))

    def _answered(self, response: Response, place: int, index: int) -> RowReply:
        failed = next(((one.party, one.statuses[place]) for one in response.parties if one.statuses[place]), None)
        if failed is not None and not np.isfinite(response.scores[place]).all():
            code, text = row_failure(*failed)
            return RowReply(index=index, retcode=code, retmsg=text)
        return RowReply(index=index, data=self._models.scored(response, place, *_answering(response, place)))

    def _reply(self, answered: Mapping[int, RowReply], described: dict[str, Any]) -> bytes:
        rows = sorted({**self._failed, **answered}.values(), key=lambda row: row.index)
        by_index = {str(row.index): row for row in rows}
        caseid = self._body.case_id or secrets.token_hex(16)
        return message_of(BatchReply(caseid=caseid, data=described, batch_data_list=rows, by_index=by_index))


def _answering(response: Response, row: int) -> tuple[str, str]:
    """Model and version of a row."""
    if response.model:
        return response.model, response.version
    model, _, version = response.variants[row].partition(":")
    return model, version


def _check_rows(body: BatchBody, max_rows: int) -> None:
    indices = [row.index for row in body.batch_data_list]
    if not indices or len(set(indices)) != len(indices):
        raise InvalidRequestError("batchDataList holds no rows, or one index twice")
    if len(indices) > max_rows:
        raise LimitError(f"{len(indices)} rows in one call, the limit is {max_rows}")


def _warnings(response: Response) -> dict[str, Any]:
    """Which hosts an answer had to do without."""
    return {
        one.party: one.statuses[0].name.lower() for one in response.parties if one.statuses[0] is not PartyStatus.OK
    }


class FateInference:
    """Answers every call with a message; what goes wrong stands in it."""

    def __init__(self, pipeline: Pipeline, models: FateModels, max_rows: int) -> None:
        self._pipeline = pipeline
        self._models = models
        self._single = SingleCodec(models)
        self._max_rows = max_rows

    @property
    def flow(self) -> Flow:
        return self._models.flow

    def single(self, raw: bytes, remaining_s: float | None, caller: str) -> bytes | Awaitable[bytes]:
        self.flow.take(_resource(INFERENCE), 1)
        return self._pipeline.answer(self._single, raw, remaining_s, caller)

    def batch(self, raw: bytes, remaining_s: float | None, caller: str) -> bytes | Awaitable[bytes]:
        self.flow.take(_resource(BATCH_INFERENCE), 1)
        codec = BatchCodec(self._models, raw, self._max_rows)
        return codec.refusal() if codec.is_hopeless else self._pipeline.answer(codec, raw, remaining_s, caller)

    def described(self, raw: bytes) -> dict[str, Any]:
        """The model of a call that failed, if there is one."""
        try:
            body = body_in(raw, NamedBody)
            handle = self._models.handles(self._models.address(body))[0]
        except TesseraError:
            return {}
        return self._models.described(handle.id.model, handle.id.version)


Ask = Callable[[bytes, float | None, str], bytes | Awaitable[bytes]]


def register(server: Server, door: FateInference, figures: RequestFigures, access: Access) -> None:
    """Serve the protocol on `server`."""
    methods: tuple[tuple[str, Ask], ...] = ((INFERENCE, door.single), (BATCH_INFERENCE, door.batch))
    for name, ask in methods:
        server.add_bytes_handler(name, _handler(name, ask, door, access, figures.of("fate", name)))


def _resource(method: str) -> str:
    return f"I_{method.rpartition('/')[2]}"


def _handler(
    name: str, ask: Ask, door: FateInference, access: Access, figures: MethodFigures
) -> Callable[[bytes, Call], bytes | Awaitable[bytes]]:
    """Like every front door's, but errors become replies."""

    resource = _resource(name)

    def handle(raw: bytes, call: Call) -> bytes | Awaitable[bytes]:
        began = figures.start()
        try:
            reply = ask(raw, call.time_remaining(), access.caller(call))
        except Exception as error:  # noqa: BLE001 - the outermost frame of a call
            return failed(raw, error, began)
        if isinstance(reply, bytes):
            figures.finish(began)
            door.flow.succeeded(resource)
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
        door.flow.succeeded(resource)
        return answer

    def failed(raw: bytes, error: Exception, began: float) -> bytes:
        code, status, text = failure(error)
        figures.finish(began, status)
        door.flow.refused(resource, error)
        return message_of(Reply(retcode=code, retmsg=text, data=door.described(raw)))

    return handle
