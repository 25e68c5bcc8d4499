"""Two real nodes: publish in two steps, answer, cache, refuse, survive."""

from __future__ import annotations

import asyncio
import json
import math
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from serving.transport import Code, RpcError
from tessera.v1 import admin_pb2 as admin
from tessera.v1 import federation_pb2 as federation
from tessera.v1 import inference_pb2 as wire
from tests.artifacts import Pair, make_bound_pair, make_onnx
from tests.nodes import PartyNode, free_port

pytestmark = pytest.mark.usefixtures("transport")

NONE, L1, L2, L3 = range(4)
USERS = {"0001": [1.0, 2.0], "0002": [-1.0, 0.5], "0003": [0.0, 3.0]}
CASE = {"a": 0.25, "b": -1.5}


class Parties:
    """A guest and a host, connected, and the model halves that they share."""

    def __init__(self, folder: Path, guest_settings: str = "", host_settings: str = "") -> None:
        host_port = free_port()
        features = "[features.default]\npath = 'users.csv'\n"
        may_load = "[peers.bank]\nmay_load = ['*']\n"
        peer = f"[peers.shop]\naddress = '127.0.0.1:{host_port}'\n"
        self.guest = PartyNode(folder, "bank", peer + guest_settings)
        self.host = PartyNode(
            folder, "shop", f"plaintext_caller = 'bank'\n{may_load}{features}{host_settings}", host_port
        )
        rows = "".join(f"{user},{x},{y}\n" for user, (x, y) in USERS.items())
        (self.host.folder / "users.csv").write_text("id,x,y\n" + rows)

    def pair(self, model: str = "m", version: str = "1") -> Pair:
        return make_bound_pair(
            self.guest.registry,
            self.host.registry,
            model=model,
            version=version,
            guest="bank",
            host="shop",
            guest_weights={"a": 0.5, "b": -0.25},
            host_weights={"x": 1.0, "y": 2.0},
            intercept=0.125,
        )

    def online(self, model: str) -> None:
        """A pair of this name, bound to the service of the same name; the nodes run."""
        self.pair(model=model)
        self.guest.load(model, "1")
        self.guest.online(model, model, "1")

    def start(self) -> None:
        try:
            self.host.start()
            self.guest.start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        self.guest.stop()
        self.host.stop()


def expected(user: str, case: dict[str, float] = CASE) -> float:
    x, y = USERS[user]
    linear = 0.125 + 0.5 * case["a"] - 0.25 * case["b"] + x + 2 * y
    return 1 / (1 + math.exp(-linear))


@pytest.fixture(scope="module")
def parties(transport: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parties]:
    """Nodes that tests share and leave as they were."""
    both = Parties(tmp_path_factory.mktemp("parties"))
    both.pair()
    both.start()
    try:
        both.guest.load("m", "1")
        both.guest.online("s", "m", "1")
        yield both
    finally:
        both.stop()


@pytest.fixture(scope="module")
def strained(transport: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parties]:
    both = Parties(tmp_path_factory.mktemp("strained"))
    try:
        yield both
    finally:
        both.stop()


@pytest.fixture
def own_parties(strained: Parties) -> Parties:
    """Running nodes of one test at a time, which may do anything to them, with models of names of its own."""
    for node in (strained.host, strained.guest):
        if not node.serving():
            node.stop()
            node.start()
    return strained


def refused(call: object, *arguments: object, **fields: object) -> RpcError:
    with pytest.raises(RpcError) as caught:
        call(*arguments, **fields)  # type: ignore[operator]
    return caught.value


def test_a_score_is_the_sum_of_both_halves(parties: Parties) -> None:
    reply = parties.guest.predict(service="s", user_id="0001", numbers=CASE)
    assert list(reply.score) == [pytest.approx(expected("0001"), abs=1e-12)]
    assert (reply.model, reply.version, reply.complete) == ("m", "1", True)
    assert [(part.party, part.status) for part in reply.parties] == [("shop", wire.PARTY_STATUS_OK)]


def test_a_named_version_answers_without_a_service(parties: Parties) -> None:
    reply = parties.guest.predict(model="m", version="1", user_id="0002", numbers=CASE)
    assert reply.score[0] == pytest.approx(expected("0002"), abs=1e-12)
    assert not reply.variant


def test_the_packed_form_gives_the_same_score(parties: Parties) -> None:
    wrong = refused(parties.guest.predict, service="s", user_id="0001", vector=wire.FeatureVector(numbers=[0.25, -1.5]))
    assert wrong.code is Code.INVALID_ARGUMENT
    [digest] = re.findall("[0-9a-f]{64}", wrong.details)[-1:]
    vector = wire.FeatureVector(signature_hash=bytes.fromhex(digest), numbers=[0.25, -1.5])
    reply = parties.guest.predict(service="s", user_id="0001", vector=vector)
    assert reply.score[0] == pytest.approx(expected("0001"), abs=1e-12)


def test_a_repeated_case_comes_from_the_result_cache(parties: Parties) -> None:
    ask = {"service": "s", "case_id": "c-1", "user_id": "0003", "numbers": CASE}
    first = parties.guest.predict(**ask)
    again = parties.guest.predict(**ask)
    assert (first.cache, again.cache) == (NONE, L1)
    assert list(first.score) == list(again.score)
    other = parties.guest.predict(**{**ask, "case_id": "c-2"})
    assert (other.cache, other.parties[0].level) == (NONE, L2)


def test_a_case_is_not_answered_with_another_request(parties: Parties) -> None:
    """The same case id with other features is another request."""
    parties.guest.predict(service="s", case_id="c-3", user_id="0001", numbers=CASE)
    changed = {"a": 3.0, "b": 1.0}
    reply = parties.guest.predict(service="s", case_id="c-3", user_id="0001", numbers=changed)
    assert reply.cache == NONE
    assert reply.score[0] == pytest.approx(expected("0001", changed), abs=1e-12)


def test_a_batch_is_row_by_row_what_single_calls_are(parties: Parties) -> None:
    users = ["0002", "nobody", "0001"]
    rows = [{"a": 0.1, "b": 0.2}, {"a": 0.3, "b": 0.4}, {"a": 0.5, "b": 0.6}]
    numbers = {name: wire.NumberColumn(values=[row[name] for row in rows]) for name in ("a", "b")}
    reply = parties.guest.batch(service="s", user_ids=users, numbers=numbers)
    singles = [parties.guest.predict(service="s", user_id=users[row], numbers=rows[row]).score[0] for row in (0, 2)]
    assert [reply.scores[0], reply.scores[2]] == singles
    assert math.isnan(reply.scores[1])
    assert reply.statuses == bytes([0, wire.PARTY_STATUS_NOT_FOUND, 0])
    assert reply.parties[0].statuses == reply.statuses


@pytest.mark.parametrize(
    ("fields", "code", "text"),
    [
        ({"service": "nobody"}, Code.NOT_FOUND, "nobody"),
        ({"model": "m", "version": "9"}, Code.NOT_FOUND, "m/9"),
        ({"model": "m"}, Code.INVALID_ARGUMENT, "'m' without a version"),
        ({}, Code.INVALID_ARGUMENT, "default service"),
        ({"service": "s", "numbers": {"a": 1.0}}, Code.INVALID_ARGUMENT, "'b'"),
        ({"service": "s", "numbers": {**CASE, "c": 1.0}}, Code.INVALID_ARGUMENT, "'c'"),
        ({"service": "s", "numbers": {**CASE, "a": math.nan}}, Code.INVALID_ARGUMENT, "'a'"),
        ({"service": "s", "numbers": {**CASE, "a": math.inf}}, Code.INVALID_ARGUMENT, "'a'"),
        ({"service": "s", "numbers": CASE, "texts": {"a": "1"}}, Code.INVALID_ARGUMENT, "'a'"),
        ({"service": "s", "user_id": ""}, Code.INVALID_ARGUMENT, "user_id"),
        ({"service": "s", "user_id": "nobody"}, Code.FAILED_PRECONDITION, "'shop'"),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(
    parties: Parties, fields: dict[str, object], code: Code, text: str
) -> None:
    error = refused(parties.guest.predict, **{"user_id": "0001", "numbers": CASE, **fields})
    assert error.code is code
    assert text in error.details


def test_garbage_is_refused(parties: Parties) -> None:
    async def ask(link: object) -> bytes:
        return await link.unary("/tessera.v1.Inference/Predict", b"\xff\xff\xff", 5)  # type: ignore[attr-defined]

    error = refused(parties.guest.call, "service", ask)
    assert error.code is Code.INVALID_ARGUMENT
    assert "PredictRequest" in error.details


def test_an_oversized_message_is_refused(parties: Parties) -> None:
    error = refused(parties.guest.predict, service="s", user_id="0001", numbers=CASE, texts={"t": "x" * (5 << 20)})
    assert error.code is Code.RESOURCE_EXHAUSTED
    assert parties.guest.predict(service="s", user_id="0001", numbers=CASE).complete


def test_too_many_rows_are_refused(parties: Parties) -> None:
    error = refused(parties.guest.batch, service="s", user_ids=["0001"] * 1_001)
    assert error.code is Code.RESOURCE_EXHAUSTED
    assert "1000" in error.details


def test_loading_again_changes_nothing(parties: Parties) -> None:
    reply = parties.guest.load("m", "1")
    assert {(item.party, item.state) for item in reply.replicas} == {("bank", 1), ("shop", 1)}


def test_an_unknown_version_does_not_load(parties: Parties) -> None:
    error = refused(parties.guest.load, "m", "77")
    assert error.code is Code.NOT_FOUND
    assert "77" in error.details


def test_raw_ids_stay_out_of_the_logs(parties: Parties) -> None:
    refused(parties.guest.predict, service="s", user_id="secret-person", numbers=CASE)
    parties.guest.predict(service="s", user_id="0001", numbers=CASE)
    for node in (parties.guest, parties.host):
        assert "secret-person" not in node.log
        assert "0001" not in node.log


def test_the_scorecard_app_turns_probabilities_into_points(parties: Parties) -> None:
    parties.guest.online("card", "m", "1", app="scorecard")
    reply = parties.guest.predict(service="card", user_id="0002", numbers=CASE)
    probability = expected("0002")
    points = 500 + 20 / math.log(2) * math.log((1 - probability) / probability)
    assert reply.score[0] == pytest.approx(points, abs=0.01)
    error = refused(parties.guest.online, "card", "m", "1", 1, app="scorecard", app_parameters='{"ofset": 1}')
    assert error.code in {Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION}
    assert "ofset" in error.details


def test_a_version_missing_at_the_host_does_not_go_online(parties: Parties) -> None:
    parties.pair(model="missing")
    parties.guest.load("missing", "1")
    parties.host.admin("Unload", admin.UnloadRequest(model="missing", version="1"))
    error = refused(parties.guest.online, "missing", "missing", "1")
    assert error.code is Code.FAILED_PRECONDITION
    assert "shop" in error.details


def test_a_half_that_is_absent_at_the_host_is_named(parties: Parties) -> None:
    parties.pair(model="absent")
    shutil.rmtree(parties.host.registry / "absent")
    reply = parties.guest.load("absent", "1")
    states = {item.party: (item.state, item.reason) for item in reply.replicas}
    assert states["bank"][0] == 0
    assert states["shop"][0] == 2
    assert "absent" in states["shop"][1]


def test_a_flipped_byte_is_refused(parties: Parties) -> None:
    parties.pair(model="flipped")
    weights = next((parties.guest.registry / "flipped").rglob("weights.npy"))
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.chmod(0o644)
    weights.write_bytes(raw)
    error = refused(parties.guest.load, "flipped", "1")
    assert error.code is Code.FAILED_PRECONDITION
    assert "weights.npy" in error.details
    assert str(parties.guest.registry) not in error.details


def test_halves_of_different_bindings_do_not_go_online(parties: Parties, tmp_path: Path) -> None:
    """The host holds another model under the same name and version."""
    parties.pair(model="other")
    shutil.rmtree(parties.host.registry / "other")
    make_bound_pair(
        tmp_path / "elsewhere",
        parties.host.registry,
        model="other",
        version="1",
        guest="bank",
        host="shop",
        guest_weights={"a": 9.0},
        host_weights={"x": 9.0},
        intercept=0.0,
    )
    reply = parties.guest.load("other", "1")
    assert {item.party: item.state for item in reply.replicas}["shop"] == 2
    error = refused(parties.guest.online, "other", "other", "1")
    assert error.code is Code.FAILED_PRECONDITION
    assert "shop" in error.details


def test_a_host_without_the_features_does_not_count_as_loaded(parties: Parties) -> None:
    make_bound_pair(
        parties.guest.registry,
        parties.host.registry,
        model="z",
        version="1",
        guest="bank",
        host="shop",
        guest_weights={"a": 1.0},
        host_weights={"x": 1.0, "z": 1.0},
        intercept=0.0,
    )
    reply = parties.guest.load("z", "1")
    [failed] = [one for one in reply.replicas if one.party == "shop"]
    assert failed.state == federation.LOAD_STATE_FAILED
    assert failed.reason == "z/1 has no source for its features here; the log there says why"
    assert "has no column 'z'" in parties.host.log
    error = refused(parties.guest.online, "z", "z", "1")
    assert error.code is Code.FAILED_PRECONDITION
    assert "'shop'" in error.details


def test_every_change_is_in_the_audit_log(parties: Parties) -> None:
    guest = parties.guest
    log = guest.folder / "state" / "audit.log"
    before = len(log.read_text().splitlines())
    parties.online("audited")
    assert refused(guest.online, "audited", "audited", "1", revision=7).code is Code.FAILED_PRECONDITION
    lines = [json.loads(line) for line in log.read_text().splitlines()[before:]]
    told = [(line["what"], line["subject"], line["event"]) for line in lines]
    assert told == [
        ("PublishLoad", "audited/1", "asked"),
        ("PublishLoad", "audited/1", "done"),
        ("PublishOnline", "audited", "asked"),
        ("PublishOnline", "audited", "done"),
        ("PublishOnline", "audited", "asked"),
        ("PublishOnline", "audited", "refused"),
    ]
    assert lines[3]["state"]["current"]["variants"][0]["version"] == "1"
    assert all(line["who"].startswith("ipv4:127.0.0.1:") for line in lines)


def test_scores_do_not_depend_on_the_batch(parties: Parties) -> None:
    values = np.linspace(-3, 3, 50)
    numbers = {"a": wire.NumberColumn(values=values), "b": wire.NumberColumn(values=values[::-1])}
    whole = parties.guest.batch(service="s", user_ids=["0001"] * 50, numbers=numbers)
    for row in (0, 17, 49):
        single = parties.guest.predict(service="s", user_id="0001", numbers={"a": values[row], "b": values[::-1][row]})
        assert whole.scores[row] == single.score[0]


def until_ok(node: PartyNode, timeout_s: float = 20, **fields: object) -> wire.PredictReply:
    """Ask until the node answers; for what comes back by itself."""

    async def waited() -> None:
        await asyncio.sleep(0.05)

    for _ in range(int(timeout_s / 0.05)):
        try:
            return node.predict(**fields)
        except (RpcError, KeyError):
            asyncio.run(waited())
    return node.predict(**fields)


def test_a_host_that_is_down_is_named_and_comes_back(own_parties: Parties) -> None:
    own_parties.online("down")
    guest = own_parties.guest
    ask = {"service": "down", "numbers": CASE}
    guest.predict(user_id="0001", **ask)
    own_parties.host.stop()
    error = refused(guest.predict, user_id="0002", **ask)
    assert error.code is Code.UNAVAILABLE
    assert "'shop'" in error.details
    assert guest.predict(user_id="0001", **ask).parties[0].level == L2
    own_parties.host.start()
    assert until_ok(guest, user_id="0002", **ask).score[0] == pytest.approx(expected("0002"), abs=1e-12)


def test_a_host_that_stalls_costs_the_deadline_and_no_more(own_parties: Parties) -> None:
    own_parties.online("stalled")
    guest = own_parties.guest
    worker = own_parties.host.worker()
    worker.suspend()
    try:
        error = refused(guest.predict, service="stalled", user_id="0001", numbers=CASE)
    finally:
        worker.resume()
    assert error.code is Code.UNAVAILABLE
    assert "timeout" in error.details
    assert until_ok(guest, service="stalled", user_id="0001", numbers=CASE).complete


def test_everything_is_there_after_a_restart(own_parties: Parties) -> None:
    own_parties.online("restarted")
    guest = own_parties.guest
    guest.predict(service="restarted", user_id="0001", numbers=CASE)
    assert guest.stop() == 0
    guest.start()
    reply = guest.predict(service="restarted", user_id="0001", numbers=CASE)
    assert reply.parties[0].level == L3
    assert reply.score[0] == pytest.approx(expected("0001"), abs=1e-12)


def test_a_killed_worker_comes_back_with_its_models(own_parties: Parties) -> None:
    own_parties.online("killed")
    guest = own_parties.guest
    guest.predict(service="killed", user_id="0003", numbers=CASE)
    worker = guest.worker()
    worker.send_signal(signal.SIGKILL)
    worker.wait(10)
    reply = until_ok(guest, service="killed", user_id="0003", numbers=CASE)
    assert reply.parties[0].level == L3


def test_a_model_that_no_longer_loads_is_reported_and_the_rest_serves(own_parties: Parties) -> None:
    guest = own_parties.guest
    for model in ("kept", "gone"):
        own_parties.online(model)
    guest.stop()
    shutil.rmtree(guest.registry / "gone")
    guest.start()
    assert guest.predict(model="kept", user_id="0001", numbers=CASE).complete
    error = refused(guest.predict, model="gone", user_id="0001", numbers=CASE)
    assert error.code in {Code.NOT_FOUND, Code.UNAVAILABLE}


def test_the_node_answers_without_its_cache_server(own_parties: Parties) -> None:
    own_parties.online("uncached")
    guest = own_parties.guest
    guest.cache_server().kill()
    reply = guest.predict(service="uncached", user_id="0001", numbers=CASE)
    assert reply.score[0] == pytest.approx(expected("0001"), abs=1e-12)
    assert reply.parties[0].level == NONE


def test_a_local_onnx_model_needs_no_host(own_parties: Parties) -> None:
    guest = own_parties.guest
    make_onnx(guest.registry, model="local", version="1", party="bank")
    own_parties.host.stop()
    guest.load("local", "1")
    guest.online("local", "local", "1")
    reply = guest.predict(model="local", numbers={"a": 1.0, "b": 2.0})
    assert len(reply.score) == 1
    assert not reply.parties
