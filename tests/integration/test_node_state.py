"""What a node has acknowledged is there after whatever happens to it."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.pool import ModelId
from serving.transport import Code, RpcError
from tessera.v1 import admin_pb2 as wire
from tessera.v1.federation_pb2 import LOAD_STATE_FAILED
from tests.nodes import PartyNode, free_port
from tests.unit.serving.halves import publish

pytestmark = pytest.mark.usefixtures("transport")

V1, V2 = ModelId("m", "1"), ModelId("m", "2")


@pytest.fixture
def bank(tmp_path: Path) -> Iterator[PartyNode]:
    """A guest without hosts, not started; V1 and V2 in its registry."""
    node = PartyNode(tmp_path, "bank", "[cache]\nembedded = false\n")
    for model in (V1, V2):
        publish({"bank": node.registry}, model)
    yield node
    node.stop()


def services(node: PartyNode) -> dict[str, tuple[int, str]]:
    reply = node.admin("ListServices", wire.ListServicesRequest())
    return {item.service: (item.revision, item.variants[0].version) for item in reply.services}


def test_a_killed_worker_forgets_no_acknowledged_change(bank: PartyNode) -> None:
    bank.start()
    for model in (V1, V2):
        bank.load(model.model, model.version)
    for revision in range(2):
        version = str(revision % 2 + 1)
        bank.online("s", "m", version, revision)
        worker = bank.worker()
        worker.send_signal(signal.SIGKILL)
        worker.wait(10)
        bank.wait_until_serving()
        assert services(bank) == {"s": (revision + 1, version)}
    assert bank.predict(service="s", numbers={"x": 0.0}).version == "2"


def test_a_corrupt_snapshot_is_one_line_that_says_what_to_do(bank: PartyNode) -> None:
    bank.start()
    bank.load("m", "1")
    bank.online("s", "m", "1")
    bank.stop()
    state = bank.folder / "state"
    snapshot = state / "state.json"
    intact = snapshot.read_bytes()
    snapshot.write_bytes(intact.replace(b'"weight":10000', b'"weight":10001'))
    (bank.folder / "log").unlink()
    bank.launch()
    assert bank.process.wait(timeout=20) == 2
    [line] = [line for line in bank.log.splitlines() if "corrupt" in line]
    assert line.startswith(f"tessera: {snapshot} is corrupt. Restore it from a backup, or move state.previous.json")
    assert "Traceback" not in bank.log

    (state / "state.previous.json").replace(snapshot)
    bank.start()
    models = bank.admin("ListModels", wire.ListModelsRequest()).models
    assert [(item.version, item.state) for item in models] == [("1", "READY")]


def test_a_full_disk_refuses_the_change_and_the_node_serves_on(bank: PartyNode) -> None:
    bank.start()
    for model in (V1, V2):
        bank.load(model.model, model.version)
    bank.online("s", "m", "1")
    (bank.folder / "state" / "state.draft").symlink_to("/dev/full")
    with pytest.raises(RpcError) as refused:
        bank.online("s", "m", "2", 1)
    assert refused.value.code is Code.UNAVAILABLE
    assert refused.value.details == "the change is not kept: No space left on device"
    assert "No space left on device" in bank.log
    assert bank.predict(service="s", numbers={"x": 0.0}).version == "1"
    bank.online("s", "m", "2", 1)
    assert bank.predict(service="s", numbers={"x": 0.0}).version == "2"


def test_holds_outlive_restarts_on_both_sides(tmp_path: Path) -> None:
    port = free_port()
    cache = "[cache]\nembedded = false\n"
    features = tmp_path / "features.csv"
    features.write_text("id,x\nu1,1.0\n")
    source = f"[features.m]\npath = '{features}'\n"
    allows = "plaintext_caller = 'bank'\n[peers.bank]\nmay_load = ['m']\n"
    shop = PartyNode(tmp_path, "shop", f"{allows}{source}{cache}", port)
    bank = PartyNode(tmp_path, "bank", f"[peers.shop]\naddress = '127.0.0.1:{port}'\n{cache}")
    publish({"bank": bank.registry, "shop": shop.registry}, V1)
    unload = wire.UnloadRequest(model="m", version="1")
    try:
        for node in (shop, bank):
            node.start()
        bank.load("m", "1")
        bank.online("s", "m", "1")
        shop.stop()
        shop.start()
        with pytest.raises(RpcError, match=r"needed by party 'bank' \(service 's'\)"):
            shop.admin("Unload", unload)
        (shop.folder / "state" / "state.json").unlink()
        shop.stop()
        shop.start()  # it has forgotten everything
        assert not shop.admin("ListModels", wire.ListModelsRequest()).models
        end = time.monotonic() + 20
        while any(one.state == LOAD_STATE_FAILED for one in bank.load("m", "1").replicas):
            assert time.monotonic() < end  # until the guest tries the host's address again
        bank.stop()
        bank.start()  # takes its holds again, once it serves
        end = time.monotonic() + 20
        while not shop.admin("ListModels", wire.ListModelsRequest()).models[0].held_by:
            assert time.monotonic() < end
    finally:
        bank.stop()
        shop.stop()


def test_a_registry_behind_a_url_is_brought_and_outlives_it(bank: PartyNode) -> None:
    settings = bank.config.read_text()
    bank.config.write_text(settings.replace("registry = 'registry'", f"registry = 'file://{bank.registry}'"))
    bank.start()
    bank.load("m", "1")
    bank.online("s", "m", "1")
    bank.stop()
    bank.registry.rename(bank.folder / "gone")
    bank.start()
    assert bank.predict(service="s", numbers={"x": 0.0}).version == "1"
    with pytest.raises(RpcError, match="no half of m/2"):
        bank.load("m", "2")
    bank.stop()
    bank.config.write_text(bank.config.read_text().replace("file://", "s3://"))
    bank.launch()
    assert bank.process is not None
    assert bank.process.wait(timeout=20) == 2
    assert "registry: has protocol 's3'; artifacts.protocols allows file" in bank.log
