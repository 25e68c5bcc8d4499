"""Inference in JSON, for the HTTP port: `POST /v1/predict` and `POST /v1/batch_predict`.

The same fields as tessera.v1.Inference; a feature is a number, a text or null (missing), under its name.
"""

from __future__ import annotations

import base64
import math
from typing import Any, TypeVar

import msgspec

from apps.app import CacheLevel, PartyStatus, Request, Response
from serving.codec import Codec
from serving.errors import InvalidRequestError
from serving.frontdoor.http_call import HTTP
from serving.frontdoor.rows import first_failures

S = TypeVar("S", bound=msgspec.Struct)


class _Address(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    service: str = ""
    model: str = ""
    version: str = ""
    parameters: dict[str, str] = {}


class PredictBody(_Address, forbid_unknown_fields=True, kw_only=True):
    user_id: str = ""
    case_id: str = ""
    features: dict[str, float | str | None] = {}


class BatchPredictBody(_Address, forbid_unknown_fields=True, kw_only=True):
    """`columns`: one value per user under each feature's name."""

    user_ids: list[str]
    columns: dict[str, list[float | str | None]] = {}
    attributed: bool = False


class JsonPredict(Codec):
    """One case of one user."""

    name, protocol = "POST /v1/predict", HTTP

    def decode(self, raw: bytes) -> Request:
        body = _parse(PredictBody, raw)
        return Request(
            service=body.service,
            model=body.model,
            version=body.version,
            case_id=body.case_id,
            user_ids=(body.user_id,),
            numbers={name: value for name, value in body.features.items() if isinstance(value, float)},
            texts={name: value for name, value in body.features.items() if isinstance(value, str)},
            parameters=body.parameters,
            attributed=True,
        )

    def encode(self, response: Response, level: CacheLevel) -> bytes:
        reply = _named(response) | {
            "score": response.scores[0].tolist(),
            "label": response.labels[0] if response.labels else "",
            "variant": response.variants[0] if response.variants else "",
            "complete": response.complete,
            "cache": level.name,
            "attribution": _texts(response)[0] if response.attributions else "",
            "parties": [
                {"party": one.party, "status": one.statuses[0].name, "level": one.levels[0].name}
                for one in response.parties
            ],
        }
        return msgspec.json.encode(reply)


class JsonBatchPredict(Codec):
    """Many users in one call, columnar both ways. A score that could not be made is null."""

    name, protocol = "POST /v1/batch_predict", HTTP

    def decode(self, raw: bytes) -> Request:
        body = _parse(BatchPredictBody, raw)
        texts = {name: column for name, column in body.columns.items() if _is_text(name, column)}
        return Request(
            service=body.service,
            model=body.model,
            version=body.version,
            case_id="",
            user_ids=tuple(body.user_ids),
            numbers={
                name: [math.nan if value is None else value for value in column]
                for name, column in body.columns.items()
                if name not in texts
            },
            texts=texts,
            parameters=body.parameters,
            columnar=True,
            attributed=body.attributed,
        )

    def encode(self, response: Response, level: CacheLevel) -> bytes:
        reply = _named(response) | {
            "scores": response.scores.tolist(),
            "labels": list(response.labels),
            "variants": list(response.variants),
            "attributions": _texts(response),
            "complete": response.complete,
            "statuses": [_status_name(status) for status in first_failures(response)],
            "parties": [
                {
                    "party": one.party,
                    "statuses": [status.name for status in one.statuses],
                    "levels": [entry.name for entry in one.levels],
                }
                for one in response.parties
            ],
        }
        return msgspec.json.encode(reply)


def _named(response: Response) -> dict[str, Any]:
    return {"model": response.model, "version": response.version}


def _texts(response: Response) -> list[str]:
    """Attributions in base64, as `tessera feedback` reads them."""
    return [base64.b64encode(one).decode() for one in response.attributions]


def _status_name(status: int) -> str:
    return PartyStatus(status).name


def _is_text(name: str, column: list[float | str | None]) -> bool:
    kinds = {type(value) for value in column} - {type(None)}
    if len(kinds) > 1:
        raise InvalidRequestError(f"column {name!r} has numbers and texts")
    return str in kinds


def _parse(kind: type[S], raw: bytes) -> S:
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequestError(f"the body is not a {kind.__name__.removesuffix('Body')} request: {error}") from None
