"""The contract of an app: pure processing before and after a model. An app never sees the model itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, ClassVar

import msgspec
import numpy as np
import numpy.typing as npt

from loaders.signature import Batch, FeatureError, Signature


class AppError(Exception):
    """The app failed on valid input: our fault, answered as INTERNAL naming the app."""


class CacheLevel(IntEnum):
    """Where an answer or a partial came from. Wire values."""

    NONE = 0
    L1 = 1
    L2 = 2
    L3 = 3


class PartyStatus(IntEnum):
    """What one party's part of an answer came to. Wire values."""

    OK = 0
    NOT_FOUND = 1
    TIMEOUT = 2
    REJECTED = 3
    UNREACHABLE = 4
    MISMATCH = 5
    INTERNAL = 6


class Request(msgspec.Struct, frozen=True):
    """One inference call of `len(user_ids)` rows, whatever the protocol.

    Exactly one of three addressing forms: `service`; `model` and `version`; neither (the party's default service).
    Features: either named or packed (`signature_hash` and `matrix` (rows, number features) in signature order, `texts`
    by name). Under each name stands a scalar when not `columnar` (then there is one row), else one value per row.
    `case_id` is for single-row calls; "" means none, and then there is no result cache. `attributed`: whether the
    response is to carry attributions, one per row.
    """

    service: str
    model: str
    version: str
    case_id: str
    user_ids: tuple[str, ...]
    numbers: Mapping[str, Any] = {}
    texts: Mapping[str, Any] = {}
    matrix: npt.NDArray[np.float64] | None = None
    signature_hash: bytes = b""
    parameters: Mapping[str, str] = {}
    columnar: bool = False
    attributed: bool = False

    @property
    def rows(self) -> int:
        return len(self.user_ids)

    @property
    def address(self) -> tuple[str, str, str]:
        """What the caller named: service, model, version."""
        return (self.service, self.model, self.version)

    def select(self, rows: Sequence[int]) -> Request:
        """The same call for some of the rows of a columnar request."""
        return msgspec.structs.replace(
            self,
            user_ids=tuple(self.user_ids[row] for row in rows),
            numbers={name: [values[row] for row in rows] for name, values in self.numbers.items()},
            texts={name: [values[row] for row in rows] for name, values in self.texts.items()},
            matrix=None if self.matrix is None else self.matrix[list(rows)],
        )


class PartyOutcome(msgspec.Struct, frozen=True):
    """One party's status and cache level, one entry per row."""

    party: str
    statuses: tuple[PartyStatus, ...]
    levels: tuple[CacheLevel, ...]


class Result(msgspec.Struct, frozen=True):
    """Model output before post-processing, or the answer after it: `scores` float64 (rows, width), `labels` one per row
    or none. Before it, `batch` and `signature` are what the local half was given. `outputs`: those of Response,
    which no app sees."""

    scores: npt.NDArray[np.float64]
    labels: tuple[str, ...] = ()
    batch: Batch | None = None
    signature: Signature | None = None
    outputs: Mapping[str, npt.NDArray[Any]] = {}

    def feature(self, name: str) -> npt.NDArray[Any] | None:
        """One value per row, NaN or None for missing; None when the model has no feature of this name."""
        if self.batch is None or self.signature is None:
            return None
        if name in self.signature.numbers:
            return self.batch.numbers[:, self.signature.numbers.index(name)]
        if name in self.signature.texts:
            return self.batch.texts[:, self.signature.texts.index(name)]
        return None


class Response(msgspec.Struct, frozen=True):
    """What a front door encodes: `scores` float64 (rows, width); `labels` one per row or empty.

    `attributions`: one per row when the request asked for them: what outcomes are sent back with.
    `variants`: one entry for all rows, one per row when they differ (`model` and `version` are then ""), none when the
    caller named the version. `outputs`: what a local model gives beside its score, by declared name, rows first, as it
    gives them.
    """

    scores: npt.NDArray[np.float64]
    model: str
    version: str
    variants: tuple[str, ...]
    complete: bool
    parties: tuple[PartyOutcome, ...] = ()
    labels: tuple[str, ...] = ()
    attributions: tuple[bytes, ...] = ()
    outputs: Mapping[str, npt.NDArray[Any]] = {}

    def row(self, row: int) -> Response:
        """What a call of this row alone would have been answered. Raises ValueError when the response is not
        complete: of its rows some may be."""
        if not self.complete:
            raise ValueError("some rows lack a party")
        return Response(
            scores=self.scores[row : row + 1],
            model=self.model,
            version=self.version,
            variants=self.variants,
            complete=self.complete,
            parties=tuple([PartyOutcome(one.party, (one.statuses[row],), (one.levels[row],)) for one in self.parties]),
            labels=self.labels[row : row + 1],
            attributions=self.attributions[row : row + 1],
            outputs={name: values[row : row + 1] for name, values in self.outputs.items()} if self.outputs else {},
        )


@dataclass(frozen=True, slots=True)
class Example:
    """What an app with default parameters makes of one row: `score` is the model's, `answer` what the caller gets."""

    score: tuple[float, ...]
    answer: tuple[float, ...]
    label: str = ""


class App(ABC):
    """Processing around a model. Constructed once per binding with its parameters; methods are pure and thread-safe.

    `Parameters` is a frozen msgspec struct with defaults; wrong or unknown parameters are refused at publish-online.
    `examples` are run before the app is used: at least one, each exact to 1e-9.
    """

    name: ClassVar[str]
    Parameters: ClassVar[type[msgspec.Struct]]
    examples: ClassVar[Sequence[Example]]

    def __init__(self, parameters: Any) -> None:
        self.parameters = parameters

    def check(self, signature: Signature) -> None:  # noqa: B027 - most apps read no feature by name
        """Called when the app is bound to a model. Raises ValueError saying why the two do not go together."""

    @abstractmethod
    def preprocess(self, request: Request, signature: Signature) -> Batch:
        """The rows for the local half, checked against its signature. Raises FeatureError (the caller's fault)."""

    @abstractmethod
    def postprocess(self, request: Request, result: Result) -> Result:
        """The scores, and labels if any, that the caller gets. Raises AppError."""


def run_examples(kind: type[App]) -> None:
    """Raises AppError naming the app and the first example that it does not meet."""
    request = Request("", "", "", "", ("example",))
    if not kind.examples:
        raise AppError(f"app {kind.name!r} has no examples")
    for example in kind.examples:
        try:
            result = kind(kind.Parameters()).postprocess(request, Result(np.array([example.score])))
        except Exception as error:
            raise AppError(f"app {kind.name!r} fails its own example {example}: {error}") from error
        answer, label = result.scores, "".join(result.labels)
        close = answer.shape == (1, len(example.answer)) and np.allclose(answer, [example.answer], rtol=0, atol=1e-9)
        if not close or label != example.label:
            made = f"{answer.tolist()} {label!r}" if label else f"{answer.tolist()}"
            raise AppError(f"app {kind.name!r} makes {made} of its own example {example}")


def features_of(request: Request, signature: Signature, ignore_unknown: bool = False) -> Batch:
    """The request's rows in signature order, checked: what most apps begin with. Raises FeatureError."""
    if request.matrix is not None:
        batch = _packed(request, request.matrix, signature)
    elif request.columnar:
        batch = signature.columns(request.rows, request.numbers, request.texts, ignore_unknown)
    else:
        batch = signature.row(request.numbers, request.texts, ignore_unknown)
    signature.check(batch)
    return batch


def _packed(request: Request, matrix: npt.NDArray[np.float64], signature: Signature) -> Batch:
    if request.signature_hash != signature.digest:
        raise FeatureError(
            f"signature_hash is {request.signature_hash.hex() or 'empty'}, the model's is {signature.digest.hex()}"
        )
    if matrix.shape[0] != request.rows:
        raise FeatureError(f"{matrix.shape[0]} rows of numbers for {request.rows} users")
    if matrix.shape[1] != len(signature.numbers):
        raise FeatureError(f"{matrix.shape[1]} numbers in a row, the model takes {len(signature.numbers)}")
    return signature.packed(matrix, request.texts, request.columnar)
