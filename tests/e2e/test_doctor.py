"""`tessera doctor` over real nodes: well, and with one thing wrong at a time."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from serving.commands.doctor import doctor
from tests.e2e.test_two_parties import Parties
from tests.nodes import PartyNode, free_port
from tests.redis_server import DURABLE, redis_server

pytestmark = pytest.mark.usefixtures("transport")


@pytest.fixture
def parties(tmp_path: Path) -> Iterator[Parties]:
    both = Parties(tmp_path)
    both.pair()
    try:
        yield both
    finally:
        both.stop()


@pytest.fixture(scope="module")
def online(transport: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parties]:
    """Nodes that tests share and leave as they were, with a model online."""
    both = Parties(tmp_path_factory.mktemp("online"))
    try:
        both.start()
        both.online("m")
        yield both
    finally:
        both.stop()


@contextlib.contextmanager
def kept(path: Path) -> Iterator[Path]:
    """What is in the file is there afterwards."""
    before = path.read_bytes()
    try:
        yield path
    finally:
        path.write_bytes(before)


def restart(node: PartyNode) -> None:
    node.stop()
    node.start()


def findings(node: PartyNode, level: str = "") -> list[str]:
    """`subject: text` of every finding, or of those of one level."""
    done = CliRunner().invoke(doctor, ["--config", str(node.config), "--json"])
    assert isinstance(done.exception, SystemExit | None), done.exception
    found = json.loads(done.stdout)
    errors = [one for one in found if one["level"] == "error"]
    assert done.exit_code == bool(errors), done.output
    return [f"{one['subject']}: {one['text']}" for one in found if not level or one["level"] == level]


def test_two_nodes_that_are_well(online: Parties) -> None:
    assert findings(online.guest, "error") == findings(online.host, "error") == []
    well = findings(online.guest, "ok")
    assert "peers.shop: model m/1 is ready there" in well
    assert any(one.startswith("ports.service: 127.0.0.1:") and one.endswith(" answers") for one in well)
    assert any(one.startswith("peers.shop: clocks agree within") for one in well)
    assert any("takes us for 'bank'" in one for one in well)


def test_a_host_that_is_down(online: Parties) -> None:
    online.host.stop()
    [error] = findings(online.guest, "error")
    assert error.startswith("peers.shop: does not answer at its address")
    online.host.start()


def test_features_that_have_gone(online: Parties) -> None:
    with kept(online.host.folder / "users.csv") as features:
        features.write_text("id,x\n0001,1\n")
        restart(online.host)
        [error] = findings(online.guest, "error")
        assert "has no source for its features there" in error
        features.unlink()
        assert any(one.startswith("features.default: feature file") for one in findings(online.host, "error"))
    restart(online.host)


def test_a_half_that_was_changed(online: Parties) -> None:
    [weights] = (online.guest.registry / "m" / "1").glob("*/weights.npy")
    with kept(weights):
        weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
        [error] = findings(online.guest, "error")
    assert error.startswith("model m/1: ")
    assert "is corrupt" in error


def test_a_party_that_does_not_know_us(parties: Parties) -> None:
    parties.host.write("[features.default]\npath = 'users.csv'\n")
    online_host = parties.host
    online_host.start()
    [error] = findings(parties.guest, "error")
    assert error.startswith("peers.shop: does not take us for a party it knows")


def test_a_node_that_is_not_running(parties: Parties) -> None:
    with socket.create_server(("127.0.0.1", parties.host.party_port)):
        [error] = findings(parties.host, "error")
    assert error == f"ports.party: cannot bind 127.0.0.1:{parties.host.party_port}: Address already in use"
    assert any("is free; no node runs" in one for one in findings(parties.host, "ok"))
    assert not (parties.host.folder / "state").exists()


def test_a_policy_that_a_model_has_nothing_for(online: Parties) -> None:
    with kept(online.guest.config) as config:
        config.write_text(config.read_text() + "[fallbacks.m]\npolicy = 'partial'\n")
        warnings = findings(online.guest, "warning")
    assert "service m: policy partial is fail for m/1: its artifact declares no mean partial of 'shop'" in warnings


def test_a_version_that_the_host_has_lost(online: Parties) -> None:
    online.host.stop()
    shutil.rmtree(online.host.folder / "state")
    online.host.start()
    [error] = findings(online.guest, "error")
    assert error == "peers.shop: model m/1 is not loaded there: `tessera model load` it"
    online.guest.load("m", "1")


def test_settings_that_are_wrong(parties: Parties) -> None:
    parties.guest.write("transprt = 'native'\n[cache]\nurl = 'redis://127.0.0.1:1'\n")
    errors = findings(parties.guest, "error")
    assert [one.partition(":")[0] for one in errors] == ["settings"]
    parties.guest.write("[cache]\nurl = 'redis://127.0.0.1:1'\n")
    assert "cache.url: does not answer: ConnectionError; L3 is off until it does" in findings(parties.guest, "error")


def test_a_second_address_that_does_not_answer(parties: Parties) -> None:
    first, second = (f"127.0.0.1:{port}" for port in (parties.host.party_port, free_port()))
    parties.guest.write(f"[peers.shop]\naddress = '{first}'\nhedge_address = '{second}'\n")
    parties.host.start()
    [error] = findings(parties.guest, "error")
    assert error.startswith("peers.shop.hedge_address: does not answer at its address")
    assert any(one.startswith("peers.shop: answers in") for one in findings(parties.guest, "ok"))


def test_a_control_store_that_is_well_may_lose_state_or_is_gone(parties: Parties, tmp_path: Path) -> None:
    lossy = {**DURABLE, "maxmemory-policy": "allkeys-lru", "appendfsync": "everysec"}
    for name, options in (("well", DURABLE), ("lossy", lossy)):
        folder = tmp_path / name
        folder.mkdir()
        with redis_server(folder, **options) as url:
            parties.host.write(
                f"[control]\nurl = '{url}'\n[cache]\nembedded = false\n[features.m]\npath = 'users.csv'\n"
            )
            errors, well = findings(parties.host, "error"), findings(parties.host, "ok")
        assert any(one.startswith("control.url: clocks agree within") for one in well)
        wanted = "may lose state, nodes refuse it; set maxmemory-policy noeviction, appendfsync always"
        assert errors == ([] if name == "well" else [f"control.url: {wanted}"])
    [error] = findings(parties.host, "error")
    assert error.startswith("control.url: does not answer: ConnectionError; changes are refused")


def test_people_read_lines(parties: Parties) -> None:
    done = CliRunner().invoke(doctor, ["--config", str(parties.guest.config), "--quiet"])
    assert done.exit_code == 1
    assert [line.split()[0] for line in done.output.splitlines()] == ["warning", "error"]
