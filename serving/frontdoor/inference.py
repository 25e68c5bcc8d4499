"""tessera.v1.Inference on the service port: wire messages to requests and back."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Protocol, TypeVar

import numpy as np
from google.protobuf.message import DecodeError, Message

from apps.app import CacheLevel, Request, Response
from serving.access import Access
from serving.codec import Codec
from serving.errors import InvalidRequestError
from serving.frontdoor.answer import answering, enum_value
from serving.frontdoor.rows import first_failures
from serving.frontdoor.wire_fields import delimited, delimited_head, enumerated
from serving.pipeline import Pipeline
from serving.telemetry.requests import RequestFigures
from serving.transport import Call, Server
from tessera.v1 import inference_pb2 as wire

PREDICT = "/tessera.v1.Inference/Predict"
BATCH_PREDICT = "/tessera.v1.Inference/BatchPredict"
PROTOCOL = "tessera.v1"

_SCORE, _LABEL, _CACHE, _ATTRIBUTION = (
    wire.PredictReply.DESCRIPTOR.fields_by_name[name].number for name in ("score", "label", "cache", "attribution")
)
_MAX_HEADS = 64

M = TypeVar("M", bound=Message)
V = TypeVar("V")


class PredictCodec(Codec):
    """One case of one user."""

    name, protocol = PREDICT, PROTOCOL

    def __init__(self) -> None:
        self._response: Response | None = None
        self._shared: tuple[object, ...] = ()
        self._heads: list[tuple[Sequence[object], bytes]] = []
        self._scores, self._score_bytes = b"", 0

    def decode(self, raw: bytes) -> Request:
        message = _parse(wire.PredictRequest, raw)
        packed = message.HasField("vector")
        if packed and message.numbers:
            raise InvalidRequestError("send features either in `numbers` or in `vector`, not in both")
        return Request(
            service=message.service,
            model=message.model,
            version=message.version,
            case_id=message.case_id,
            user_ids=(message.user_id,),
            numbers=_named(message.numbers),
            texts=_named(message.texts),
            matrix=_row(message.vector) if packed else None,
            signature_hash=message.vector.signature_hash if packed else b"",
            parameters=_named(message.parameters),
            attributed=True,
        )

    def encode(self, response: Response, level: CacheLevel) -> bytes:
        return self.encode_row(response, 0, level)

    def encode_row(self, response: Response, row: int, level: CacheLevel) -> bytes:
        """What many replies have in common is serialised once."""
        if response is not self._response:
            self._take(response)
        size = self._score_bytes
        reply = self._head_of(response, row) + self._scores[size * row : size * (row + 1)]
        if response.attributions:
            reply += delimited(_ATTRIBUTION, response.attributions[row])
        if response.labels:
            reply += delimited(_LABEL, response.labels[row].encode())
        return reply + enumerated(_CACHE, level) if level else reply

    def _take(self, response: Response) -> None:
        """What rows share."""
        width = response.scores.shape[1]
        shared = (response.model, response.version, response.variants, response.complete, width)
        if shared != self._shared or len(self._heads) > _MAX_HEADS:
            self._shared, self._heads = shared, []
        self._response = response
        self._scores, self._score_bytes = response.scores.astype("<f8", copy=False).tobytes(), 8 * width

    def _head_of(self, response: Response, row: int) -> bytes:
        """All but what is the row's own, and how its score begins. Few differ."""
        outcomes = [(one.party, one.statuses[row], one.levels[row]) for one in response.parties]
        for known, head in self._heads:
            if known == outcomes:
                return head
        message = wire.PredictReply(
            model=response.model,
            version=response.version,
            variant=response.variants[0] if response.variants else "",
            complete=response.complete,
            parties=[
                wire.PartyOutcome(party=party, status=enum_value(status), level=enum_value(level))
                for party, status, level in outcomes
            ],
        )
        head = message.SerializeToString() + delimited_head(_SCORE, self._score_bytes)
        self._heads.append((outcomes, head))
        return head


class BatchPredictCodec(Codec):
    """Many users in one call, columnar both ways."""

    name, protocol = BATCH_PREDICT, PROTOCOL

    def decode(self, raw: bytes) -> Request:
        message = _parse(wire.BatchPredictRequest, raw)
        packed = message.HasField("matrix")
        if packed and message.numbers:
            raise InvalidRequestError("send features either in `numbers` or in `matrix`, not in both")
        return Request(
            service=message.service,
            model=message.model,
            version=message.version,
            case_id="",
            user_ids=tuple(message.user_ids),
            numbers={name: list(column.values) for name, column in message.numbers.items()},
            texts={name: list(column.values) for name, column in message.texts.items()},
            matrix=_matrix(message) if packed else None,
            signature_hash=message.matrix.signature_hash if packed else b"",
            parameters=dict(message.parameters),
            columnar=True,
            attributed=message.attributed,
        )

    def encode(self, response: Response, level: CacheLevel) -> bytes:
        message = wire.BatchPredictReply(
            width=response.scores.shape[1],
            scores=response.scores.ravel().tolist(),
            statuses=first_failures(response),
            parties=[
                wire.BatchPartyOutcome(
                    party=outcome.party, statuses=bytes(outcome.statuses), levels=bytes(outcome.levels)
                )
                for outcome in response.parties
            ],
            model=response.model,
            version=response.version,
            variants=response.variants,
            labels=response.labels,
            attributions=response.attributions,
        )
        return message.SerializeToString()


class Frontdoor(Protocol):
    def __call__(self, raw: bytes, call: Call) -> bytes | Awaitable[bytes]: ...


def register(server: Server, pipeline: Pipeline, figures: RequestFigures, access: Access) -> None:
    """Serve the protocol on `server`."""
    codecs: tuple[Codec, ...] = (PredictCodec(), BatchPredictCodec())
    for codec in codecs:
        counted = figures.of(PROTOCOL, codec.name)
        server.add_bytes_handler(codec.name, answering(_handler(codec, pipeline, access), counted))


def _handler(codec: Codec, pipeline: Pipeline, access: Access) -> Frontdoor:
    def handle(raw: bytes, call: Call) -> bytes | Awaitable[bytes]:
        return pipeline.answer(codec, raw, call.time_remaining(), access.caller(call))

    return handle


def _parse(kind: type[M], raw: bytes) -> M:
    message = kind()
    try:
        message.ParseFromString(raw)
    except DecodeError as error:
        raise InvalidRequestError(f"the request is not a {kind.DESCRIPTOR.full_name}") from error
    return message


def _named(values: Mapping[str, V]) -> dict[str, V]:
    """As a dictionary, which takes five times as long when there is nothing in it."""
    return dict(values) if values else {}


def _row(vector: wire.FeatureVector) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    return np.array([vector.numbers[:]], np.float64)


def _matrix(message: wire.BatchPredictRequest) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    rows, packed = len(message.user_ids), message.matrix.numbers
    if rows == 0 or len(packed) % (8 * rows):
        raise InvalidRequestError(f"matrix.numbers has {len(packed)} bytes, not a multiple of 8 x {rows} rows")
    return np.frombuffer(packed, dtype="<f8").reshape(rows, -1)
