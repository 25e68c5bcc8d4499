"""The host's side of an inference: features of the users asked for, its own half, one partial per user."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import compress

import numpy as np
import numpy.typing as npt

from apps.app import PartyStatus
from loaders.loader import Outputs, Partial, PartialSpec
from loaders.signature import Batch
from serving.admission import Admission, Asker
from serving.errors import ConflictError, InternalError, NotAllowedError
from serving.features.source import FeatureRows, FeatureSource, FeatureSourceError
from serving.pool import ModelHandle, ModelId, ModelPool

logger = logging.getLogger(__name__)


_STATUSES = tuple(PartyStatus)
MAX_AGE_MS = (1 << 32) - 1
"""The longest that the wire can say."""


@dataclass(frozen=True, slots=True)
class Partials:
    """`values` of the kind `spec`, 0 where the status is not OK; `codes`: each row's status as the wire has it.
    `max_age_ms` is every row's, None = no limit."""

    spec: PartialSpec
    values: Partial
    codes: npt.NDArray[np.uint8]
    max_age_ms: int | None

    @property
    def statuses(self) -> list[PartyStatus]:
        return [_STATUSES[code] for code in self.codes.tolist()]


OURSELVES = Asker("")
"""Within this party, where nothing is limited."""


class HalfState(IntEnum):
    """What stands between a guest and this party's half of a version. Wire values."""

    READY = 0
    NOT_LOADED = 1
    OTHER_BINDING = 2
    NO_FEATURES = 3
    NOT_YOURS = 4


class HostSide:
    """`sources` by model name, or `default`."""

    def __init__(
        self, pool: ModelPool, sources: Mapping[str, FeatureSource], admission: Admission | None = None
    ) -> None:
        self._pool = pool
        self._admission = admission or Admission({})
        self._sources = sources

    async def infer(
        self, model: ModelId, binding_digest: str, user_ids: Sequence[str], asker: Asker = OURSELVES
    ) -> Partials:
        """Users about whom `asker` may not ask are REJECTED. Raises UnknownNameError, ConflictError (another binding),
        InternalError (no features), and NotAllowedError or LimitError when it may ask about none of them, or not so
        much."""
        gate = self._admission.enter(asker, len(user_ids))
        try:
            with self._pool.half(model) as handle:
                asked, admitted = self._admitted(handle, binding_digest, user_ids, asker)
                rows = await self.source(model).lookup(asked, handle.servable.signature)
                partials = await self._partials(handle, rows)
        finally:
            if gate is not None:
                gate.leave()
        return partials if admitted is None else _among_rejected(partials, admitted)

    def infer_now(
        self, model: ModelId, binding_digest: str, user_ids: Sequence[str], asker: Asker = OURSELVES
    ) -> Partials | None:
        """The same, when nothing has to be waited for: no task, no turn of the event loop. None, with nothing counted,
        when something has."""
        handle = self._pool.half(model)
        look_up = None if handle.is_long(len(user_ids)) else self.source(model).at_hand(handle.servable.signature)
        if look_up is None:
            return None
        gate = self._admission.enter(asker, len(user_ids))
        try:
            asked, admitted = self._admitted(handle, binding_digest, user_ids, asker)
            rows = look_up(asked)
            usable = _usable(handle, rows)
            outputs = handle.servable.predict(_chosen(rows, usable)) if _any(usable) else {}
            partials = _made(handle, rows, usable, outputs)
        finally:
            if gate is not None:
                gate.leave()
        return partials if admitted is None else _among_rejected(partials, admitted)

    def _admitted(
        self, handle: ModelHandle, binding_digest: str, user_ids: Sequence[str], asker: Asker
    ) -> tuple[Sequence[str], Sequence[bool] | None]:
        """The users that may be asked about, and which these are; None: all."""
        handle.check_binding(binding_digest)
        admitted = self._admission.admit(asker, handle.id, user_ids)
        return (user_ids, None) if admitted is None else (list(compress(user_ids, admitted)), admitted)

    async def _partials(self, handle: ModelHandle, rows: FeatureRows) -> Partials:
        usable = _usable(handle, rows)
        outputs = await self._pool.predict(handle, _chosen(rows, usable)) if _any(usable) else {}
        return _made(handle, rows, usable, outputs)

    async def check_features(self, model: ModelId) -> None:
        """Raises ConflictError when no user of a loaded half could be answered for want of features. Which ones is for
        this party's log: other parties are not to know its columns. A model that is not loaded is not looked at."""
        handle = self._pool.find(model)
        if handle is None:
            return
        try:
            await asyncio.to_thread(self.source(model).check, handle.servable.signature)  # may go through a whole file
        except (FeatureSourceError, InternalError) as error:
            logger.warning("model %s is of no use here: %s", model, error)
            raise ConflictError(f"{model} has no source for its features here; the log there says why") from None

    async def half_state(self, caller: str, model: ModelId, binding_digest: str) -> HalfState:
        """For a guest that looks for the reason why a version does not answer."""
        handle = self._pool.find(model)
        if handle is None:
            return HalfState.NOT_LOADED
        if handle.guest != caller:
            return HalfState.NOT_YOURS
        if handle.artifact.binding_digest != binding_digest:
            return HalfState.OTHER_BINDING
        try:
            await self.check_features(model)
        except ConflictError:
            return HalfState.NO_FEATURES
        return HalfState.READY

    def check_guest(self, model: ModelId, caller: str) -> None:
        """Only the guest of a model may ask for its partials. Raises NotAllowedError, UnknownNameError."""
        if self._pool.half(model).guest != caller:
            raise NotAllowedError(f"party {caller!r} is not the guest of model {model}")

    def source(self, model: ModelId) -> FeatureSource:
        source = self._sources.get(model.model) or self._sources.get("default")
        if source is None:
            raise InternalError(f"no feature source for model {model.model!r}: set features.{model.model} or default")
        return source


Usable = npt.NDArray[np.bool_] | None
"""Which rows the half can take; None: all."""


def _usable(handle: ModelHandle, rows: FeatureRows) -> Usable:
    usable = rows.found & handle.servable.signature.usable(rows.batch)
    return None if np.count_nonzero(usable) == len(usable) > 0 else usable


def _any(usable: Usable) -> bool:
    return usable is None or bool(usable.any())


def _chosen(rows: FeatureRows, usable: Usable) -> Batch:
    return rows.batch if usable is None else rows.batch.take(np.flatnonzero(usable))


def _made(handle: ModelHandle, rows: FeatureRows, usable: Usable, outputs: Outputs) -> Partials:
    """`outputs` of the usable rows."""
    spec, name, count = handle.partial, handle.servable.signature.outputs[0].name, rows.batch.rows
    codes = np.zeros(count, dtype=np.uint8)  # OK
    if usable is None:
        values = np.asarray(outputs[name], dtype=spec.form.value)
        return Partials(spec, values, codes, _max_age_ms(handle, rows))
    values = np.zeros((count, spec.columns), dtype=spec.form.value)
    if outputs:
        values[usable] = outputs[name]
    unusable = int((rows.found & ~usable).sum())
    if unusable:
        logger.warning("model %s: %d users lack a feature that must not be missing", handle.id, unusable)
    codes[~usable] = np.where(rows.found[~usable], PartyStatus.INTERNAL, PartyStatus.NOT_FOUND)
    return Partials(spec, values, codes, _max_age_ms(handle, rows))


def _among_rejected(partials: Partials, admitted: Sequence[bool]) -> Partials:
    """Back in the order asked."""
    answered = np.array(admitted)
    values = np.zeros((len(admitted), partials.values.shape[1]), dtype=partials.values.dtype)
    codes = np.full(len(admitted), PartyStatus.REJECTED, dtype=np.uint8)
    values[answered], codes[answered] = partials.values, partials.codes
    return Partials(partials.spec, values, codes, partials.max_age_ms)


def _max_age_ms(handle: ModelHandle, rows: FeatureRows) -> int | None:
    """The shorter of what the source and the artifact say."""
    ages = [age for age in (rows.max_age_s, handle.artifact.manifest.feature_max_age_s) if age is not None]
    return min(int(1_000 * min(ages)), MAX_AGE_MS) if ages else None
