"""What reading a component of a FATE pipeline needs, and what it gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from loaders.artifact import Merge
from loaders.loader import Servable
from loaders.servables.program import Column, Fill, Step
from loaders.signature import Signature, TensorSpec

AnyMessage = TypeVar("AnyMessage", bound=Message)


class Mode(Enum):
    """Whose numbers count: FATE's own offline prediction, or FATE-Serving 2.1.7. Where FATE-Serving gives no score, or
    one that is wrong without saying so, both modes follow FATE."""

    STRICT_OFFLINE = "strict_offline"
    SERVING_COMPAT = "serving_compat"


class ComponentError(ValueError):
    """A component cannot be served; the text says why. Whoever calls it adds the component's name."""


@dataclass(frozen=True, slots=True)
class Site:
    """Whose half this is, and the hosts of the model in the order of the binding."""

    role: str
    party: str
    hosts: tuple[str, ...]
    mode: Mode

    @property
    def name(self) -> str:
        """As tree nodes name their owner."""
        return f"{self.role}:{self.party}"

    @property
    def compat(self) -> bool:
        return self.mode is Mode.SERVING_COMPAT


@dataclass(frozen=True, slots=True)
class Component:
    """One component of the pipeline: its messages end in Meta and Param, whatever the rest of their names is.
    `settings` are its parameters of the training run."""

    name: str
    kind: str
    meta_bytes: bytes | None
    param_bytes: bytes | None
    settings: Mapping[str, object]
    site: Site

    def meta(self, message: type[AnyMessage]) -> AnyMessage:
        return _parsed(message, self.meta_bytes, "Meta")

    def param(self, message: type[AnyMessage]) -> AnyMessage:
        return _parsed(message, self.param_bytes, "Param")


def _parsed(message: type[AnyMessage], raw: bytes | None, which: str) -> AnyMessage:
    if raw is None:
        raise ComponentError(f"the export has no {which} of it")
    try:
        return message.FromString(raw)
    except DecodeError:
        raise ComponentError(f"its {which} is no {message.DESCRIPTOR.name}") from None


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns between two components. While `is_open`, any other name but those `gone` is an input of that name,
    to which `defaults` apply. `texts`: inputs that are texts, out of `words` or unknown. `spellings`: texts that stand
    for a number (None: missing) where a number is declared. `header`: the columns of a request, once they are known.
    Offline, of sparse rows: `lacks_zeros`, what a row leaves out is missing up to the first component that needs it to
    be 0; `skips_zeros`, bins are for other numbers than 0."""

    known: Mapping[str, Column] = field(default_factory=dict)
    is_open: bool = True
    gone: frozenset[str] = frozenset()
    defaults: tuple[tuple[int, Step], ...] = ()
    stage: int = 0
    texts: frozenset[str] = frozenset()
    words: frozenset[str] = frozenset()
    spellings: Mapping[str, float | None] = field(default_factory=dict)
    header: frozenset[str] | None = None
    lacks_zeros: bool = False
    skips_zeros: bool = False

    def find(self, name: str) -> Column | None:
        if name in self.known:
            return self.known[name]
        return Column(name, self.defaults, name in self.texts) if self.is_open and name not in self.gone else None

    def lacks(self, name: str) -> bool:
        """Whether no component gives this column and rows are known not to have it."""
        return name not in self.known and self.header is not None and name not in self.header

    def number(self, name: str) -> Column | None:
        """A column that a component computes with. Raises ComponentError when it holds texts."""
        column = self.find(name)
        if column is not None and column.is_text:
            raise ComponentError(f"column {name!r} holds texts, and it computes with them")
        return column

    def next_stage(self, changed: Mapping[str, Step], default: Step | None = None) -> Columns:
        """One step for some columns, where they are there; `default` for names not known yet."""
        stage = self.stage + 1
        found = {name: self.find(name) for name in changed}
        known = {name: one.then(stage, changed[name]) for name, one in found.items() if one is not None}
        defaults = self.defaults if default is None else (*self.defaults, (stage, default))
        return replace(self, known={**self.known, **known}, defaults=defaults, stage=stage)

    def spelled(self, names: Iterable[str], spellings: Mapping[str, float]) -> Columns:
        """With meanings for texts in these columns: FATE-Serving tells them from a value that is not there."""
        found = {name: self.find(name) for name in names}
        known = {name: one.spelled(spellings) for name, one in found.items() if one is not None}
        return replace(self, known={**self.known, **known})

    def settled(self) -> Columns:
        """With 0 for all that rows leave out."""
        if not self.lacks_zeros:
            return self
        return replace(self.next_stage(dict.fromkeys(self.known, Fill(0.0))), lacks_zeros=False)

    def only(self, names: Iterable[str]) -> Columns:
        """These columns and no others."""
        found = {name: self.find(name) for name in names}
        return replace(self, known={name: one for name, one in found.items() if one is not None}, is_open=False)


@dataclass(frozen=True, slots=True)
class Model:
    """What a model component comes to: the columns it computes with, what makes its half of their numbers, the half's
    output, and the merge of all parties' halves."""

    columns: Sequence[Column]
    build: Callable[[Signature], Servable]
    output: TensorSpec
    merge: Merge
