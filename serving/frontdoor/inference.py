"""tessera.v1.Inference on the service port: wire messages to requests and back."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Protocol, TypeVar

import numpy as np
from google.protobuf.message import DecodeError, Message

from apps.app import CacheLevel, PartyOutcome, Request, Response
from serving.access import Access
from serving.errors import InvalidRequestError
from serving.frontdoor.answer import answering, enum_value
from serving.frontdoor.rows import first_failures
from serving.pipeline import Codec, Pipeline
from serving.telemetry.requests import RequestFigures
from serving.transport import Call, Server
from tessera.v1 import inference_pb2 as wire

PREDICT = "/tessera.v1.Inference/Predict"
BATCH_PREDICT = "/tessera.v1.Inference/BatchPredict"

M = TypeVar("M", bound=Message)
V = TypeVar("V")


class PredictCodec:
    """One case of one user."""

    name = PREDICT

    def __init__(self) -> None:
        self._shared: tuple[object, ...] = ()
        self._head = b""

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
        """What many replies have in common is serialised once: messages one after the other are one message
        (https://protobuf.dev/programming-guides/encoding, last one wins)."""
        shared = (response.model, response.version, response.variants, response.complete, response.parties)
        if shared != self._shared:
            self._shared, self._head = shared, self._begin(response)
        own = wire.PredictReply(score=response.scores[0].tolist())
        if response.attributions:
            own.attribution = response.attributions[0]
        if response.labels:
            own.label = response.labels[0]
        if level:
            own.cache = enum_value(level)
        return self._head + own.SerializeToString()

    def _begin(self, response: Response) -> bytes:
        message = wire.PredictReply(
            model=response.model,
            version=response.version,
            variant=response.variants[0] if response.variants else "",
            complete=response.complete,
            parties=[_outcome(outcome) for outcome in response.parties],
        )
        return message.SerializeToString()


class BatchPredictCodec:
    """Many users in one call, columnar both ways."""

    name = BATCH_PREDICT

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
        counted = figures.of("tessera.v1", codec.name)
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


def _outcome(outcome: PartyOutcome) -> wire.PartyOutcome:
    return wire.PartyOutcome(
        party=outcome.party, status=enum_value(outcome.statuses[0]), level=enum_value(outcome.levels[0])
    )


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
