"""Private set intersection between parties of one process, with real processes for the arithmetic."""

import asyncio
import hashlib
import multiprocessing
import secrets
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, field

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from training.channel import Channel, Tag
from training.channels.meeting import Meeting
from training.channels.memory import MemoryHub
from training.component import ComponentError, Role, Table
from training.components.psi import Psi, PsiParameters, positions_in_common
from training.privacy import curve


@pytest.fixture(scope="module")
def pool() -> Iterator[Executor]:
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as executor:
        list(executor.map(curve.permutation, [1, 1]))  # starting processes blocks
        yield executor


@dataclass
class Line:
    """A channel bound to one task; keeps what it sends."""

    channel: Channel
    sent: list[tuple[str, bytes]] = field(default_factory=list)

    @property
    def peer(self) -> str:
        return self.channel.peer

    async def send(self, name: str, payload: bytes, round: int = 0) -> None:
        self.sent.append((name, payload))
        await self.channel.send(Tag("job", "psi", 1, name, round), payload)

    async def receive(self, name: str, round: int = 0) -> bytes:
        return await self.channel.receive(Tag("job", "psi", 1, name, round), 5)


@dataclass
class Desk:
    """The context of one party."""

    party: str
    lines: Mapping[str, Line]
    executor: Executor
    hosts: tuple[str, ...]
    consents: bool = True
    guest: str = "guest"
    job: str = "job"
    steps: list[tuple[int, int]] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    blinded: list[str] = field(default_factory=list)

    @property
    def role(self) -> Role:
        return Role.GUEST if self.party == self.guest else Role.HOST

    def channel(self, party: str) -> Line:
        return self.lines[party]

    async def compute(self, function, /, *arguments):
        if function is curve.blind:
            self.blinded += arguments[1]
        return await asyncio.get_running_loop().run_in_executor(self.executor, function, *arguments)

    def consent(self, party: str, component: str) -> bool:
        return self.consents and (party, component) == (self.guest, "psi")

    def progress(self, done: int, total: int, note: str = "") -> None:
        self.steps.append((done, total))

    def log_metric(self, name: str, value: float, step: int = 0) -> None:
        self.metrics[name] = value


def table(ids) -> Table:
    features = np.array([[float(len(name)), index] for index, name in enumerate(ids)]).reshape(len(ids), 2)
    return Table(tuple(ids), ("length", "row"), features, np.arange(len(ids), dtype=float))


async def desks(pool, *hosts) -> dict[str, Desk]:
    hub = MemoryHub()
    lines: dict[str, dict[str, Line]] = {party: {} for party in ("guest", *hosts)}
    for host in hosts:
        pair = hub.channel(Meeting("job", "guest", host)), hub.channel(Meeting("job", host, "guest"))
        await asyncio.gather(*(channel.open("d", 5) for channel in pair))
        lines["guest"][host], lines[host]["guest"] = Line(pair[0]), Line(pair[1])
    return {party: Desk(party, lines[party], pool, hosts) for party in lines}


async def close(parties) -> None:
    lines = [line for desk in parties.values() for line in desk.lines.values()]
    await asyncio.gather(*(line.channel.close() for line in lines), return_exceptions=True)


async def run(parties, sets, parameters=None, return_exceptions=False):
    works = [
        Psi().run(desk, parameters or PsiParameters(), {"data": table(sets[party])}) for party, desk in parties.items()
    ]
    try:
        return dict(zip(parties, await asyncio.gather(*works, return_exceptions=return_exceptions), strict=True))
    finally:
        await close(parties)


async def intersect(pool, sets, parameters=None) -> dict[str, Table]:
    parties = await desks(pool, *(party for party in sets if party != "guest"))
    outputs = await run(parties, sets, parameters)
    return {party: output["data"] for party, output in outputs.items()}


IDS = st.sets(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8), min_size=1, max_size=30)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(common=IDS, guest=IDS, host=IDS, chunk=st.integers(1, 40))
def test_it_is_the_intersection_of_the_sets(pool, common, guest, host, chunk) -> None:
    sets = {"guest": list(guest | common), "host": list(host | common)}
    outputs = asyncio.run(intersect(pool, sets, PsiParameters(chunk_ids=chunk)))
    expected = tuple(sorted(set(sets["guest"]) & set(sets["host"]), key=str.encode))
    assert outputs["guest"].ids == outputs["host"].ids == expected


async def test_rows_follow_their_ids(pool) -> None:
    sets = {"guest": ["c", "a", "b", "x"], "host": ["b", "y", "c"]}
    outputs = await intersect(pool, sets)
    assert outputs["guest"].ids == ("b", "c")
    assert outputs["guest"].features[:, 1].tolist() == [2, 0]
    assert outputs["guest"].label.tolist() == [2, 0]
    assert outputs["host"].features[:, 1].tolist() == [0, 2]
    assert outputs["host"].columns == ("length", "row")


async def test_a_host_without_a_label_stays_without(pool) -> None:
    parties = await desks(pool, "host")
    bare = Table(("a",), (), np.zeros((1, 0)))
    outputs = await asyncio.gather(*(Psi().run(desk, PsiParameters(), {"data": bare}) for desk in parties.values()))
    assert [output["data"].label for output in outputs] == [None, None]
    await close(parties)


async def test_chunks_of_different_sizes_and_thousands_of_ids(pool) -> None:
    sets = {
        "guest": [f"user-{number}" for number in range(3000)],
        "host": [f"user-{number}" for number in range(4000, 1000, -1)],
    }
    outputs = await intersect(pool, sets, PsiParameters(chunk_ids=700))
    assert outputs["guest"].ids == outputs["host"].ids
    assert set(outputs["host"].ids) == set(sets["guest"]) & set(sets["host"])


async def test_three_parties_end_with_what_all_have(pool) -> None:
    sets = {"guest": list("abcdef"), "host-1": list("bcdxy"), "host-2": list("zdcfq")}
    parties = await desks(pool, "host-1", "host-2")
    outputs = await run(parties, sets)
    assert [output["data"].ids for output in outputs.values()] == [("c", "d")] * 3
    assert parties["guest"].metrics == {"common_ids": 2}


async def test_with_one_host_nothing_is_told_beyond_the_pair(pool) -> None:
    parties = await desks(pool, "host")
    await run(parties, {"guest": list("abc"), "host": list("bcd")})
    assert {name for name, _ in parties["guest"].lines["host"].sent} == {"opening", "points", "replies"}


async def test_progress_reaches_its_total(pool) -> None:
    parties = await desks(pool, "host")
    await run(parties, {"guest": list("abcde"), "host": list("def")}, PsiParameters(chunk_ids=2))
    for desk in parties.values():
        assert desk.steps == sorted(desk.steps)
        assert desk.steps[-1] == (8, 8)


async def test_no_id_and_no_hash_of_an_id_travels(pool) -> None:
    """What each side sends holds no id, no hash, no unblinded point, and no point twice over two jobs."""
    ids = [f"customer-{number:05d}" for number in range(200)]
    seen: list[set[bytes]] = []
    for _ in range(2):
        parties = await desks(pool, "host")
        await run(parties, {"guest": ids, "host": ids[50:]}, PsiParameters(chunk_ids=64))
        sent = [message for desk in parties.values() for line in desk.lines.values() for message in line.sent]
        everything = b"".join(payload for _, payload in sent)
        for name in ids:
            raw = name.encode()
            digests = [hashlib.new(kind, raw).digest()[:16] for kind in ("md5", "sha1", "sha256", "blake2b")]
            assert not any(secret in everything for secret in (raw, curve.hash_to_curve(name), *digests))
        seen.append({point for name, payload in sent if name == "points" for point in curve.each(payload)})
    assert not seen[0] & seen[1], "a fresh secret for every job"


async def test_points_go_out_in_random_order(pool) -> None:
    """Replies come in the order sent: were the own order kept, a peer could name the rows of what is common."""
    ids = [f"{number:04d}" for number in range(300)]
    orders = [ids, ids[::-1]]
    for _ in range(2):
        parties = await desks(pool, "host")
        await run(parties, {"guest": ids, "host": ids})
        for desk in parties.values():
            assert sorted(desk.blinded) == ids
            assert desk.blinded not in orders
            orders.append(desk.blinded)


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        ([], "the table of party guest has no rows"),
        (["a", ""], "row 1 of party guest's table has an empty id"),
        (["b", "a", "b"], "rows 0 and 2 of party guest's table have the same id"),
    ],
)
async def test_bad_ids_are_found_before_anything_is_sent(pool, ids, text) -> None:
    parties = await desks(pool, "host")
    with pytest.raises(ComponentError, match=text):
        await Psi().run(parties["guest"], PsiParameters(), {"data": table(ids)})
    assert parties["guest"].lines["host"].sent == []
    await close(parties)


async def test_no_common_id_is_an_error_on_every_side(pool) -> None:
    for hosts in (("host",), ("host", "other")):
        parties = await desks(pool, *hosts)
        sets = {"guest": ["a"], "host": ["b"], "other": ["a"]}
        outputs = await run(parties, sets, return_exceptions=True)
        assert all("no id in common" in str(output) for output in outputs.values())


async def test_sizes_too_far_apart_are_refused_before_points_are_sent(pool) -> None:
    parties = await desks(pool, "host")
    sets = {"guest": [str(number) for number in range(31)], "host": ["1", "2", "3"]}
    outputs = await run(parties, sets, PsiParameters(max_size_ratio=10), return_exceptions=True)
    for party, output in outputs.items():
        assert isinstance(output, ComponentError)
        assert f"party {party} has {len(sets[party])} ids" in str(output)
        assert "10 times the smaller" in str(output)
    sent = [name for desk in parties.values() for line in desk.lines.values() for name, _ in line.sent]
    assert sent == ["opening", "opening"]


async def test_a_host_that_does_not_consent_sends_no_point(pool) -> None:
    parties = await desks(pool, "host")
    parties["host"].consents = False
    outputs = await run(parties, {"guest": ["a"], "host": ["a"]}, return_exceptions=True)
    assert "party host does not consent to psi with party guest" in str(outputs["guest"])
    assert "its settings decide" in str(outputs["host"])
    assert [name for name, _ in parties["host"].lines["guest"].sent] == ["opening"]


def opening(**changes) -> bytes:
    return msgspec.json.encode({"protocol": 1, "consent": True, "ids": 2, "chunk_ids": 4096} | changes)


def point() -> bytes:
    return curve.blind(curve.new_scalar(), [secrets.token_hex(8)])


TWIN = point()


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ({"opening": b"\xff{"}, "its opening cannot be read"),
        ({"opening": opening(ids=0)}, "its opening cannot be read"),
        ({"opening": opening(ids="2")}, "its opening cannot be read"),
        ({"opening": opening(protocol=2)}, "speaks version 2 of psi, we speak 1"),
        ({"points": point()}, "32 bytes of points where 2 points of 32 bytes were due"),
        ({"points": secrets.token_bytes(63)}, "63 bytes of points where 2"),
        ({"points": bytes(64)}, "an all-zero point"),
        ({"points": point() + (1).to_bytes(32, "little")}, "a point of small order"),
        ({"points": TWIN * 2}, "a point comes twice"),
        ({"replies": point()}, "32 bytes of replies where 3 points of 32 bytes were due"),
        ({"replies": point() * 4}, "128 bytes of replies where 3"),
        ({"replies": point() + bytes(32) + point()}, "an all-zero point"),
        ({"replies": point() + TWIN * 2}, "a point comes twice"),
    ],
)
async def test_a_host_that_breaks_the_protocol_is_named(pool, messages, text) -> None:
    parties = await desks(pool, "host")
    honest = {"opening": opening(), "points": point() + point(), "replies": point() + point() + point()}
    for name, payload in (honest | messages).items():
        await parties["host"].lines["guest"].send(name, payload)
    with pytest.raises(ComponentError, match=f"party host .*{text}"):
        await Psi().run(parties["guest"], PsiParameters(), {"data": table(["a", "b", "c"])})
    await close(parties)


@pytest.mark.parametrize(
    "joint", [b"\0", b"\1\0\0\0\0\0\0\0", b"\0\0\0\0\0\0\0\0", b"\2\0\0\0", b"\xff\xff\xff\xff"], ids=bytes.hex
)
async def test_a_joint_intersection_that_cannot_be_right_is_refused(pool, joint) -> None:
    parties = await desks(pool, "host", "other")
    guest = parties["guest"]
    guest.hosts = ("host",)
    hosting = asyncio.create_task(Psi().run(parties["host"], PsiParameters(), {"data": table(["a", "b"])}))
    await Psi().run(guest, PsiParameters(), {"data": table(["a", "b"])})
    await guest.lines["host"].send("joint", joint)
    with pytest.raises(ComponentError, match="party guest does not keep to the protocol: its joint"):
        await hosting
    await close(parties)


def test_positions_in_common() -> None:
    one, two, three = point(), point(), point()
    assert positions_in_common(one + two + three, three + one) == [0, 2]
    assert positions_in_common(one, two) == []
