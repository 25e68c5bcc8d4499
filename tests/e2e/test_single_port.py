"""A node with one gRPC port for everybody, beside one with ports of their own: who may what is the same."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import pytest
from click.testing import CliRunner
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from serving.certificates import make_authority, make_certificate
from serving.cli import main
from serving.transport import ChannelCredentials, ChannelOptions, Code, RpcError, Transport, channel
from tessera.v1 import federation_pb2
from tests.artifacts import make_bound_pair
from tests.e2e.test_identity import principals, tls, token
from tests.e2e.test_reflection import EVERYWHERE, PORTS
from tests.nodes import PartyNode, free_port

FATE = "/com.webank.ai.fate.api.mlmodel.manager.ModelService"
METHODS = {
    "predict": ("service", "/tessera.v1.Inference/Predict"),
    "status": ("party", "/tessera.v1.Federation/Status"),
    "infer": ("party", "/tessera.v1.Federation/Infer"),
    "list": ("admin", "/tessera.v1.Admin/ListModels"),
    "change": ("admin", "/tessera.v1.Admin/SetLogLevel"),
    "fate list": ("admin", f"{FATE}/queryModel"),
    "fate change": ("admin", f"{FATE}/unload"),
    "control by callers": ("service", "/inference.GRPCInferenceService/LogSettings"),
    "control": ("admin", "/inference.GRPCInferenceService/LogSettings"),
}
CERTIFIED = {"vera": "viewer", "oscar": "operator"}
"""Role by principal and name in its certificate."""
ALL = set(METHODS)
FEDERATION, READS = {"status", "infer"}, {"list", "fate list"}
NO, NOBODY = Code.PERMISSION_DENIED, Code.UNAUTHENTICATED


@dataclass(frozen=True)
class Who:
    """A certificate, "" for none, and a token; the methods that it may call, and what it is told at those of operators
    that it may not."""

    certificate: str
    token: str
    may: frozenset[str] | set[str]
    told: Code = NO


WHO = {
    "nobody": Who("", "", {"predict"}, NOBODY),
    "stranger": Who("mallory", "", {"predict"}, NOBODY),
    "caller": Who("", "app", {"predict"}),
    "viewer": Who("", "vic", {"predict"} | READS),
    "viewer by certificate": Who("vera", "", {"predict"} | READS),
    "operator": Who("", "ann", ALL - FEDERATION),
    "operator by certificate": Who("oscar", "", ALL - FEDERATION),
    "party": Who("PEER", "", {"predict"} | FEDERATION, NOBODY),
    "node": Who("ITSELF", "", ALL - FEDERATION),
    "party with the token of a viewer": Who("PEER", "vic", {"predict"} | FEDERATION | READS),
}


class Pair:
    """`bank` has ports of their own, `shop` one for all; each is a peer of the other."""

    def __init__(self, folder: Path, transport: Transport) -> None:
        self.native = transport is Transport.NATIVE
        self.certificates = folder / "certificates"
        make_authority(self.certificates, "test")
        for name in ("bank", "shop", "mallory", *CERTIFIED):
            make_certificate(self.certificates, name, ["127.0.0.1", "localhost"])
        certified = "".join(
            f"[principals.{name}]\nrole = '{role}'\ncertificate = '{name}'\n" for name, role in CERTIFIED.items()
        )
        clients = f"clients = '{'optional' if self.native else 'required'}'\n"
        port = free_port()

        def settings(party: str, more: str) -> str:
            who = f"{tls(self.certificates, party)}{clients}{principals()}{certified}"
            return f"transport = '{transport.value}'\n{more}{who}"

        self.bank = PartyNode(folder, "bank", settings("bank", f"peers.shop.address = '127.0.0.1:{port}'\n"))
        served = "workers = 2\n" if self.native else ""
        features = "[features.default]\npath = 'users.csv'\n"
        shop = settings("shop", f"{served}peers.bank.may_load = ['*']\n") + features
        self.shop = PartyNode(folder, "shop", shop, port, single=True)
        (self.shop.folder / "users.csv").write_text("id,x\n0001,1.0\n")
        for node in (self.bank, self.shop):
            node.credentials, node.token = self.credentials(node.party), token("ann")
        make_bound_pair(
            self.bank.registry,
            self.shop.registry,
            model="m",
            version="1",
            guest="bank",
            host="shop",
            guest_weights={"a": 1.0},
            host_weights={"x": 1.0},
            intercept=0.0,
        )

    def credentials(self, name: str) -> ChannelCredentials:
        own = self.certificates / f"{name}.pem", self.certificates / f"{name}.key"
        return ChannelCredentials(self.certificates / "ca.pem", *own)

    def said(self, node: PartyNode, who: Who) -> dict[str, Code]:
        """By method. On grpcio everybody must have a certificate: some have one that is of no use."""
        named = {"PEER": "shop" if node is self.bank else "bank", "ITSELF": node.party, "": "mallory"}
        credentials = self.credentials(named.get(who.certificate, who.certificate))
        if self.native and not who.certificate:
            credentials = ChannelCredentials(self.certificates / "ca.pem")
        asked = {method: (node.address(port), path) for method, (port, path) in METHODS.items()}
        return asyncio.run(_said(asked, credentials, who))


async def _said(asked: dict[str, tuple[str, str]], credentials: ChannelCredentials, who: Who) -> dict[str, Code]:
    metadata = (("authorization", f"Bearer {token(who.token)}"),) if who.token else ()
    options = ChannelOptions(credentials=credentials)
    links = {address: channel(Transport.NATIVE, address, options) for address, _ in asked.values()}

    async def code(address: str, path: str) -> Code:
        try:
            await links[address].unary(path, b"", 5, metadata)
        except RpcError as error:
            return error.code
        return Code.OK

    try:
        codes = await asyncio.gather(*(code(*where) for where in asked.values()))
    finally:
        await asyncio.gather(*(link.close() for link in links.values()))
    return dict(zip(asked, codes, strict=True))


@pytest.fixture(scope="module", params=Transport, ids=lambda kind: kind.value)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    made = Pair(tmp_path_factory.mktemp("single"), request.param)
    try:
        made.shop.launch()
        made.bank.start()
        made.shop.wait_until_serving()
        yield made
    finally:
        made.bank.stop()
        made.shop.stop()


@pytest.mark.parametrize("who", WHO)
def test_who_may_what_does_not_depend_on_the_ports(pair: Pair, who: str) -> None:
    on_its_own, on_one = (pair.said(node, WHO[who]) for node in (pair.bank, pair.shop))
    for method, single in on_one.items():
        separate = on_its_own[method]
        if method in WHO[who].may:
            assert not {NO, NOBODY} & {separate, single}, (method, separate, single)
        elif method in FEDERATION:
            # A port for parties alone does not even take the connection of somebody without a certificate.
            assert single is NO, method
            assert separate is NO or (separate is Code.UNAVAILABLE and not WHO[who].certificate), method
        else:
            assert (separate, single) == (WHO[who].told,) * 2, method


def test_parties_load_and_answer_through_it(pair: Pair) -> None:
    replicas = pair.bank.load("m", "1").replicas
    assert {one.state for one in replicas} == {federation_pb2.LOAD_STATE_LOADED}
    # Of a host with two workers both are told by name.
    assert Counter(one.party for one in replicas) == {"bank": 1, "shop": 2 if pair.native else 1}
    assert len({one.replica for one in replicas if one.party == "shop"}) == (2 if pair.native else 1)
    pair.bank.online("s", "m", "1")
    reply = pair.bank.predict(service="s", user_id="0001", numbers={"a": -1.0})
    assert (reply.complete, list(reply.score)) == (True, [0.5])


def test_it_lists_what_it_serves_once_and_says_that_all_of_it_is_well(pair: Pair) -> None:
    files = [(pair.certificates / name).read_bytes() for name in ("ca.pem", "shop.key", "shop.pem")]
    with grpc.secure_channel(pair.shop.address("single"), grpc.ssl_channel_credentials(*files)) as link:
        listed = list(ProtoReflectionDescriptorDatabase(link).get_services())
        health = health_pb2_grpc.HealthStub(link)
        states = {health.Check(health_pb2.HealthCheckRequest(service=name)).status for name in ("", *listed)}
    assert sorted(listed) == sorted(set().union(*PORTS.values(), EVERYWHERE))
    assert states == {health_pb2.HealthCheckResponse.SERVING}


def test_probes_and_json_keep_a_port_of_their_own(pair: Pair) -> None:
    assert pair.shop.address("http") != pair.shop.address("single")
    written = json.loads((pair.shop.folder / "state" / "ports.json").read_text())
    assert written.keys() == {"single", "http"}


def test_commands_find_it_by_the_settings(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESSERA_CLIENT_TOKEN", token("vic"))
    for command in (["model", "list"], ["ready"], ["service", "list"]):
        done = CliRunner().invoke(main, [*command, "--config", str(pair.shop.config)])
        assert done.exit_code == 0, done.output
    done = CliRunner().invoke(main, ["doctor", "--config", str(pair.shop.config), "--json"])
    found = {one["subject"]: (one["level"], one["text"]) for one in json.loads(done.stdout)}
    assert done.exit_code == 0, found
    assert "answers" in found["ports.single"][1]
    assert "shop" in found["tls.single"][1]
    assert not {"ports.service", "ports.party", "ports.admin", "tls.party"} & found.keys()
    asked = CliRunner().invoke(main, ["doctor", "--config", str(pair.bank.config), "--json"])
    assert asked.exit_code == 0, asked.output


def test_the_http_port_asks_for_certificates_too_but_knows_nobody_by_them(pair: Pair) -> None:
    def status(name: str, who: str = "") -> int:
        context = ssl.create_default_context(cafile=pair.certificates / "ca.pem")
        if name:
            context.load_cert_chain(pair.certificates / f"{name}.pem", pair.certificates / f"{name}.key")
        headers = {"authorization": f"Bearer {token(who)}"} if who else {}
        address = f"https://{pair.bank.address('http')}"
        with httpx.Client(base_url=address, verify=context, trust_env=False) as client:
            return client.get("/console/data", headers=headers).status_code

    if pair.native:
        assert status("", "vic") == 200
    else:
        with pytest.raises(httpx.TransportError):
            status("", "vic")
    assert (status("vera"), status("mallory", "vic")) == (401, 200)
