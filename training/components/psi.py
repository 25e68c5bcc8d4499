"""Private set intersection: every party keeps the rows whose ids all parties have.

Protocol: ECDH PSI (Meadows 1986; Huberman, Franklin, Hogg 1999) on Curve25519 (RFC 7748), between the guest and each
host, all pairs at once. With a fresh secret for each pair and job, both sides of a pair

1. tell the number of their ids, and stop if the sizes are too far apart or the host's own settings do not consent;
2. send their ids, hashed to the curve and multiplied by their secret, in random order ("points", in chunks);
3. multiply what they receive by their secret and send it back in the order received ("replies");
4. compare: an id is common if its reply is among the points of the peer that they multiplied themselves.

With several hosts the guest then tells each which of the ids that the two have in common all parties have ("joint").

What each learns, if all keep to the protocol (semi-honest): both sides of a pair the ids they have in common and the
number of the other's ids; the guest so for every host; a host, beyond its pair with the guest, which of these ids all
parties have, and nothing of what another host has otherwise. Nobody can test ids offline without the other's secret.
A party that puts in invented ids learns which of them the other has: the size limit and the host's consent bound that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, TypeVar

import msgspec
import numpy as np

from training.component import Component, ComponentError, Context, PortKind, Role, Table, Value
from training.privacy import curve
from training.together import together

T = TypeVar("T")

PROTOCOL = 1
AT_ONCE = 4  # chunks of one kind under way, so that processes and network both have work
MAX_IDS = 2**32 - 1


class PsiParameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`max_size_ratio`: the larger set may be this many times the smaller. `chunk_ids`: ids in one message."""

    max_size_ratio: Annotated[float, msgspec.Meta(ge=1)] = 100.0
    chunk_ids: Annotated[int, msgspec.Meta(ge=1, le=32768)] = 4096


class Psi(Component):
    """Input `data`, any order. Output `data`: the rows that all parties have, sorted by the bytes of the id."""

    Parameters: ClassVar[type[msgspec.Struct]] = PsiParameters
    inputs: ClassVar[Mapping[str, PortKind]] = {"data": PortKind.DATA}
    outputs: ClassVar[Mapping[str, PortKind]] = {"data": PortKind.DATA}

    async def run(
        self, context: Context, parameters: PsiParameters, inputs: Mapping[str, Value]
    ) -> Mapping[str, Value]:
        table = inputs["data"]
        if not isinstance(table, Table):
            raise ComponentError(f"psi at party {context.party}: input data must be a table")
        _check_ids(table.ids, context.party)
        done = _Done(context)
        peers = context.hosts if context.role is Role.GUEST else (context.guest,)
        shared = await together(*(_Pair(context, peer, parameters, done).intersect(table.ids) for peer in peers))
        common = await _joint(context, shared)
        if not common:
            raise ComponentError("psi: the parties have no id in common; check that all write their ids the same way")
        context.log_metric("common_ids", len(common))
        return {"data": _restrict(table, common)}


class _Opening(msgspec.Struct, frozen=True):
    """What a side says first."""

    protocol: int
    consent: bool
    ids: Annotated[int, msgspec.Meta(ge=1, le=MAX_IDS)]
    chunk_ids: Annotated[int, msgspec.Meta(ge=1, le=32768)]


class _Done:
    """Progress over all pairs, in multiplied points."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._done = 0
        self._total = 0

    def expect(self, points: int) -> None:
        self._total += points

    def add(self, points: int) -> None:
        self._done += points
        self._context.progress(self._done, self._total)


class _Pair:
    """The protocol with one peer."""

    def __init__(self, context: Context, peer: str, parameters: PsiParameters, done: _Done) -> None:
        self._context = context
        self._peer = peer
        self._parameters = parameters
        self._done = done
        self._channel = context.channel(peer)
        self._scalar = curve.new_scalar()

    async def intersect(self, ids: Sequence[str]) -> list[str]:
        """The ids that both have, sorted."""
        theirs = await self._open(len(ids))
        self._done.expect(len(ids) + theirs.ids)
        order: list[int] = (await self._context.compute(curve.permutation, len(ids))).tolist()
        own = _chunks([ids[row] for row in order], self._parameters.chunk_ids)
        results: list[Any] = await together(
            self._send_points(own),
            self._return_points(
                [min(theirs.chunk_ids, theirs.ids - k) for k in range(0, theirs.ids, theirs.chunk_ids)]
            ),
            self._receive_replies([len(chunk) for chunk in own]),
        )
        _, returned, replies = results
        places = await self._compute(positions_in_common, b"".join(replies), b"".join(returned))
        return sorted(ids[order[place]] for place in places)  # by code points, which is the order of UTF-8 bytes

    async def _open(self, count: int) -> _Opening:
        context, peer = self._context, self._peer
        consent = context.role is Role.GUEST or context.consent(peer, "psi")
        opening = _Opening(PROTOCOL, consent, count, self._parameters.chunk_ids)
        await self._channel.send("opening", msgspec.json.encode(opening))
        if not consent:
            raise ComponentError(
                f"party {context.party} does not consent to psi with party {peer}; its settings decide"
            )
        try:
            theirs = msgspec.json.decode(await self._channel.receive("opening"), type=_Opening)
        except msgspec.DecodeError as error:
            raise self._malformed(f"its opening cannot be read: {error}") from None
        self._check_opening(theirs, count)
        return theirs

    def _check_opening(self, theirs: _Opening, count: int) -> None:
        if theirs.protocol != PROTOCOL:
            raise ComponentError(f"party {self._peer} speaks version {theirs.protocol} of psi, we speak {PROTOCOL}")
        if not theirs.consent:
            raise ComponentError(f"party {self._peer} does not consent to psi with party {self._context.party}")
        limit = self._parameters.max_size_ratio
        if max(count, theirs.ids) > limit * min(count, theirs.ids):
            raise ComponentError(
                f"psi: party {self._context.party} has {count} ids and party {self._peer} has {theirs.ids}; the larger "
                f"set may be {limit:g} times the smaller (max_size_ratio)"
            )

    async def _send_points(self, own: Sequence[Sequence[str]]) -> None:
        async def send(number: int) -> None:
            points = await self._compute(curve.blind, self._scalar, own[number])
            self._done.add(len(own[number]))
            await self._channel.send("points", points, number)

        await _for_each(len(own), send)

    async def _return_points(self, counts: Sequence[int]) -> list[bytes]:
        """The peer's points times both secrets, in the order received; the peer gets them too."""

        async def answer(number: int) -> bytes:
            points = self._checked("points", await self._channel.receive("points", number), counts[number])
            doubled = await self._compute(curve.multiply, self._scalar, points)
            self._done.add(counts[number])
            await self._channel.send("replies", doubled, number)
            return doubled

        return await _for_each(len(counts), answer)

    async def _receive_replies(self, counts: Sequence[int]) -> list[bytes]:
        async def receive(number: int) -> bytes:
            return self._checked("replies", await self._channel.receive("replies", number), counts[number])

        return await _for_each(len(counts), receive)

    async def _compute(self, function: Callable[..., T], /, *arguments: Any) -> T:
        try:
            return await self._context.compute(function, *arguments)
        except curve.PointError as error:
            raise self._malformed(str(error)) from None

    def _checked(self, name: str, points: bytes, count: int) -> bytes:
        if len(points) != count * curve.POINT_BYTES:
            raise self._malformed(f"{len(points)} bytes of {name} where {count} points of 32 bytes were due")
        return points

    def _malformed(self, reason: str) -> ComponentError:
        return ComponentError(f"psi: party {self._peer} does not keep to the protocol: {reason}")


def positions_in_common(ours: bytes, theirs: bytes) -> list[int]:
    """Which of our points are among theirs, by position. Raises PointError if a side has a point twice or a zero."""
    own, other = list(curve.each(ours)), set(curve.each(theirs))
    if len(set(own)) < len(own) or len(other) * curve.POINT_BYTES < len(theirs):
        raise curve.PointError("a point comes twice")
    return [position for position, point in enumerate(own) if point in other]


async def _joint(context: Context, shared: Sequence[list[str]]) -> list[str]:
    """The ids that all parties have, sorted. `shared` are the intersections with each peer, sorted."""
    if len(context.hosts) == 1:
        return shared[0]
    if context.role is Role.GUEST:
        common = set(shared[0]).intersection(*shared[1:])
        for host, pair in zip(context.hosts, shared, strict=True):
            places = np.array([place for place, name in enumerate(pair) if name in common], dtype="<u4")
            await context.channel(host).send("joint", places.tobytes())
        return sorted(common)
    return _picked(await context.channel(context.guest).receive("joint"), shared[0], context.guest)


def _picked(joint: bytes, pair: list[str], guest: str) -> list[str]:
    """The ids at the places that the guest names: uint32, little-endian, rising."""
    if len(joint) % 4 == 0:
        places = np.frombuffer(joint, dtype="<u4").astype(np.int64)
        if np.all(np.diff(places) > 0) and np.all(places < len(pair)):
            return [pair[place] for place in places.tolist()]
    raise ComponentError(f"psi: party {guest} does not keep to the protocol: its joint intersection cannot be right")


def _check_ids(ids: Sequence[str], party: str) -> None:
    if not ids:
        raise ComponentError(f"psi: the table of party {party} has no rows")
    seen: dict[str, int] = {}
    for row, name in enumerate(ids):
        if not name:
            raise ComponentError(f"psi: row {row} of party {party}'s table has an empty id")
        if name in seen:
            raise ComponentError(f"psi: rows {seen[name]} and {row} of party {party}'s table have the same id")
        seen[name] = row


def _restrict(table: Table, common: Sequence[str]) -> Table:
    row_of = {name: row for row, name in enumerate(table.ids)}
    rows = [row_of[name] for name in common]
    label = None if table.label is None else table.label[rows]
    return Table(tuple(common), table.columns, table.features[rows], label)


def _chunks(ids: Sequence[str], size: int) -> list[Sequence[str]]:
    return [ids[start : start + size] for start in range(0, len(ids), size)]


async def _for_each(count: int, work: Callable[[int], Awaitable[T]]) -> list[T]:
    """The results of `work` for every number below `count`, a few at a time."""
    results: dict[int, T] = {}
    numbers = iter(range(count))

    async def go_on() -> None:
        for number in numbers:
            results[number] = await work(number)

    await together(*(go_on() for _ in range(AT_ONCE)))
    return [results[number] for number in range(count)]
