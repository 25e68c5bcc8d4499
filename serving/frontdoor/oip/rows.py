"""One inference of the protocol, whatever carries it: tensors to a Request, a Response to tensors."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from apps.app import PartyOutcome, Request, Response
from serving.errors import CallerError, InvalidRequestError
from serving.frontdoor.oip.classes import classified
from serving.frontdoor.oip.models import LABEL, STATUS_PREFIX, USER_ID, ModelView, TensorView
from serving.frontdoor.oip.tensors import BYTES, Array, Tensor, as_bytes, of_texts, texts
from serving.transport import Code

CASE_ID = "case_id"
RESERVED = frozenset(
    ("sequence_id", "sequence_start", "sequence_end", "priority", "timeout", "headers", "binary_data_output")
)


_NOT_OFFERED = {"shared_memory_region": "shared memory"}
"""By the parameter of an input or an output that asks for it."""


class NotOfferedError(CallerError):
    """A part of the protocol that this node does not have."""

    code = Code.UNIMPLEMENTED


def check_offered(parameters: Iterable[Container[str]]) -> None:
    """`parameters`: those of each input and output. Raises NotOfferedError."""
    for given in parameters:
        for name, what in _NOT_OFFERED.items():
            if name in given:
                raise NotOfferedError(f"{what} is not supported")


@dataclass(frozen=True, slots=True)
class Asked:
    """An inference as it came in. `outputs`: names asked for, none for all; `classes`: of each of these, how many of
    its largest values are to be named, 0 for the values themselves."""

    model: str
    version: str
    id: str
    parameters: Mapping[str, Any]
    inputs: Sequence[Tensor]
    outputs: tuple[str, ...] = ()
    classes: tuple[int, ...] = ()

    @property
    def shape(self) -> object:
        """What of it shapes the reply, beside the inputs."""
        return (self.model, self.version, self.outputs, self.classes)


@dataclass(frozen=True, slots=True)
class Answered:
    """An inference as it goes out, without the id that belongs to the call."""

    model: str
    version: str
    outputs: list[Tensor]
    parameters: dict[str, str | bool] = field(default_factory=dict)


def request_of(asked: Asked, view: ModelView) -> Request:
    """Raises InvalidRequestError naming the input."""
    tensors = {tensor.name: tensor for tensor in asked.inputs}
    if len(tensors) != len(asked.inputs):
        raise InvalidRequestError("an input is there twice")
    rows = _rows(asked.inputs)
    users = tensors.pop(USER_ID, None)
    numbers, words = _features(tensors.values(), view, rows)
    single = rows == 1
    case_id = _as_text(CASE_ID, asked.parameters.get(CASE_ID, ""))
    if case_id and not single:
        raise InvalidRequestError(f"parameter {CASE_ID!r} is for one row, the inputs have {rows}")
    service, model, version = view.address
    return Request(
        service=service,
        model=model,
        version=version,
        case_id=case_id,
        user_ids=_users(users, rows),
        numbers={name: float(column[0]) if single else column for name, column in numbers.items()},
        texts={name: column[0] if single else column for name, column in words.items()},
        parameters=_parameters(asked.parameters),
        columnar=not single,
    )


def key_of(asked: Asked) -> str:
    """What chooses the first row's version: its user, or the case. "" for inputs that cannot be used."""
    users = next((tensor.array for tensor in asked.inputs if tensor.name == USER_ID and tensor.datatype == BYTES), None)
    if users is None or not users.size:
        return str(asked.parameters.get(CASE_ID, ""))
    user: bytes = users.ravel()[0]
    return user.decode(errors="replace")


def answer_of(response: Response, view: ModelView, asked: Asked) -> Answered:
    """The outputs asked for, all when none was named. Raises InvalidRequestError for one that there is not."""
    outputs = [_score(response, view), *_further(response, view)]
    if response.labels:
        outputs.append(of_texts(LABEL, response.labels))
    outputs += [of_texts(STATUS_PREFIX + one.party, _statuses(one)) for one in response.parties]
    if asked.outputs:
        there = {tensor.name: tensor for tensor in outputs}
        absent = [name for name in asked.outputs if name not in there]
        if absent:
            raise InvalidRequestError(f"unknown output {absent[0]!r}; there are {', '.join(map(repr, there))}")
        labels = {view.score.name: view.labels}
        wanted = zip(asked.outputs, asked.classes, strict=True)
        outputs = [
            classified(there[name], most, labels.get(name, ())) if most else there[name] for name, most in wanted
        ]
    parameters: dict[str, str | bool] = {"fed_complete": response.complete}
    if len(set(response.variants)) == 1:
        parameters["fed_variant"] = response.variants[0]
    return Answered(view.name, response.version, outputs, parameters)


def _rows(inputs: Sequence[Tensor]) -> int:
    counts = {tensor.array.shape[0] for tensor in inputs}
    if len(counts) != 1:
        raise InvalidRequestError("the inputs have different numbers of rows" if counts else "there are no inputs")
    return int(counts.pop())


def _users(tensor: Tensor | None, rows: int) -> tuple[str, ...]:
    if tensor is None:
        return ("",) * rows
    if tensor.datatype != BYTES or tensor.array.size != rows:
        raise InvalidRequestError(f"{USER_ID!r} is BYTES of shape [rows] or [rows, 1]")
    return tuple(texts(USER_ID, tensor.array))


def _features(tensors: Any, view: ModelView, rows: int) -> tuple[dict[str, Array], dict[str, list[str]]]:
    """Columns by feature name; a tensor of several features per row is named as the model declares it."""
    declared = {spec.name: spec for spec in view.signature.inputs}
    numbers: dict[str, Array] = {}
    words: dict[str, list[str]] = {}
    for tensor in tensors:
        spec = declared.get(tensor.name)
        names = spec.feature_names() if spec is not None else (tensor.name,)
        if tensor.array.size != rows * len(names):
            raise InvalidRequestError(
                f"input {tensor.name!r} has shape {list(tensor.array.shape)}, it takes {len(names)} per row"
            )
        columns = tensor.array.reshape(rows, len(names))
        for position, name in enumerate(names):
            if tensor.datatype == BYTES:
                words[name] = texts(tensor.name, columns[:, position])
            else:
                numbers[name] = _exact(tensor, columns[:, position])
    return numbers, words


def _exact(tensor: Tensor, column: Array) -> Array:
    """As float64, which holds every number of the protocol but large 64-bit integers."""
    values = column.astype(np.float64)
    if tensor.datatype in {"INT64", "UINT64"} and (np.abs(values) > 2**53).any():
        raise InvalidRequestError(f"input {tensor.name!r} has integers beyond 2^53, which features do not hold")
    return values


def _parameters(given: Mapping[str, Any]) -> dict[str, str]:
    """Parameters for the app, which takes texts: all that the protocol has not reserved."""
    return {
        name: _as_text(name, value)
        for name, value in given.items()
        if name != CASE_ID and name not in RESERVED and not name.startswith("triton_")
    }


def _as_text(name: str, value: Any) -> str:
    """A number, true and false as JSON has them. Raises InvalidRequestError."""
    if isinstance(value, str):
        return value
    if not isinstance(value, bool | int | float):
        raise InvalidRequestError(f"parameter {name!r} is a text, a number, true or false")
    return msgspec.json.encode(value).decode()


def _score(response: Response, view: ModelView) -> Tensor:
    declared = view.score
    shape = (response.scores.shape[0], *declared.shape[1:])
    fits = response.scores.size == int(np.prod(shape))
    return Tensor(declared.name, declared.datatype, response.scores.reshape(shape) if fits else response.scores)


def _further(response: Response, view: ModelView) -> list[Tensor]:
    """Those that the variants of all rows gave; another variant's are other outputs."""
    there = [(one, response.outputs[one.name]) for one in view.further() if one.name in response.outputs]
    return [Tensor(one.name, one.datatype, _shown(one, array)) for one, array in there]


def _shown(view: TensorView, array: Array) -> Array:
    """As metadata says: one value per row is a column of one, texts are bytes."""
    if array.ndim == 1:
        array = array[:, None]
    return as_bytes(array) if view.datatype == BYTES else array


def _statuses(outcome: PartyOutcome) -> list[str]:
    return [status.name for status in outcome.statuses]
