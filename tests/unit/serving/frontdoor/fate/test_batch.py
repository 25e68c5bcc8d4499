"""Batches of cases, of a guest whose host runs FATE-Serving: each row has the code of what became of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from loaders.fate.component import Mode, Site
from loaders.fate.importing import store_half
from loaders.fate.names import FateName
from serving.cache.memory import MemoryTier
from serving.cache.result import ResultCache
from serving.cache.tiered import TieredCache
from serving.figures.effects import Effects
from serving.figures.store import MemoryFigureStore
from serving.frontdoor.fate.inference import FateInference
from serving.frontdoor.fate.rules import Flow
from serving.frontdoor.fate.served import FateModels
from serving.limits import Limiter
from serving.peers.batching import Batcher
from serving.peers.fate import UNARY_CALL, FatePeer, Sender
from serving.peers.remote import RemotePartials
from serving.pipeline import Answers, Pipeline
from serving.pool import ModelId
from serving.settings import BatchSettings, CacheSettings, Limits
from serving.transport import Call, Transport, channel, server
from tessera.compat import fate_inference_pb2, fate_proxy_pb2
from tests.fate_models import GUEST, HOSTS, Recipe, make
from tests.unit.serving.parties import SECRET, running

HOST = HOSTS[0]
LR = make(3, Recipe("lr", plain=True))
NAME = FateName(f"guest#{GUEST}#m", "lr")
CASE = {f"g{place}": 0.25 * place for place in range(5)}


class Host:
    """`codes` by user, 0 for the others; `whole`: the code of every call."""

    def __init__(self) -> None:
        self.codes: dict[str, int] = {}
        self.whole = 0
        self.asked: list[list[str]] = []

    def answer(self, raw: bytes, call: Call) -> bytes:
        asked = json.loads(fate_proxy_pb2.Packet.FromString(raw).body.value)
        rows = asked.get("batchDataList", [asked])
        users = [row["sendToRemoteFeatureData"]["id"] for row in rows]
        self.asked.append(users)
        shown = [self._row(index, user) for index, user in enumerate(users)]
        if self.whole:
            shown = []
            body: dict[str, Any] = {"retcode": self.whole, "retmsg": "mode is null"}
        elif "batchDataList" in asked:
            body = {"retcode": 0, "retmsg": "", "batchDataList": shown}
        else:
            body = shown[0]
        return fate_proxy_pb2.Packet(body=fate_proxy_pb2.Data(value=json.dumps(body).encode())).SerializeToString()

    def _row(self, index: int, user: str) -> dict[str, Any]:
        code = self.codes.get(user, 0)
        if code:
            return {"index": index, "retcode": code, "retmsg": f"of {user}"}
        return {"index": index, "retcode": 0, "data": {"heterologisticregression_0": {"score": 1.5}}}


class Guest:
    def __init__(self, door: FateInference, host: Host) -> None:
        self.door = door
        self.host = host

    async def batch(self, *users: str) -> list[tuple[int, str]]:
        rows = [
            {"index": index, "featureData": CASE, "sendToRemoteFeatureData": {"id": user}}
            for index, user in enumerate(users)
        ]
        body = {"modelId": NAME.namespace, "modelVersion": NAME.table, "batchDataList": rows}
        raw = fate_inference_pb2.InferenceMessage(body=json.dumps(body).encode()).SerializeToString()
        reply = self.door.batch(raw, None, "")
        answered = reply if isinstance(reply, bytes) else await reply
        shown = json.loads(fate_inference_pb2.InferenceMessage.FromString(answered).body)
        assert [row["index"] for row in shown["batchDataList"]] == list(range(len(users)))
        assert shown["retcode"] == 0
        assert all(("score" in (row["data"] or {})) == (row["retcode"] == 0) for row in shown["batchDataList"])
        return [(row["retcode"], row["retmsg"]) for row in shown["batchDataList"]]


@pytest.fixture
async def guest(tmp_path: Path) -> AsyncIterator[Guest]:
    site, host = Site("guest", GUEST, (HOST,), Mode.STRICT_OFFLINE), Host()
    await asyncio.to_thread(store_half, tmp_path, LR.parts[site.name], NAME, site, GUEST)
    port = server(Transport.NATIVE)
    port.add_bytes_handler(UNARY_CALL, host.answer)
    link = channel(Transport.NATIVE, f"127.0.0.1:{port.add_port('127.0.0.1:0')}")
    await port.start()
    try:
        async with running(GUEST, tmp_path) as party:
            peer = Batcher(FatePeer(HOST, link, party.pool, Sender(GUEST, "id")), BatchSettings())
            await party.publishing.load_here(ModelId(NAME.model, NAME.version))
            tiers = TieredCache(MemoryTier(1_000, 600.0), None)
            remote = RemotePartials(GUEST, {HOST: peer}, tiers, SECRET, CacheSettings())
            answers = Answers(ResultCache(100, 60.0), Effects(MemoryFigureStore(), SECRET))
            limiter = Limiter(Limits(peer_timeout_s=5.0))
            pipeline = Pipeline(party.publishing.routes, party.pool, remote, answers, limiter)
            models = FateModels(party.publishing, party.pool, "id", Flow(limiter.resources), GUEST)
            yield Guest(FateInference(pipeline, models, 1_000), host)
    finally:
        await link.close()
        await port.stop(0)


async def test_a_row_beside_cached_ones_has_the_code_of_a_host_that_lacks_the_model(guest: Guest) -> None:
    assert [code for code, _ in await guest.batch("u1", "u2")] == [0, 0]
    guest.host.whole = 104
    lacking = (2104, "host return code 104 host msg :mode is null")
    assert await guest.batch("u1", "u2", "u3", "u4") == [(0, ""), (0, ""), lacking, lacking]


@pytest.mark.parametrize("code", [100, 102, 116, 124, 125, 127])
async def test_a_row_has_the_code_that_the_host_gives_it(guest: Guest, code: int) -> None:
    guest.host.codes = {"u2": code, "nobody": 113, "u3": 110}
    assert await guest.batch("u1", "u2", "nobody", "u3") == [
        (0, ""),
        (2_000 + code if code < 1_000 else code, f"host return code {code} host msg :of u2"),
        (2113, "host return code 113 host msg :party '10000' does not know the user"),
        (2110, "host return code 110 host msg :of u3"),
    ]


async def test_rows_whose_status_says_all_are_not_asked_again(guest: Guest) -> None:
    guest.host.codes = {"nobody": 113, "u2": 102}
    await guest.batch("u1", "nobody")
    assert guest.host.asked == [["u1", "nobody"]]
    await guest.batch("u1", "nobody", "u2")
    assert guest.host.asked[1:] == [["u2"], ["u2"]]
