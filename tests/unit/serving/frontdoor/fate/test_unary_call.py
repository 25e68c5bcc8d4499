"""A guest that runs FATE-Serving asks this host, over a real port."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from loaders.catalog import load_servable, loader_for
from loaders.fate.component import Mode, Site
from loaders.fate.importing import store_half
from loaders.fate.names import FateName
from loaders.merge import merge_rule
from loaders.registry import open_half
from loaders.signature import Signature
from serving.admission import make_admission
from serving.control import State, WantedLimit
from serving.features.memory import MemoryFeatureSource
from serving.features.source import FeatureRows, FeatureSource, FeatureSourceError
from serving.frontdoor.fate import unary_call
from serving.frontdoor.fate.rules import Flow, Second
from serving.frontdoor.fate.unary_call import UNARY_CALL, PartnerSide, UnaryCall
from serving.host import HostSide
from serving.limits import make_limiter
from serving.peers.signing import AccessKey, Signatures, sign
from serving.pool import ModelHandle, ModelPool
from serving.settings import Limits, PeerSettings, Settings
from serving.telemetry.requests import RequestFigures
from serving.transport import Channel, Transport, channel, server
from tessera.compat import fate_model_pb2
from tessera.compat import fate_proxy_pb2 as wire
from tests import fate_reference as reference
from tests.fate_models import GUEST, HOSTS, FateModel, Recipe, make

HOST = HOSTS[0]
USERS = {
    "u1": {f"h0{place}": 0.5 - place / 3 for place in range(5)},
    "u2": {f"h0{place}": place / 7 for place in range(5)},
    "broken": {"h00": 1.0},
}
CASE = {f"g{place}": 0.25 * place - 0.5 for place in range(5)}
MODELS = {
    "1": make(3, Recipe("lr", plain=True)),
    "2": make(4, Recipe("trees", plain=True)),
    "3": make(6, Recipe("trees", plain=True, classes=3)),
    "4": make(8, Recipe("fm", plain=True)),
    "5": make(5, Recipe("trees", plain=True, strategy="mix")),
    "6": make(7, Recipe("ovr", plain=True, classes=3)),
}
SECRET = b"secret"


def handle(root: Path, version: str) -> ModelHandle:
    name = FateName(f"host#{HOST}#m", version)
    site = Site("host", HOST, (HOST,), Mode.STRICT_OFFLINE)
    store_half(root, MODELS[version].parts[f"host:{HOST}"], name, site, GUEST)
    artifact = open_half(root, "m", version, HOST)
    loader = loader_for(artifact)
    servable = load_servable(loader)
    return ModelHandle(artifact, servable, merge_rule(artifact.manifest.merge, servable), loader.estimate())


class Host:
    def __init__(self, link: Channel, side: PartnerSide) -> None:
        self.link = link
        self.side = side

    async def ask(self, packet: wire.Packet) -> dict[str, Any]:
        reply = wire.Packet.FromString(await self.link.unary(UNARY_CALL, packet.SerializeToString(), 5.0))
        return dict(json.loads(reply.body.value))


async def make_side(
    root: Path,
    keys: Mapping[str, AccessKey] | None = None,
    caller: str = GUEST,
    allowed: PeerSettings | None = None,
    features: FeatureSource | None = None,
    rules: Mapping[str, WantedLimit] | None = None,
) -> PartnerSide:
    pool = ModelPool(1 << 24)
    for version in MODELS:
        pool.put(await asyncio.to_thread(handle, root, version))
    settings = Settings(party=HOST, state_dir=str(root), registry="", limits=Limits(max_batch_rows=10))
    settings = msgspec.structs.replace(settings, peers={caller: allowed or PeerSettings()})
    limiter = make_limiter(settings)
    limiter.follow(State(limits={"resource": rules or {}}))
    admission = await asyncio.to_thread(make_admission, settings, b"s" * 32, limiter.parties)
    host = HostSide(pool, {"default": features or MemoryFeatureSource(USERS)}, admission)
    flow = Flow(limiter.resources)
    return PartnerSide(host, pool, settings, Signatures(keys or {}, 10.0), lambda call: caller, flow)


@asynccontextmanager
async def serving(root: Path, **given: Any) -> AsyncIterator[Host]:
    """`given`: as `make_side` takes it."""
    side = await make_side(root, **given)
    port = server(Transport.GRPCIO)
    unary_call.register(port, UnaryCall(side), RequestFigures())
    link = channel(Transport.GRPCIO, f"127.0.0.1:{port.add_port('127.0.0.1:0')}")
    await port.start()
    try:
        yield Host(link, side)
    finally:
        await link.close()
        await port.stop(0)


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    async with serving(tmp_path) as running:
        yield running


def packet(version: str = "1", command: str = "federatedInference", operator: str = "216", **body: Any) -> wire.Packet:
    """As FATE-Serving's guest fills it."""
    return wire.Packet(
        header=wire.Metadata(
            task=wire.Task(model=wire.Model(namespace=f"host#{HOST}#m", tableName=version)),
            src=wire.Topic(partyId=GUEST, role="serving", name="partnerPartyName"),
            dst=wire.Topic(partyId=HOST, role="serving", name="partyName"),
            command=wire.Command(name=command),
            operator=operator,
        ),
        body=wire.Data(value=json.dumps(body).encode()),
        auth=wire.AuthInfo(nonce="case", version=operator),
    )


def single(version: str, user: str) -> wire.Packet:
    return packet(version, sendToRemoteFeatureData={"device_id": user}, featureData={}, seqno="1", caseId="2")


def walked(model: FateModel, directions: Mapping[str, Mapping[str, bool]]) -> Any:
    """What FATE-Serving's guest makes of a host's directions."""
    name = "hetero_secure_boost_0/model/HeteroSecureBoostingTree"
    parts = model.parts[f"guest:{GUEST}"]
    param = fate_model_pb2.BoostingTreeModelParam.FromString(parts[f"{name}Param"])
    sums = [0.0] * max(1, param.tree_dim)
    for number, tree in enumerate(param.trees_):
        node = tree.tree_[0]
        while not node.is_leaf:
            own = node.sitename == f"guest:{GUEST}"
            left = (
                CASE[param.feature_name_fid_mapping[node.fid]] <= tree.split_maskdict[node.id] + 1e-8
                if own
                else directions[str(number)][str(node.id)]
            )
            node = tree.tree_[node.left_nodeid if left else node.right_nodeid]
        sums[number % len(sums)] += 0.3 * node.weight
    if param.num_classes == 2:
        return 1 / (1 + math.exp(-sums[0]))
    raised = [math.exp(value + start) for value, start in zip(sums, param.init_score, strict=True)]
    return [value / sum(raised) for value in raised]


def expected(version: str, user: str) -> Any:
    return reference.score(MODELS[version], {f"guest:{GUEST}": dict(CASE), f"host:{HOST}": dict(USERS[user])}, False)


def linear(user: str) -> float:
    param = fate_model_pb2.LRModelParam.FromString(
        MODELS["1"].parts[f"host:{HOST}"]["heterologisticregression_0/model/HeteroLogisticRegressionParam"]
    )
    return sum(weight * USERS[user][name] for name, weight in param.weight.items()) + param.intercept


async def test_a_linear_half_answers_its_score(host: Host) -> None:
    reply = await host.ask(single("1", "u1"))
    assert reply == {
        "retcode": 0,
        "retmsg": "",
        "caseid": "",
        "flag": 0,
        "data": {"heterologisticregression_0": {"score": pytest.approx(linear("u1"))}, "retcode": 0},
    }


@pytest.mark.parametrize("version", ["2", "3"])
async def test_a_guest_walks_with_the_directions(host: Host, version: str) -> None:
    for user in ("u1", "u2"):
        reply = await host.ask(single(version, user))
        assert walked(MODELS[version], reply["data"]["hetero_secure_boost_0"]) == pytest.approx(expected(version, user))


async def test_a_factorisation_machine_answers_its_sums(host: Host) -> None:
    payload = (await host.ask(single("4", "u1")))["data"]["hetero_fm_0"]
    assert (len(payload["fm_cross"]), math.isfinite(payload["score"])) == (3, True)


async def test_a_batch_is_answered_row_by_row(host: Host) -> None:
    rows = [
        {"index": index, "sendToRemoteFeatureData": {"id": user}, "featureData": {}, "needCheckFeature": False}
        for index, user in ((3, "u1"), (0, "nobody"), (1, "broken"), (7, "u2"))
    ]
    body = {"hostTableName": "1", "hostNamespace": f"host#{HOST}#m", "guestPartyId": GUEST, "batchDataList": rows}
    reply = await host.ask(packet("1", "batch", **body))
    assert reply["retcode"] == 0
    assert [(row["index"], row["retcode"]) for row in reply["batchDataList"]] == [(3, 0), (0, 113), (1, 110), (7, 0)]
    assert reply["batchDataList"][0]["data"] == {"heterologisticregression_0": {"score": pytest.approx(linear("u1"))}}
    assert reply["singleInferenceResultMap"] == {str(row["index"]): row for row in reply["batchDataList"]}


@pytest.mark.parametrize("operator", ["", "103", "²", "next"])
async def test_the_first_line_names_the_guests_model_and_reads_a_flat_reply(host: Host, operator: str) -> None:
    asked = packet("", "federatedInference", operator, featureIdMap={"device_id": "u1"})
    asked.header.task.Clear()
    body = {"partnerModelInfo": {"name": "1", "namespace": f"guest#{GUEST}#m"}, "featureIdMap": {"device_id": "u1"}}
    asked.body.value = json.dumps(body).encode()
    data = (await host.ask(asked))["data"]
    assert data["score"] == data["prob"] == data["heterologisticregression_0"]["score"] == pytest.approx(linear("u1"))


@pytest.mark.parametrize("command", ["federatedInference4Tree", "federatedInference"])
@pytest.mark.parametrize("version", ["2", "3"])
async def test_the_first_line_finds_trees_at_the_top_level_too(host: Host, version: str, command: str) -> None:
    named = {"name": version, "namespace": f"guest#{GUEST}#m"}
    asked = packet("", command, "", partnerModelInfo=named, featureIdMap={"device_id": "u2"})
    data = (await host.ask(asked))["data"]
    assert walked(MODELS[version], data) == pytest.approx(expected(version, "u2"))
    assert data == {
        **data["hetero_secure_boost_0"],
        "hetero_secure_boost_0": data["hetero_secure_boost_0"],
        "retcode": 0,
    }


async def test_the_second_line_asks_for_trees_with_the_command_of_the_first(host: Host) -> None:
    asked = packet("2", "federatedInference4Tree", sendToRemoteFeatureData={"device_id": "u1"})
    data = (await host.ask(asked))["data"]
    assert data.keys() == {"hetero_secure_boost_0", "retcode"}
    assert walked(MODELS["2"], data["hetero_secure_boost_0"]) == pytest.approx(expected("2", "u1"))


class Broken(MemoryFeatureSource):
    async def lookup(self, user_ids: Sequence[str], signature: Signature) -> FeatureRows:
        raise FeatureSourceError("no route to 10.0.0.7")

    def at_hand(self, signature: Signature) -> None:
        return None


async def test_features_that_cannot_be_fetched_have_a_code_of_their_own(tmp_path: Path) -> None:
    async with serving(tmp_path, features=Broken({})) as host:
        row = {"index": 0, "sendToRemoteFeatureData": {"id": "u1"}}
        for asked in (single("1", "u1"), packet("1", "batch", batchDataList=[row])):
            reply = await host.ask(asked)
            assert (reply["retcode"], "10.0.0.7" in reply["retmsg"], reply["data"]) == (116, False, {})


@pytest.mark.parametrize(
    ("made", "code", "text"),
    [
        (single("1", "nobody"), 113, "not known"),
        (single("1", "broken"), 110, "cannot be used"),
        (single("9", "u1"), 104, "is not loaded"),
        (single("5", "u1"), 110, "walks alone"),
        (single("6", "u1"), 110, "no one-vs-rest"),
        (packet("1", "dance"), 125, "command 'dance'"),
        (packet("1", "batch", batchDataList=[]), 124, "0 users"),
        (packet("1", "batch", batchDataList=[{"index": n} for n in range(11)]), 124, "11 users"),
        (packet("1", sendToRemoteFeatureData=7), 100, "body cannot be used"),
        (packet("1", sendToRemoteFeatureData={"id": 1.5}), 100, "names a user"),
        (packet("", sendToRemoteFeatureData={"id": "u1"}), 100, "named by a namespace"),
    ],
)
async def test_every_call_gets_an_answer_with_a_code(host: Host, made: wire.Packet, code: int, text: str) -> None:
    reply = await host.ask(made)
    assert (reply["retcode"], text in reply["retmsg"]) == (code, True), reply


async def test_bytes_that_are_no_packet_get_an_answer_too(host: Host) -> None:
    reply = wire.Packet.FromString(await host.link.unary(UNARY_CALL, b"\xff\xff", 5.0))
    assert json.loads(reply.body.value)["retcode"] == 100


async def test_who_asks_is_who_connects(tmp_path: Path) -> None:
    async with serving(tmp_path, caller="10001") as host:
        reply = await host.ask(single("1", "u1"))
        assert (reply["retcode"], "it comes from '10001'" in reply["retmsg"]) == (629, True)
        spoofed = single("1", "u1")
        spoofed.header.src.partyId = "10001"
        reply = await host.ask(spoofed)
        assert (reply["retcode"], "is not the guest" in reply["retmsg"]) == (629, True)


async def test_a_packet_for_another_party_is_refused(host: Host) -> None:
    asked = single("1", "u1")
    asked.header.dst.partyId = "10001"
    reply = await host.ask(asked)
    assert (reply["retcode"], "is for party '10001'" in reply["retmsg"]) == (628, True)


async def test_with_keys_only_signed_packets_are_answered_and_only_once(tmp_path: Path) -> None:
    async with serving(tmp_path, keys={"key": AccessKey(GUEST, SECRET)}) as host:
        asked = single("1", "u1")
        assert (await host.ask(asked))["retcode"] == 629
        sign(asked, "key", SECRET, time.time())
        assert (await host.ask(asked))["retcode"] == 0
        again = await host.ask(asked)
        assert (again["retcode"], "data" in again, again["data"]) == (629, True, {})
        sign(asked, "key", b"guessed", time.time())
        assert (await host.ask(asked))["retcode"] == 629


async def test_its_queries_count_as_those_of_any_guest(tmp_path: Path) -> None:
    async with serving(tmp_path, allowed=PeerSettings(budget=1)) as host:
        rows = [{"index": 0, "sendToRemoteFeatureData": {"id": user}} for user in ("u1", "u2")]
        reply = await host.ask(packet("1", "batch", batchDataList=rows))
        assert [row["retcode"] for row in reply["batchDataList"]] == [0, 629]
        over = await host.ask(packet("1", sendToRemoteFeatureData={"id": "u2"}))
        assert "the query budget is spent" in over["retmsg"]
        assert (await host.ask(packet("1", sendToRemoteFeatureData={"id": "u1"})))["retcode"] == 0


async def test_flow_rules_count_for_a_host_too_and_so_do_its_figures(tmp_path: Path) -> None:
    model = f"M_1_host#{HOST}#m"
    async with serving(tmp_path, rules={model: WantedLimit(per_s=3.0)}) as host:
        rows = [{"index": len(user), "sendToRemoteFeatureData": {"id": user}} for user in ("u1", "nobody")]
        assert (await host.ask(packet("1", "batch", batchDataList=rows)))["retcode"] == 0
        assert (await host.ask(single("1", "u1")))["retcode"] == 0
        assert (await host.ask(single("1", "u2")))["retcode"] == 124
        assert (await host.ask(single("2", "u2")))["retcode"] == 0
        assert (await host.ask(packet("1", "dance")))["retcode"] == 125
        total = {"I_unaryCall": Second(), model: Second()}
        for _, resource, second in await host.side.flow.between(0, 10**15, ""):
            total.setdefault(resource, Second()).add(second)
    assert total[model] == Second(passed=3, succeeded=2, blocked=1, failed=1)
    assert total["I_unaryCall"] == Second(passed=4, succeeded=3, blocked=1, failed=1)


async def test_a_flow_rule_of_the_method_counts_calls(tmp_path: Path) -> None:
    async with serving(tmp_path, rules={"I_unaryCall": WantedLimit(per_s=0.0)}) as host:
        assert (await host.ask(single("1", "u1")))["retcode"] == 124
