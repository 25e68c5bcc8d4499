"""The contract of a component: one DAG node type, the same code on every party of a job.

A component is one file in `training/components/`, found by its file name. It declares roles, typed parameters and
ports and has one method. It reaches other parties only through `context.channel(party)` and never opens a socket.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

T = TypeVar("T")


class Role(Enum):
    """What a party is in one model: the guest has the label."""

    GUEST = "guest"
    HOST = "host"


class PortKind(Enum):
    """What flows through a port: a table of rows, or a model (arrays and attributes)."""

    DATA = "data"
    MODEL = "model"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of one party: `ids` unique and not empty, `features` float64 (rows, columns) with NaN for missing,
    `label` float64 (rows,) at the guest and None elsewhere."""

    ids: tuple[str, ...]
    columns: tuple[str, ...]
    features: npt.NDArray[np.float64]
    label: npt.NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True)
class ModelPart:
    """What one component learned on one party: named arrays and JSON-like attributes.

    `kind` names the producing module; `columns` are the input columns, in order.
    """

    kind: str
    columns: tuple[str, ...]
    arrays: Mapping[str, npt.NDArray[Any]]
    attributes: Mapping[str, Any] = field(default_factory=dict)


Value = Table | ModelPart


class ComponentError(Exception):
    """The component cannot go on; the text names the party, the parameter or column, and what to do."""


class ScopedChannel(Protocol):
    """A channel bound to the job, task and attempt of the running component."""

    @property
    def peer(self) -> str: ...

    async def send(self, name: str, payload: bytes, round: int = 0) -> None: ...

    async def receive(self, name: str, round: int = 0) -> bytes: ...


class Context(Protocol):
    """What a running component may use."""

    @property
    def job(self) -> str: ...

    @property
    def party(self) -> str:
        """This party's id."""

    @property
    def role(self) -> Role: ...

    @property
    def guest(self) -> str:
        """The guest's party id."""

    @property
    def hosts(self) -> Sequence[str]:
        """The hosts' party ids, in the order of the job."""

    @property
    def registry(self) -> Path:
        """Root of this party's own registry of models."""

    def table(self, name: str) -> Table:
        """Read a table of this party's own settings; slow. Raises ComponentError."""

    def channel(self, party: str) -> ScopedChannel: ...

    async def compute(self, function: Callable[..., T], /, *arguments: Any) -> T:
        """Run a module-level function in the pool of spawned processes; arguments and result must pickle."""

    def consent(self, party: str, component: str) -> bool:
        """Whether this party's own settings let `party` run `component` with it. Never taken from the job."""

    def gives_mean_partial(self, party: str) -> bool:
        """Whether this party's own settings let `party` know the mean of its partials. Never taken from the job."""

    def progress(self, done: int, total: int, note: str = "") -> None:
        """Tell people how far the task is; `note` is short, e.g. `loss 0.123`."""

    def log_metric(self, name: str, value: float, step: int = 0) -> None:
        """Record one point of a metric of this task."""


class Component(ABC):
    """One node type. Cheap to construct; `run` is called once per task and party.

    Parameters: a frozen msgspec struct with defaults; units and ranges are in its annotations.
    Ports: names to kinds; `inputs` and `outputs` are the same on every role unless a role lacks the value.
    A job may leave the ports in `optional_inputs` unwired. With `equal_parameters` a job that gives parties different
    values is refused. `libraries` are third-party modules that an installation without the extra `train` lacks.
    """

    roles: ClassVar[frozenset[Role]] = frozenset(Role)
    libraries: ClassVar[frozenset[str]] = frozenset()
    equal_parameters: ClassVar[bool] = False
    Parameters: ClassVar[type[msgspec.Struct]]
    inputs: ClassVar[Mapping[str, PortKind]]
    optional_inputs: ClassVar[frozenset[str]] = frozenset()
    outputs: ClassVar[Mapping[str, PortKind]]

    @abstractmethod
    async def run(self, context: Context, parameters: Any, inputs: Mapping[str, Value]) -> Mapping[str, Value]:
        """Take part in the protocol and return this party's outputs by port name. Raises ComponentError."""
