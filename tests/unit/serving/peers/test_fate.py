"""A guest here asks hosts over FATE-Serving's protocol: our own door to it, and hosts that answer badly."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from apps.app import PartyStatus
from loaders.catalog import load_servable, loader_for
from loaders.fate.component import Mode, Site
from loaders.fate.importing import store_half
from loaders.fate.names import FateName
from loaders.merge import merge_rule
from loaders.registry import open_half
from loaders.signature import Batch
from serving.features.memory import MemoryFeatureSource
from serving.frontdoor.fate import unary_call
from serving.frontdoor.fate.rules import Flow
from serving.frontdoor.fate.unary_call import PartnerSide, UnaryCall
from serving.holds import Holder
from serving.host import HostSide
from serving.lifecycle import LoadState
from serving.limits import Limiter
from serving.peers.fate import BITS_ON_THE_LOOP, ROWS_AT_ONCE, UNARY_CALL, FatePeer, Sender
from serving.peers.peer import LATE, PeerAnswer
from serving.peers.signing import AccessKey, Signatures
from serving.pool import ModelHandle, ModelId, ModelPool
from serving.settings import Limits, Settings
from serving.telemetry.requests import RequestFigures
from serving.transport import BytesHandler, Channel, Code, RpcError, Transport, channel, server
from tessera.compat import fate_proxy_pb2 as wire
from tests import fate_reference as reference
from tests.artifacts import make_bound_pair
from tests.fate_models import GUEST, HOSTS, Recipe, make

HOST = HOSTS[0]
USERS = {f"u{n}": {f"h0{place}": n / 3 - place / 7 for place in range(5)} for n in range(4)}
CASE = {f"g{place}": 0.25 * place - 0.5 for place in range(5)}
MODELS = {
    "lr": make(3, Recipe("lr", plain=True)),
    "trees": make(4, Recipe("trees", plain=True)),
    "classes": make(6, Recipe("trees", plain=True, classes=3)),
    "fm": make(8, Recipe("fm", plain=True)),
    "mix": make(5, Recipe("trees", plain=True, strategy="mix")),
    "ovr": make(7, Recipe("ovr", plain=True, classes=3)),
}
OK, NOT_FOUND, TIMEOUT, REJECTED, UNREACHABLE, MISMATCH, INTERNAL = PartyStatus
SECRET = b"secret"
ONE = [{"index": 0, "retcode": 0, "data": {"heterologisticregression_0": {"score": 1.5}}}]


def handle(root: Path, version: str, role: str, party: str) -> ModelHandle:
    site = Site(role, party, (HOST,), Mode.STRICT_OFFLINE)
    store_half(root, MODELS[version].parts[site.name], FateName(f"{role}#{party}#m", version), site, GUEST)
    return loaded(root, version, party)


def loaded(root: Path, version: str, party: str) -> ModelHandle:
    artifact = open_half(root, "m", version, party)
    loader = loader_for(artifact)
    servable = load_servable(loader)
    return ModelHandle(artifact, servable, merge_rule(artifact.manifest.merge, servable), loader.estimate())


def pool_of(root: Path, role: str, party: str, *versions: str) -> ModelPool:
    pool = ModelPool(1 << 24)
    for version in versions:
        pool.put(handle(root / party, version, role, party))
    return pool


@asynccontextmanager
async def served(handler: BytesHandler) -> AsyncIterator[Channel]:
    port = server(Transport.NATIVE)
    port.add_bytes_handler(UNARY_CALL, handler)
    link = channel(Transport.NATIVE, f"127.0.0.1:{port.add_port('127.0.0.1:0')}")
    await port.start()
    try:
        yield link
    finally:
        await link.close()
        await port.stop(0)


class Guest:
    def __init__(self, link: Channel, pool: ModelPool, sender: Sender) -> None:
        self.pool = pool
        self.peer = FatePeer(HOST, link, pool, sender)

    async def ask(self, version: str, users: list[str], timeout_s: float = 5.0) -> PeerAnswer:
        handle = self.pool.find(ModelId("m", version))
        assert handle is not None
        deadline = asyncio.get_running_loop().time() + timeout_s
        return await self.peer.infer(handle.id, handle.artifact.binding_digest, users, handle.wanted[HOST], deadline)

    def scores(self, version: str, answer: PeerAnswer) -> list[Any]:
        """Of the case, by the guest's half and these partials."""
        handle = self.pool.acquire(ModelId("m", version))
        return rows_of(handle, answer)


def rows_of(handle: ModelHandle, answer: PeerAnswer) -> list[Any]:
    signature = handle.servable.signature
    numbers = np.array([[CASE[name] for name in signature.numbers]] * len(answer.statuses))
    local = handle.servable.predict(Batch(numbers, np.empty((len(answer.statuses), 0), dtype=np.object_)))
    merged = handle.merge([local[signature.outputs[0].name], answer.values])
    return [row if len(row) > 1 else row[0] for row in merged.tolist()]


SENDER = Sender(GUEST, "device_id")


@asynccontextmanager
async def pair(tmp_path: Path, sender: Sender = SENDER, limit: int = 1_000) -> AsyncIterator[Guest]:
    """A guest, and a host with our own door for the protocol. Signed packets are asked for when the guest signs."""
    pools = [
        await asyncio.to_thread(pool_of, tmp_path, role, party, *MODELS)
        for role, party in (("guest", GUEST), ("host", HOST))
    ]
    settings = Settings(party=HOST, state_dir="", registry="", limits=Limits(max_batch_rows=limit))
    keys = {"key": AccessKey(GUEST, SECRET)} if sender.app_key else {}
    side = HostSide(pools[1], {"default": MemoryFeatureSource(USERS)})
    port = server(Transport.NATIVE)
    door = PartnerSide(
        side, pools[1], settings, Signatures(keys, 10.0), lambda call: GUEST, Flow(Limiter(settings.limits).resources)
    )
    unary_call.register(port, UnaryCall(door), RequestFigures())
    link = channel(Transport.NATIVE, f"127.0.0.1:{port.add_port('127.0.0.1:0')}")
    await port.start()
    try:
        yield Guest(link, pools[0], sender)
    finally:
        await link.close()
        await port.stop(0)


def expected(version: str, user: str) -> Any:
    return reference.score(MODELS[version], {f"guest:{GUEST}": dict(CASE), f"host:{HOST}": dict(USERS[user])}, False)


@pytest.mark.parametrize("version", ["lr", "trees", "classes", "fm"])
async def test_scores_are_those_of_fate_for_one_user_and_for_many(tmp_path: Path, version: str) -> None:
    async with pair(tmp_path) as guest:
        for user in USERS:
            [score] = guest.scores(version, await guest.ask(version, [user]))
            assert score == pytest.approx(expected(version, user), abs=1e-12)
        many = await guest.ask(version, [*USERS, "nobody"])
        assert many.statuses == [OK] * len(USERS) + [NOT_FOUND]
        assert guest.scores(version, many)[:-1] == [pytest.approx(expected(version, user)) for user in USERS]


async def test_more_users_than_hosts_take_go_in_several_calls(tmp_path: Path) -> None:
    async with pair(tmp_path, limit=ROWS_AT_ONCE) as guest:
        users = [f"u{n % 4}" for n in range(2 * ROWS_AT_ONCE + 1)]
        answer = await guest.ask("lr", users)
        assert set(answer.statuses) == {OK}
        assert answer.values[:, 0].tolist() == [answer.values[n % 4, 0] for n in range(len(users))]


async def test_several_calls_that_fail_alike_are_one_that_failed(tmp_path: Path) -> None:
    async with pair(tmp_path, Sender(GUEST, "id", "key", b"guessed"), limit=ROWS_AT_ONCE) as guest:
        answer = await guest.ask("lr", ["u1"] * (ROWS_AT_ONCE + 1))
        assert (answer.statuses, answer.values.shape[0]) == ([REJECTED] * (ROWS_AT_ONCE + 1), ROWS_AT_ONCE + 1)
        assert ("629" in answer.reason, answer.reasons) == (True, ())


async def test_a_large_answer_of_trees_is_that_of_single_users(tmp_path: Path) -> None:
    async with pair(tmp_path) as guest:
        users = [f"u{n % 4}" for n in range(ROWS_AT_ONCE)]
        handle = guest.pool.acquire(ModelId("m", "trees"))
        assert len(users) * handle.wanted[HOST].width > BITS_ON_THE_LOOP
        many = await guest.ask("trees", users)
        ones = [(await guest.ask("trees", [user])).values.tolist() for user in USERS]
        assert many.values.tolist() == [ones[n % 4][0] for n in range(ROWS_AT_ONCE)]


async def test_packets_are_signed_where_a_key_is_set(tmp_path: Path) -> None:
    async with pair(tmp_path, Sender(GUEST, "id", "key", SECRET)) as guest:
        assert (await guest.ask("lr", ["u1"])).statuses == [OK]
        assert (await guest.ask("lr", ["u1", "u2"])).statuses == [OK, OK]
    async with pair(tmp_path / "other", Sender(GUEST, "id", "key", b"guessed")) as guest:
        refused = await guest.ask("lr", ["u1"])
        assert (refused.statuses, "629" in refused.reason) == ([REJECTED], True)


@pytest.mark.parametrize(("version", "text"), [("mix", "cannot walk trees alone"), ("ovr", "no one-vs-rest")])
async def test_what_such_hosts_cannot_answer_is_a_mismatch(tmp_path: Path, version: str, text: str) -> None:
    async with pair(tmp_path) as guest:
        answer = await guest.ask(version, ["u1"])
        assert (answer.statuses, text in answer.reason) == ([MISMATCH], True)


def foreign_pool(root: Path) -> ModelPool:
    """Of a guest, with a model that never was FATE's."""
    pool = ModelPool(1 << 20)
    weights = {"guest_weights": {"a": 1.0}, "host_weights": {"x": 1.0}, "intercept": 0.0}
    make_bound_pair(root / "guest", root / "host", model="m", version="1", guest=GUEST, host=HOST, **weights)
    pool.put(loaded(root / "guest", "1", GUEST))
    return pool


async def test_models_of_other_kinds_are_a_mismatch(tmp_path: Path) -> None:
    pool = await asyncio.to_thread(foreign_pool, tmp_path)

    def never(raw: bytes, call: object) -> bytes:
        raise AssertionError("it was asked")

    async with served(never) as link:
        answer = await Guest(link, pool, SENDER).ask("1", ["u1"])
    assert (answer.statuses, "is no model of FATE" in answer.reason) == ([MISMATCH], True)


async def told(tmp_path: Path, reply: Any, users: list[str], seen: list[wire.Packet] | None = None) -> PeerAnswer:
    """What a guest makes of one body, of bytes, or of an error."""

    def answer(raw: bytes, call: object) -> bytes:
        if seen is not None:
            seen.append(wire.Packet.FromString(raw))
        if isinstance(reply, Exception):
            raise reply
        if isinstance(reply, bytes):
            return reply
        return wire.Packet(body=wire.Data(value=json.dumps(reply).encode())).SerializeToString()

    pool = await asyncio.to_thread(pool_of, tmp_path, "guest", GUEST, "lr")
    async with served(answer) as link:
        return await Guest(link, pool, SENDER).ask("lr", users)


@pytest.mark.parametrize(
    ("reply", "status", "text"),
    [
        ({"retcode": 104, "retmsg": "mode is null"}, MISMATCH, "host return code 104 host msg :mode is null"),
        ({"retcode": 113}, NOT_FOUND, "113"),
        ({"retcode": "124", "retmsg": None}, REJECTED, "124"),
        ({"retcode": 628}, UNREACHABLE, "628"),
        ({"retcode": 110, "retmsg": ""}, INTERNAL, "110"),
        ({"retcode": 0}, MISMATCH, "does not hold 1 finite numbers"),
        ({"retcode": 0, "data": {"heterologisticregression_0": 7}}, MISMATCH, "is no object"),
        ({"retcode": 0, "data": {"heterologisticregression_0": {"score": True}}}, MISMATCH, "finite"),
        ({"retcode": 0, "data": {"heterologisticregression_0": {"score": "1"}}}, MISMATCH, "finite"),
        ({"retcode": 0, "data": {"heterologisticregression_0": {"score": float("inf")}}}, MISMATCH, "cannot be used"),
        ({"data": {}}, MISMATCH, "cannot be used"),
        ([], MISMATCH, "cannot be used"),
        (b"\xff\xff", MISMATCH, "cannot be used"),
        (RpcError(Code.UNAVAILABLE, "127.0.0.1:1"), UNREACHABLE, "unreachable"),
        (RpcError(Code.UNIMPLEMENTED, "eggroll"), MISMATCH, "eggroll"),
    ],
)
async def test_every_bad_answer_has_a_status(tmp_path: Path, reply: Any, status: PartyStatus, text: str) -> None:
    answer = await told(tmp_path, reply, ["u1"])
    assert (answer.statuses, text in answer.reason) == ([status], True), answer
    assert not answer.values.any()


async def test_a_host_of_the_first_line_answers_flat(tmp_path: Path) -> None:
    answer = await told(tmp_path, {"retcode": 0, "data": {"prob": -0.25, "retcode": 0}}, ["u1"])
    assert (answer.statuses, answer.values.tolist()) == ([OK], [[-0.25]])


async def test_rows_have_their_own_codes_in_any_order(tmp_path: Path) -> None:
    rows = [
        {"index": 2, "retcode": 0, "data": {"heterologisticregression_0": {"score": 2.5}}},
        {"index": 0, "retcode": 113, "retmsg": "no such user"},
        {"index": 3, "retcode": 102, "retmsg": "feature"},
    ]
    answer = await told(tmp_path, {"retcode": 0, "batchDataList": rows}, ["a", "b", "c", "d"])
    assert answer.statuses == [NOT_FOUND, INTERNAL, OK, INTERNAL]
    assert answer.values.tolist() == [[0.0], [0.0], [2.5], [0.0]]
    assert "lacks rows" in answer.reason


async def test_packets_are_as_fate_serving_fills_them(tmp_path: Path) -> None:
    seen: list[wire.Packet] = []
    await told(tmp_path, {"retcode": 0, "data": ONE[0]["data"]}, ['{"a":"1","b":2}'], seen)
    await told(tmp_path / "many", {"retcode": 0, "batchDataList": ONE}, ["u1", "u2"], seen)
    single, many = seen
    header = single.header
    assert (header.command.name, many.header.command.name, header.operator) == ("federatedInference", "batch", "216")
    assert (header.task.model.namespace, header.task.model.tableName) == (f"host#{HOST}#m", "lr")
    assert [(one.partyId, one.role) for one in (header.src, header.dst)] == [(GUEST, "serving"), (HOST, "serving")]
    assert (single.auth.version, len(single.auth.nonce), single.auth.signature) == ("216", 32, "")
    body = json.loads(single.body.value)
    assert (body["sendToRemoteFeatureData"], body["featureData"]) == ({"a": "1", "b": 2}, {})
    rows = json.loads(many.body.value)
    assert (rows["hostTableName"], rows["guestPartyId"], rows["hostPartyId"]) == ("lr", GUEST, HOST)
    assert rows["batchDataList"][1] == {
        "index": 1,
        "needCheckFeature": False,
        "featureData": {},
        "sendToRemoteFeatureData": {"device_id": "u2"},
    }


@pytest.mark.parametrize("depth", [100, 900, 1_000, 100_000])
async def test_users_named_by_values_of_any_depth_have_a_status(tmp_path: Path, depth: int) -> None:
    deep = '{"a":' + "[" * depth + "]" * depth + "}"
    answer = await told(tmp_path, {"retcode": 0, "data": ONE[0]["data"]}, [deep])
    assert len(answer.statuses) == 1
    assert answer.statuses[0] in {OK, REJECTED}


async def test_a_host_that_never_answers_is_late(tmp_path: Path) -> None:
    """As FATE-Serving does for what it does not understand."""

    async def silent(raw: bytes, call: object) -> bytes:
        await asyncio.Event().wait()
        return b""

    pool = await asyncio.to_thread(pool_of, tmp_path, "guest", GUEST, "lr")
    async with served(silent) as link:
        guest = Guest(link, pool, SENDER)
        late = [await guest.ask("lr", ["u1"], timeout_s) for timeout_s in (0.1, -1.0)]
    assert [(one.statuses, one.reason) for one in late] == [([TIMEOUT], LATE)] * 2


async def test_it_takes_no_loads_and_no_holds(tmp_path: Path) -> None:
    asked: list[bytes] = []

    def record(raw: bytes, call: object) -> bytes:
        asked.append(raw)
        return b""

    async with served(record) as link:
        peer = FatePeer(HOST, link, ModelPool(1), SENDER)
        [outcome] = await peer.load(ModelId("m", "1"), "ab", 1.0)
        holder = Holder("s", 1, "p")
        await peer.hold(holder, ModelId("m", "1"), "ab", 600)
        await peer.release(holder, ModelId("m", "1"))
    assert (outcome.state, outcome.party, asked) == (LoadState.UNMANAGED, HOST, [])


NAMES = (
    *("retcode", "retmsg", "data", "batchDataList", "index", "score", "fm_cross", "0", "1"),
    *("hetero_secure_boost_0", "heterologisticregression_0", "hetero_fm_0"),
)


def random_value(source: random.Random, depth: int) -> Any:
    kind = source.randrange(9 if depth else 7)
    if kind == 7:
        return [random_value(source, depth - 1) for _ in range(source.randrange(4))]
    if kind == 8:
        return {source.choice(NAMES): random_value(source, depth - 1) for _ in range(source.randrange(5))}
    return (None, True, source.randrange(-3, 4), 10**400, source.uniform(-2, 2), "x", 1e999)[kind]


def random_reply(seed: int) -> bytes:
    """Packets with JSON that looks right from afar, and sometimes other bytes."""
    source = random.Random(seed)
    if seed % 10 == 0:
        return source.randbytes(source.randrange(30))
    if seed % 10 == 1:
        body = b"[" * 100_000
    else:
        shown = {"retcode": source.choice([0, 0, 0, 113, 10**30, "0", None]), "data": random_value(source, 4)}
        rows = [{"index": source.randrange(3), "retcode": 0, "data": random_value(source, 3)} for _ in range(3)]
        body = json.dumps(shown | ({"batchDataList": rows} if source.random() < 0.7 else {})).encode()
    return wire.Packet(body=wire.Data(value=body)).SerializeToString()


@pytest.mark.parametrize("version", ["lr", "trees", "fm"])
async def test_whatever_a_host_answers_becomes_a_status(tmp_path: Path, version: str) -> None:
    said = [b""]
    pool = await asyncio.to_thread(pool_of, tmp_path, "guest", GUEST, version)
    async with served(lambda raw, call: said[0]) as link:
        guest = Guest(link, pool, SENDER)
        for seed in range(300):
            said[0] = random_reply(seed)
            rows = 1 + seed % 3
            answer = await guest.ask(version, ["u1"] * rows)
            assert len(answer.statuses) == rows == answer.values.shape[0]
            assert np.isfinite(answer.values).all()
