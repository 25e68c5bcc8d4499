"""The loaded models in memory, and the handles that pin them. Readers never wait for writers."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType

import msgspec

from loaders.artifact import Artifact
from loaders.cost import Cost
from loaders.loader import Outputs, PartialSpec, Servable
from loaders.merge import MergeRule, stand_ins
from loaders.signature import Batch
from serving.errors import ConflictError, LimitError, UnknownNameError, WrongRoleError
from serving.threads import ModelThreads


class ModelId(msgspec.Struct, frozen=True, order=True, cache_hash=True):
    """Name and version, equal on every party. A struct, because it is made and looked up in every request: a
    dataclass takes four times as long."""

    model: str
    version: str

    def __str__(self) -> str:
        return f"{self.model}/{self.version}"


LONG_S = 300e-6
"""What takes longer than this does not run on the event loop."""
_ANY_ROWS = 1 << 31
MAX_TOGETHER = 256
UNMEASURED = Cost()
_next_use = itertools.count(1).__next__
"""Orders uses; cheaper than any clock."""


class ModelHandle:
    """One loaded half. Pinned from `with` to its end; unload waits for that. `hosts` are the parties to ask, in the
    order of the binding, `wanted` what each is to send, `stand_ins` what the artifact declares for those that do not; a
    host's own half asks nobody, `guest` may ask it for what `partial` describes. `together`: calls of one row that run
    as one batch without any taking much longer than alone. `used`: larger the later it was last acquired."""

    __slots__ = (
        "_idle",
        "_pins",
        "_short_rows",
        "artifact",
        "bytes",
        "guest",
        "hosts",
        "id",
        "merge",
        "partial",
        "servable",
        "stand_ins",
        "together",
        "used",
        "wanted",
    )

    def __init__(
        self, artifact: Artifact, servable: Servable, merge: MergeRule, bytes_: int, cost: Cost = UNMEASURED
    ) -> None:
        """Raises LoadError for stand-ins that are not for such a model."""
        manifest = artifact.manifest
        self.id = ModelId(manifest.model, manifest.version)
        self.artifact = artifact
        self.servable = servable
        self.partial = servable.partial
        self.merge = merge
        self.bytes = bytes_
        binding = manifest.binding or []
        others = binding if manifest.role == "guest" else []
        self.guest = next((half.party for half in binding if half.role == "guest"), None)
        self.hosts = tuple(half.party for half in others if half.role == "host")
        self.wanted: Mapping[str, PartialSpec] = {
            party: servable.wanted(place) for place, party in enumerate(self.hosts)
        }
        self.stand_ins = stand_ins(manifest, servable)
        self.together = cost.most(max(LONG_S, 2 * cost.of(1)), MAX_TOGETHER)
        self.used = _next_use()
        self._short_rows = cost.most(LONG_S, _ANY_ROWS) if cost.of(1) <= LONG_S else 0
        self._pins = 0
        self._idle: asyncio.Event | None = None

    @property
    def in_use(self) -> bool:
        return self._pins > 0

    def is_long(self, rows: int) -> bool:
        """Whether a batch would keep the event loop too long."""
        return rows > self._short_rows

    def __enter__(self) -> ModelHandle:
        self._pins += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pins -= 1
        if self._idle is not None and not self._pins:
            self._idle.set()

    def check_binding(self, binding_digest: str) -> None:
        """Raises ConflictError naming both digests when the caller's is another (hex)."""
        own = self.artifact.binding_digest
        if own != binding_digest:
            raise ConflictError(f"{self.id} is bound as {own} here and as {binding_digest} at the caller")

    async def idle(self) -> None:
        """Returns when the last borrower is gone. Call it after the pool has let go of the handle."""
        if self._pins:
            self._idle = asyncio.Event()
            await self._idle.wait()


class ModelPool:
    """Look-ups go through an immutable map that writers replace in one assignment. Bounded in bytes. `threads` run
    halves that take long."""

    def __init__(self, max_bytes: int, threads: ModelThreads | None = None) -> None:
        self.threads = threads or ModelThreads()
        self._max_bytes = max_bytes
        self._loaded: Mapping[ModelId, ModelHandle] = {}
        self._answering: Mapping[ModelId, ModelHandle] = {}
        """Of these the guests' halves."""
        self._reserved: dict[ModelId, int] = {}

    @property
    def max_bytes(self) -> int:
        return self._max_bytes

    @property
    def held_bytes(self) -> int:
        """Of what is loaded, loading or draining."""
        return sum(handle.bytes for handle in self._loaded.values()) + sum(self._reserved.values())

    def acquire(self, model: ModelId) -> ModelHandle:
        """What answers callers, to use in a `with` statement at once. Raises UnknownNameError, and WrongRoleError for a
        host's half: its numbers are for the guest alone, and no score."""
        try:
            handle = self._answering[model]
        except KeyError:
            role = self.half(model).artifact.manifest.role
            raise WrongRoleError(f"this party is {role} of {model}; its guest answers") from None
        handle.used = _next_use()
        return handle

    def half(self, model: ModelId) -> ModelHandle:
        """As `acquire`, whatever this party's role. Raises UnknownNameError."""
        try:
            handle = self._loaded[model]
        except KeyError:
            raise UnknownNameError(f"model {model} is not loaded at this party") from None
        handle.used = _next_use()
        return handle

    async def predict(self, handle: ModelHandle, batch: Batch) -> Outputs:
        """Here, or on a thread when that would take long. Raises what `Servable.predict` raises, and LimitError."""
        if handle.is_long(batch.rows):
            return await self.threads.run(handle.servable, batch)
        return handle.servable.predict(batch)

    @property
    def loaded(self) -> Iterable[ModelHandle]:
        return self._loaded.values()

    def find(self, model: ModelId) -> ModelHandle | None:
        return self._loaded.get(model)

    def lacking(self, bytes_: int) -> int:
        """How many bytes must go before so many more have room; 0 or less when they have."""
        return self.held_bytes + bytes_ - self._max_bytes

    @contextmanager
    def reserve(self, model: ModelId, bytes_: int) -> Iterator[None]:
        """Count memory that is about to be taken. Raises LimitError saying which models hold what there is."""
        held = {**{id_: handle.bytes for id_, handle in self._loaded.items()}, **self._reserved}
        if self.lacking(bytes_) > 0:
            largest = sorted(held.items(), key=lambda item: -item[1])
            holders = ", ".join(f"{id_} {size}" for id_, size in largest) or "nothing"
            raise LimitError(
                f"{model} needs {bytes_} bytes of limits.pool_max_bytes = {self._max_bytes}; held: {holders}"
            )
        self._reserved[model] = bytes_
        try:
            yield
        finally:
            del self._reserved[model]

    def put(self, handle: ModelHandle) -> None:
        self._replace({**self._loaded, handle.id: handle})

    def _replace(self, loaded: Mapping[ModelId, ModelHandle]) -> None:
        self._loaded = loaded
        self._answering = {id_: one for id_, one in loaded.items() if one.artifact.manifest.role == "guest"}

    async def remove(self, model: ModelId) -> None:
        """New requests no longer find the model; returns when the last one that did is done. Until then its memory
        counts."""
        handle = self._loaded.get(model)
        if handle is None:
            return
        self._replace({id_: kept for id_, kept in self._loaded.items() if id_ != model})
        self._reserved[model] = handle.bytes
        try:
            await handle.idle()
        finally:
            del self._reserved[model]
