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
VERSION = {"modelId": NAME.namespace, "modelVersion": NAME.table}


class Host:
    """`codes` by user, 0 for the others; `whole`: the code of every call."""

    def __init__(self) -> None:
        self.codes: dict[str, int] = {}
        self.whole = 0
        self.scores: dict[str, float] = {}
        self.asked: list[list[str]] = []
        self.heard: list[tuple[str, str, str]] = []
        """Service, apply id and nonce of every packet."""

    def answer(self, raw: bytes, call: Call) -> bytes:
        packet = fate_proxy_pb2.Packet.FromString(raw)
        self.heard.append((packet.auth.serviceId, packet.auth.applyId, packet.auth.nonce))
        asked = json.loads(packet.body.value)
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
        return {
            "index": index,
            "retcode": 0,
            "data": {"heterologisticregression_0": {"score": self.scores.get(user, 1.5)}},
        }


def message(body: dict[str, Any]) -> bytes:
    return fate_inference_pb2.InferenceMessage(body=json.dumps(body).encode()).SerializeToString()


class Guest:
    def __init__(self, door: FateInference, host: Host) -> None:
        self.door = door
        self.host = host

    async def ask(self, user: str, **said: Any) -> float:
        body = {"featureData": CASE, "sendToRemoteFeatureData": {"id": user}, **said}
        reply = self.door.single(message(body), None, "")
        answered = reply if isinstance(reply, bytes) else await reply
        return float(json.loads(fate_inference_pb2.InferenceMessage.FromString(answered).body)["data"]["score"])

    async def batch(self, *users: str, **said: Any) -> list[tuple[int, str]]:
        rows = [
            {"index": index, "featureData": CASE, "sendToRemoteFeatureData": {"id": user}}
            for index, user in enumerate(users)
        ]
        reply = self.door.batch(message({**VERSION, "batchDataList": rows, **said}), None, "")
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
            sender = Sender(GUEST, "id")
            peer = Batcher(FatePeer(HOST, link, party.pool, sender), BatchSettings())
            await party.publishing.load_here(ModelId(NAME.model, NAME.version))
            tiers = TieredCache(MemoryTier(1_000, 600.0), None)
            remote = RemotePartials(GUEST, {HOST: peer}, tiers, SECRET, CacheSettings())
            answers = Answers(ResultCache(100, 60.0), Effects(MemoryFigureStore(), SECRET))
            limiter = Limiter(Limits(peer_timeout_s=5.0))
            pipeline = Pipeline(party.publishing.routes, party.pool, remote, answers, limiter)
            models = FateModels(party.publishing, party.pool, "id", Flow(limiter.resources), GUEST, sender.occasions)
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


async def test_a_host_hears_what_the_caller_says_of_its_call(guest: Guest) -> None:
    await guest.ask("u1", **VERSION, applyId="loan-1", caseId="case-1")
    await guest.batch("u2", "u3", applyId=7, caseId="case-2")
    await guest.ask("u4", **VERSION)
    first, batch, unnamed = guest.host.heard
    assert (first, batch, unnamed[:2]) == (("", "loan-1", "case-1"), ("", "7", "case-2"), ("", ""))
    assert len(unnamed[2]) == 32
    assert guest.host.asked == [["u1"], ["u2", "u3"], ["u4"]]


async def test_calls_with_something_else_to_say_go_in_packets_of_their_own(guest: Guest) -> None:
    calls = [guest.ask(f"u{place}", **VERSION, applyId=apply) for place, apply in enumerate(("a", "b", "a"))]
    guest.host.scores = {"u0": 0.5, "u1": 40.0, "u2": -40.0}
    low, high, none = await asyncio.gather(*calls)
    assert sorted(guest.host.asked) == [["u0", "u2"], ["u1"]]
    assert sorted(apply for _, apply, _ in guest.host.heard) == ["a", "b"]
    assert none < 1e-9 < low < 1 - 1e-9 < high


async def test_rows_whose_status_says_all_are_not_asked_again(guest: Guest) -> None:
    guest.host.codes = {"nobody": 113, "u2": 102}
    await guest.batch("u1", "nobody")
    assert guest.host.asked == [["u1", "nobody"]]
    await guest.batch("u1", "nobody", "u2")
    assert guest.host.asked[1:] == [["u2"], ["u2"]]
