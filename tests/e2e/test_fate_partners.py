"""Two nodes, the guest asking the host over FATE-Serving's protocol, in both directions of the pair."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from google.protobuf import json_format

from loaders.fate.component import Mode, Site
from loaders.fate.importing import store_half
from loaders.fate.names import FateName
from serving.cli import main
from serving.peers.fate import UNARY_CALL
from serving.peers.signing import sign
from serving.transport import Channel, RpcError
from tessera.compat import fate_inference_pb2 as wire
from tessera.compat import fate_inference_pb2_grpc, fate_model_service_pb2_grpc
from tessera.compat import fate_model_service_pb2 as models
from tessera.compat import fate_proxy_pb2 as proxy
from tessera.v1 import admin_pb2, federation_pb2
from tests import fate_reference as reference
from tests.fate_models import GUEST, HOSTS, Recipe, make
from tests.nodes import PartyNode, free_port

pytestmark = pytest.mark.usefixtures("transport")

HOST = HOSTS[0]
LR, TREES = make(3, Recipe("lr", plain=True)), make(4, Recipe("trees", plain=True))
KINDS = {"lr": LR, "trees": TREES}
ALONE = "alone"
"""A version that the host has not loaded."""
USERS = {f"u{n}": {f"h0{place}": n / 3 - place / 7 for place in range(5)} for n in range(3)}
CASE = {f"g{n}": 0.25 * n - 0.5 for n in range(5)}


class Pair:
    """`9999` and `10000`, each of which asks the other as a host that runs FATE-Serving."""

    def __init__(self, folder: Path) -> None:
        ports = {GUEST: free_port(), HOST: free_port()}
        self.nodes = {}
        for party, peer in ((GUEST, HOST), (HOST, GUEST)):
            settings = (
                f"plaintext_caller = '{peer}'\n"
                f"[peers.{peer}]\naddress = '127.0.0.1:{ports[peer]}'\nprotocol = 'fate'\napp_key = 'key-{party}'\n"
                f"probe_user = '{'u1' if party == HOST else ''}'\n"
                "[features.default]\npath = 'users.csv'\n[cache]\nremote_ttl_s = 0.001\nembedded = false\n"
                "[fate]\nuser_id = 'device_id'\nunary_over_http = true\n"
                f"[fate.keys.key-{GUEST}]\nparty = '{GUEST}'\nsecret_file = 'secret'\n"
                f"[fate.keys.key-{HOST}]\nparty = '{HOST}'\nsecret_file = 'secret'\n"
            )
            node = PartyNode(folder, party, settings, ports[party])
            (node.folder / "secret").write_text("shared")
            names = list(USERS["u0"])
            lines = [",".join([user, *(str(values[name]) for name in names)]) for user, values in USERS.items()]
            (node.folder / "users.csv").write_text("\n".join([",".join(["id", *names]), *lines]) + "\n")
            self.nodes[party] = node
        self.guest, self.host = self.nodes[GUEST], self.nodes[HOST]
        for version, model in {**KINDS, ALONE: LR}.items():
            for role, party in (("guest", GUEST), ("host", HOST)):
                site = Site(role, party, (HOST,), Mode.STRICT_OFFLINE)
                name = FateName(f"{role}#{party}#m", version)
                store_half(self.nodes[party].registry, model.parts[site.name], name, site, GUEST)
        # The same numbers with the roles of the two parties changed; a linear half does not name its party.
        for role, party in (("guest", HOST), ("host", GUEST)):
            site = Site(role, party, (GUEST,), Mode.STRICT_OFFLINE)
            parts = LR.parts[f"{role}:{GUEST if role == 'guest' else HOST}"]
            store_half(self.nodes[party].registry, parts, FateName(f"{role}#{party}#back", "lr"), site, HOST)

    def infer(self, service: str, method: str = "inference", node: PartyNode | None = None, **body: Any) -> Any:
        async def ask(link: Channel) -> Any:
            stub = fate_inference_pb2_grpc.InferenceServiceStub(link.stub_channel)
            message = wire.InferenceMessage(body=json.dumps({"serviceId": service, **body}).encode())
            return await getattr(stub, method)(message, timeout=10)

        return json.loads((node or self.guest).call("service", ask).body)

    def case(self, service: str, user: str, node: PartyNode | None = None) -> Any:
        return self.infer(service, node=node, featureData=CASE, sendToRemoteFeatureData={"device_id": user})

    def accept(
        self, service: str, model: str, version: str, node: PartyNode, user: str = "u1", revision: int = 0
    ) -> Any:
        request = admin_pb2.PublishOnlineRequest(
            service=service,
            revision=revision,
            variants=[admin_pb2.VariantWeight(model=model, version=version, weight=10_000)],
            accept_unmanaged=[GUEST if node is self.host else HOST],
            probe_user_id=user,
        )
        return node.admin("PublishOnline", request)


@pytest.fixture(scope="module")
def pair(transport: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    parties = Pair(tmp_path_factory.mktemp("partners"))
    for node in parties.nodes.values():
        node.start()
    for version in KINDS:
        for node in parties.nodes.values():
            node.load("m", version)
    for node in parties.nodes.values():
        node.load("back", "lr")
    parties.guest.load("m", ALONE)
    try:
        yield parties
    finally:
        for node in parties.nodes.values():
            node.stop()


def expected(kind: str, user: str) -> Any:
    return reference.score(KINDS[kind], {f"guest:{GUEST}": dict(CASE), f"host:{HOST}": dict(USERS[user])}, False)


def test_a_load_reports_the_host_unmanaged(pair: Pair) -> None:
    states = {one.party: one.state for one in pair.guest.load("m", "lr").replicas}
    assert states == {
        GUEST: federation_pb2.LOAD_STATE_ALREADY_LOADED,
        HOST: federation_pb2.LOAD_STATE_UNMANAGED,
    }


@pytest.mark.parametrize("kind", list(KINDS))
def test_single_and_batch(pair: Pair, kind: str) -> None:
    bound = pair.accept(kind, "m", kind, pair.guest)
    assert list(bound.unmanaged) == [HOST]
    for user in USERS:
        assert pair.case(kind, user)["data"]["score"] == pytest.approx(expected(kind, user), abs=1e-12)
    assert pair.case(kind, "nobody")["retcode"] == 2113
    first_line = pair.infer(kind, featureData={**CASE, "device_id": "u2"})
    assert first_line["data"]["score"] == pytest.approx(expected(kind, "u2"), abs=1e-12)
    rows = [
        {"index": index, "featureData": CASE, "sendToRemoteFeatureData": {"device_id": user}}
        for index, user in enumerate([*USERS, "nobody"])
    ]
    answered = pair.infer(kind, "batchInference", batchDataList=rows)["batchDataList"]
    assert [row["retcode"] for row in answered] == [0] * len(USERS) + [2113]
    for row, user in zip(answered, USERS, strict=False):
        assert row["data"]["score"] == pytest.approx(expected(kind, user), abs=1e-12)


def test_what_a_host_says_is_said_in_a_call_and_in_a_batch(pair: Pair) -> None:
    named = {"modelId": f"guest#{GUEST}#m", "modelVersion": ALONE}
    rows = [
        {"index": index, "featureData": CASE, "sendToRemoteFeatureData": {"device_id": user}}
        for index, user in enumerate(("u0", "u1"))
    ]
    for reply in (pair.infer("", **named, **rows[0]), pair.infer("", "batchInference", **named, batchDataList=rows)):
        assert (reply["retcode"], "host return code 104 host msg :model" in reply["retmsg"]) == (2104, True), reply
    pair.accept("strangers", "m", "lr", pair.guest)
    strangers = [{**row, "sendToRemoteFeatureData": {"device_id": f"{row['index']}"}} for row in rows]
    reply = pair.infer("strangers", "batchInference", batchDataList=strangers)
    assert (reply["retcode"], [row["retcode"] for row in reply["batchDataList"]]) == (0, [2113, 2113])


def test_a_host_takes_packets_over_http_as_over_grpc(pair: Pair) -> None:
    packet = proxy.Packet(
        header=proxy.Metadata(
            task=proxy.Task(model=proxy.Model(namespace=f"host#{HOST}#m", tableName="lr")),
            src=proxy.Topic(partyId=GUEST, role="serving"),
            dst=proxy.Topic(partyId=HOST, role="serving"),
            command=proxy.Command(name="federatedInference"),
            operator="216",
        ),
        body=proxy.Data(value=json.dumps({"sendToRemoteFeatureData": {"device_id": "u1"}}).encode()),
    )
    sign(packet, f"key-{GUEST}", b"shared", time.time())

    async def ask(link: Channel) -> bytes:
        return await link.unary(UNARY_CALL, packet.SerializeToString(), 5)

    over_grpc = json.loads(proxy.Packet.FromString(pair.host.call("party", ask)).body.value)
    over_http = pair.host.http("POST", "/unary", content=json_format.MessageToJson(packet)).json()
    assert json.loads(base64.b64decode(over_http["body"]["value"]))["retcode"] == 629  # it was sent before
    sign(packet, f"key-{GUEST}", b"shared", time.time() + 0.01)
    over_http = pair.host.http("POST", "/unary", content=json_format.MessageToJson(packet)).json()
    assert json.loads(base64.b64decode(over_http["body"]["value"])) == over_grpc
    assert over_grpc["retcode"] == 0


def test_the_same_pair_the_other_way_round(pair: Pair) -> None:
    assert list(pair.accept("back", "back", "lr", pair.host).unmanaged) == [GUEST]
    data = pair.case("back", "u2", pair.host)["data"]
    assert data["score"] == pytest.approx(expected("lr", "u2"), abs=1e-12)


def test_without_acceptance_or_an_answered_probe_nothing_is_bound(pair: Pair) -> None:
    with pytest.raises(RpcError, match=f"party '{HOST}' is unmanaged"):
        pair.guest.online("refused", "m", "lr")
    with pytest.raises(RpcError, match="not_found"):
        pair.accept("refused", "m", "lr", pair.guest, "nobody")
    with pytest.raises(RpcError, match="cannot be probed"):
        pair.accept("refused", "m", "lr", pair.guest, "")
    assert pair.case("refused", "u1")["retcode"] == 104


def test_fate_flow_binds_over_it_only_with_a_standing_acceptance(pair: Pair) -> None:
    """Only the second party has a probe user for the other in its settings."""

    def bound(node: PartyNode, model: str) -> Any:
        request = models.PublishRequest(local=models.LocalInfo(role="guest", partyId=node.party), serviceId="flow")
        half = request.model["guest"].roleModelInfo[node.party]
        half.tableName, half.namespace = "lr", f"guest#{node.party}#{model}"

        async def bind(link: Channel) -> Any:
            stub = fate_model_service_pb2_grpc.ModelServiceStub(link.stub_channel)
            return await stub.publishBind(request, timeout=10)

        return node.call("admin", bind)

    reply = bound(pair.guest, "m")
    assert (reply.statusCode, "is unmanaged" in reply.message) == (109, True)
    assert bound(pair.host, "back").statusCode == 0
    data = pair.case("flow", "u0", pair.host)["data"]
    assert data["score"] == pytest.approx(expected("lr", "u0"), abs=1e-12)


def test_the_command_line_accepts_and_shows_it(pair: Pair) -> None:
    admin = ["--admin", pair.guest.address("admin")]
    accept = ["--accept-unmanaged", HOST, "--probe-user", "u1"]
    done = CliRunner().invoke(main, ["model", "online", "shown", "m:trees", *accept, *admin])
    assert (done.exit_code, f"unmanaged: {HOST}" in done.output) == (0, True), done.output
    shown = CliRunner().invoke(main, ["service", "show", "shown", *admin])
    assert f"unmanaged: {HOST}" in shown.output
    peers = CliRunner().invoke(main, ["peers", "show", HOST, *admin, "--json"])
    assert "unmanaged: it speaks FATE's protocol" in peers.output
    refused = CliRunner().invoke(main, ["model", "online", "other", "m:trees", *admin])
    assert (refused.exit_code, "--accept-unmanaged" in refused.output) == (1, True), refused.output


def test_a_rollback_stands_on_the_acceptance_of_its_binding(pair: Pair) -> None:
    pair.accept("rolled", "m", "lr", pair.guest)
    pair.accept("rolled", "m", "trees", pair.guest, revision=1)
    back = pair.guest.admin("Rollback", admin_pb2.RollbackRequest(service="rolled", revision=2))
    assert ([one.version for one in back.variants], list(back.unmanaged)) == (["lr"], [HOST])


def test_a_host_that_dies_fails_and_comes_back(pair: Pair) -> None:
    pair.accept("dying", "m", "trees", pair.guest)
    worker = pair.host.worker()
    pair.host.process.kill()
    worker.kill()
    pair.host.process.wait(timeout=10)
    reply = pair.case("dying", "u0")
    assert (reply["retcode"], "score" in reply["data"]) == (105, False), reply
    assert reply["retmsg"].startswith(f"host {HOST} remote error : unreachable"), reply
    with pytest.raises(RpcError, match="not ready at every party"):
        pair.accept("never", "m", "lr", pair.guest)
    pair.host.start()
    end = time.monotonic() + 20
    while pair.case("dying", "u0")["retcode"] == 105:  # until the guest tries its address again
        assert time.monotonic() < end
        time.sleep(0.05)
    assert pair.case("dying", "u0")["data"]["score"] == pytest.approx(expected("trees", "u0"), abs=1e-12)
