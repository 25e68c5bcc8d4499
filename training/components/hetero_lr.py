"""Hetero logistic regression without a third party: fit, and federated predict.

Protocol (first form; the residual under encryption follows Hardy et al. 2017, arXiv:1711.10677, with BFV instead of
Paillier and the guest as key owner instead of a third party). Before the first step each host tells its number of
columns, the guest answers with its public key or refuses. Then per step:

    host -> guest   predictor   the host's share of the linear predictor of the batch's rows, in the clear
    guest -> host   residual    the exact residuals, encrypted
    host -> guest   gradient    columns times residuals, encrypted, every slot masked
    guest -> host   sums        one masked sum per declared column; the host subtracts its masks and updates

and per epoch `verdict`: go on or stop, by the difference of the guest's loss.

The guest learns the host's linear predictor of every row at every step, and the number of its columns. A host learns
its own gradient per step. Both know the rows' ids already. Predicting, the guest learns the host's linear predictor of
the rows predicted; a host learns nothing. All parties follow the protocol (semi-honest). What bounds the host: the
guest starts from private random weights, refuses small batches, and returns nothing but the declared sums.
See docs/security.md.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, ClassVar, TypeVar

import msgspec
import numpy as np

from training.algorithms.hetero_lr import (
    Convergence,
    Descent,
    Floats,
    LinearHalf,
    Rows,
    batch_plan,
    log_loss_sum,
    probability,
    residual,
    safe_batch_rows,
    stable_rate,
)
from training.component import (
    Component,
    ComponentError,
    Context,
    ModelPart,
    PortKind,
    Role,
    ScopedChannel,
    Table,
    Value,
)
from training.privacy.bfv import BfvCipher
from training.privacy.matrix_cipher import CapacityError, MatrixCipher, ProtocolError
from training.privacy.product import ColumnOwner, KeyOwner
from training.privacy.randomness import private_weights
from training.together import together

M = TypeVar("M", bound=msgspec.Struct)

GO_ON, STOP = b"\x01", b"\x00"
# Large enough that the first residuals differ from 1/2 - y, small enough to be forgotten within a few steps.
SMALLEST_START, LARGEST_START = 0.1, 0.5


class LrParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Equal on every party. `learning_rate` is a share of the largest rate that cannot diverge with all rows in one
    batch; `tolerance` is in nats of the mean log loss; `seed` only orders rows into batches."""

    epochs: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 100
    batch_rows: Annotated[int, msgspec.Meta(ge=1, le=65_536)] = 2048
    learning_rate: Annotated[float, msgspec.Meta(gt=0, le=2)] = 1.0
    l2: Annotated[float, msgspec.Meta(ge=0, le=100)] = 0.01
    tolerance: Annotated[float, msgspec.Meta(ge=0, le=1)] = 5e-5
    seed: Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)] = 0


class Offer(msgspec.Struct, frozen=True):
    """A host, before the first step: how many columns it declares, a digest of its row ids in order; or why not."""

    columns: int
    rows_digest: bytes
    refusal: str = ""


class Answer(msgspec.Struct, frozen=True):
    """The guest's answer: its public key, or why it refuses."""

    public: bytes = b""
    refusal: str = ""


class HeteroLr(Component):
    """Give `train` to fit, `test` to predict, both to do one after the other; `model` instead of `train` only predicts.

    Guest: model arrays `weights` (columns,) and `intercept` (); host: `weights` (columns,), and the attribute
    `mean_partial`, the mean of its linear predictor over the training rows, which stays with it. `prediction` is the
    guest's alone: column `score` is the probability of label 1.
    """

    libraries: ClassVar[frozenset[str]] = frozenset({"tenseal"})
    equal_parameters: ClassVar[bool] = True
    Parameters: ClassVar[type[msgspec.Struct]] = LrParameters
    inputs: ClassVar[Mapping[str, PortKind]] = {
        "train": PortKind.DATA,
        "test": PortKind.DATA,
        "model": PortKind.MODEL,
    }
    optional_inputs: ClassVar[frozenset[str]] = frozenset(inputs)
    outputs: ClassVar[Mapping[str, PortKind]] = {"model": PortKind.MODEL, "prediction": PortKind.DATA}

    def __init__(self, cipher: MatrixCipher | None = None) -> None:
        self._cipher = cipher or BfvCipher()

    async def run(self, context: Context, parameters: LrParameters, inputs: Mapping[str, Value]) -> Mapping[str, Value]:
        side = (GuestSide if context.role is Role.GUEST else HostSide)(context, parameters, self._cipher)
        model, train, test = (inputs.get(port) for port in ("model", "train", "test"))
        if isinstance(train, Table):
            model = await side.fit(checked(context, train))
        if not isinstance(model, ModelPart):
            raise ComponentError(f"party {context.party}: hetero_lr needs the input train, or the input model")
        outputs: dict[str, Value] = {"model": model}
        if isinstance(test, Table):
            prediction = await side.predict(model, checked(context, test))
            outputs |= {"prediction": prediction} if prediction is not None else {}
        return outputs


@dataclass(frozen=True, slots=True)
class Batch:
    """The guest's part of the rows of one step; `step` counts over all epochs."""

    step: int
    features: Floats
    label: Floats


@dataclass(frozen=True, slots=True)
class GuestSide:
    context: Context
    parameters: LrParameters
    cipher: MatrixCipher

    async def fit(self, table: Table) -> ModelPart:
        label = checked_label(self.context, table)
        plan = batch_plan(len(table.ids), self.parameters.batch_rows, self.parameters.seed)
        owners = await self._agree(table, plan)
        start = private_weights(len(table.columns) + 1, SMALLEST_START, LARGEST_START)
        descent = await own_descent(self.context, self.parameters, table)
        half = LinearHalf(start[1:], descent, intercept=float(start[0]))
        convergence = Convergence(self.parameters.tolerance)
        for epoch in range(self.parameters.epochs):
            batches = [
                Batch(epoch * len(plan) + number, table.features[rows], label[rows]) for number, rows in enumerate(plan)
            ]
            loss = sum([await self._step(half, batch, owners) for batch in batches]) / label.size
            self._report(epoch, loss)
            settled = convergence.reached(loss)
            await together(*(o.channel.send("verdict", STOP if settled else GO_ON, epoch) for o in owners))
            if settled:
                break
        return model_part(table, weights=half.weights, intercept=np.array(half.intercept))

    async def predict(self, model: ModelPart, table: Table) -> Table:
        columns = own_columns(self.context, model, table)
        predictor = columns @ model.arrays["weights"] + model.arrays["intercept"]
        for host in self.context.hosts:
            payload = await self.context.channel(host).receive("prediction")
            if payload[:32] != rows_digest(table):
                raise ComponentError(f"party {host}: its rows to predict are not ours, or in another order")
            predictor = predictor + received_floats(payload[32:], len(table.ids), host)
        return Table(table.ids, ("score",), probability(predictor)[:, None], table.label)

    async def _agree(self, table: Table, plan: Sequence[Rows]) -> list[KeyOwner]:
        """Hear what every host declares, and answer all alike: with the public key, or with a refusal."""
        channels = [self.context.channel(host) for host in self.context.hosts]
        offers = [decoded(await channel.receive("offer"), Offer, channel.peer) for channel in channels]
        refusal = refused(table, plan, offers)
        keys = None if refusal else await self.context.compute(self.cipher.create_keys)
        answer = Answer(refusal=refusal) if keys is None else Answer(public=keys.public)
        await together(*(channel.send("answer", msgspec.msgpack.encode(answer)) for channel in channels))
        if keys is None:
            raise ComponentError(refusal)
        return [
            KeyOwner(self.context, channel, self.cipher, keys, offer.columns)
            for channel, offer in zip(channels, offers, strict=True)
        ]

    async def _step(self, half: LinearHalf, batch: Batch, owners: Sequence[KeyOwner]) -> float:
        """One exchange with every host and one update; returns the batch's summed loss before it."""
        rows = batch.label.size
        shares = [
            received_floats(await owner.channel.receive("predictor", batch.step), rows, owner.channel.peer)
            for owner in owners
        ]
        predictor = half.predictor(batch.features) + sum(shares)
        errors = residual(predictor, batch.label)
        await together(*(self._lend(owner, errors, batch.step) for owner in owners))
        half.update(batch.features.T @ errors, float(errors.sum()), rows)
        return log_loss_sum(predictor, batch.label)

    async def _lend(self, owner: KeyOwner, errors: Floats, step: int) -> None:
        with errors_named(self.context, owner.channel, ()):
            await owner.lend(errors, step)

    def _report(self, epoch: int, loss: float) -> None:
        self.context.log_metric("loss", loss, epoch)
        self.context.progress(epoch + 1, self.parameters.epochs, f"loss {loss:.4f}")


@dataclass(frozen=True, slots=True)
class HostSide:
    context: Context
    parameters: LrParameters
    cipher: MatrixCipher

    @property
    def channel(self) -> ScopedChannel:
        return self.context.channel(self.context.guest)

    async def fit(self, table: Table) -> ModelPart:
        owner = ColumnOwner(self.context, self.channel, self.cipher, await self._agree(table))
        plan = batch_plan(len(table.ids), self.parameters.batch_rows, self.parameters.seed)
        half = LinearHalf(np.zeros(len(table.columns)), await own_descent(self.context, self.parameters, table))
        for epoch in range(self.parameters.epochs):
            for number, rows in enumerate(plan):
                with errors_named(self.context, self.channel, table.columns):
                    await self._step(half, table.features[rows], owner, epoch * len(plan) + number)
            self.context.progress(epoch + 1, self.parameters.epochs)
            if await self.channel.receive("verdict", epoch) != GO_ON:
                break
        part = model_part(table, weights=half.weights)
        mean = float(half.predictor(table.features).mean())
        return replace(part, attributes={**part.attributes, "mean_partial": [mean]})

    async def predict(self, model: ModelPart, table: Table) -> None:
        if refusal := unwilling(self.context):
            raise ComponentError(refusal)
        share = own_columns(self.context, model, table) @ model.arrays["weights"]
        await self.channel.send("prediction", rows_digest(table) + packed(share))

    async def _agree(self, table: Table) -> bytes:
        """Declare the columns; returns the guest's public key. Raises ComponentError with the guest's refusal."""
        refusal = unwilling(self.context)
        offer = Offer(0, b"", refusal) if refusal else Offer(len(table.columns), rows_digest(table))
        await self.channel.send("offer", msgspec.msgpack.encode(offer))
        answer = decoded(await self.channel.receive("answer"), Answer, self.channel.peer)
        if answer.refusal:
            raise ComponentError(refusal or f"party {self.channel.peer} refuses: {answer.refusal}")
        return answer.public

    async def _step(self, half: LinearHalf, features: Floats, owner: ColumnOwner, step: int) -> None:
        await self.channel.send("predictor", packed(half.predictor(features)), step)
        sums = await owner.multiply(features, step)
        half.update(sums, 0.0, len(features))


def unwilling(context: Context) -> str:
    """Why this host takes no part, or nothing: its settings name what it consents to."""
    if context.consent(context.guest, "hetero_lr"):
        return ""
    return f"party {context.party} does not consent to hetero_lr with party {context.guest}; its settings decide"


def refused(table: Table, plan: Sequence[Rows], offers: Sequence[Offer]) -> str:
    """Why the guest will not train with these hosts, or nothing. Colluding hosts count as one."""
    if refusal := next((offer.refusal for offer in offers if offer.refusal), ""):
        return refusal
    least = safe_batch_rows(sum(offer.columns for offer in offers))
    smallest = min(len(rows) for rows in plan)
    if any(offer.columns < 1 for offer in offers):
        return "a host declares no columns: leave it out of the job"
    if any(offer.rows_digest != rows_digest(table) for offer in offers):
        return "the parties' training rows differ or stand in another order: run psi before, split by the same rule"
    if smallest < least:
        return (
            f"batches of {smallest} rows would let a host work out labels from its gradients; with its columns at"
            f" least {least} rows are needed: raise batch_rows, train on more rows or on fewer host columns"
        )
    return ""


async def own_descent(context: Context, parameters: LrParameters, table: Table) -> Descent:
    """From this party's own columns; a thread, because many rows take seconds."""
    measure = partial(stable_rate, intercept=context.role is Role.GUEST)
    rate = await asyncio.to_thread(measure, table.features, parameters.l2, 1 + len(context.hosts))
    return Descent(parameters.learning_rate * rate, parameters.l2)


def checked(context: Context, table: Table) -> Table:
    if not table.ids:
        raise ComponentError(f"party {context.party}: the table for hetero_lr has no rows")
    broken = np.flatnonzero(~np.isfinite(table.features).all(axis=0))
    if broken.size:
        raise ComponentError(
            f"party {context.party}: column {table.columns[broken[0]]} has missing or infinite values; run scale first"
        )
    return table


def checked_label(context: Context, table: Table) -> Floats:
    if table.label is None or set(np.unique(table.label)) != {0.0, 1.0}:
        raise ComponentError(f"party {context.party}: the training label must hold both 0 and 1 and nothing else")
    return table.label


def own_columns(context: Context, model: ModelPart, table: Table) -> Floats:
    if model.columns != table.columns:
        raise ComponentError(f"party {context.party}: the table's columns are not those the model was trained on")
    return table.features


def model_part(table: Table, **arrays: Any) -> ModelPart:
    return ModelPart("hetero_lr", table.columns, arrays, {"link": "logit"})


def rows_digest(table: Table) -> bytes:
    """SHA-256 of the ids in order, each with its length before it. Both parties know the ids."""
    digest = hashlib.sha256()
    for identity in table.ids:
        encoded = identity.encode()
        digest.update(len(encoded).to_bytes(4, "little") + encoded)
    return digest.digest()


def packed(values: Floats) -> bytes:
    return values.astype("<f8").tobytes()


def received_floats(payload: bytes, rows: int, peer: str) -> Floats:
    values = np.frombuffer(payload, dtype="<f8") if len(payload) == 8 * rows else np.empty(0)
    if values.size != rows or not np.all(np.isfinite(values)):
        raise ComponentError(f"party {peer}: expected {rows} finite values of its linear predictor")
    return values.astype(np.float64)


def decoded(payload: bytes, kind: type[M], peer: str) -> M:
    try:
        return msgspec.msgpack.decode(payload, type=kind)
    except msgspec.MsgspecError as error:
        raise ComponentError(f"party {peer}: not a valid {kind.__name__.lower()}: {error}") from error


@contextmanager
def errors_named(context: Context, channel: ScopedChannel, columns: Sequence[str]) -> Iterator[None]:
    """Say whose fault a failed product is, and of which column."""
    try:
        yield
    except ProtocolError as error:
        raise ComponentError(f"party {channel.peer}: {error}") from error
    except CapacityError as error:
        name = "" if error.column is None else f" (column {columns[error.column]})"
        raise ComponentError(f"party {context.party}: {error}{name}") from error
