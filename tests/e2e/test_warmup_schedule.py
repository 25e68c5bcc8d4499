"""The service's own warm-up, in real processes: one runs it, is killed, and another goes on from the cursor."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from serving.activity import DAY_S, IdSeal
from serving.activity_store import RedisActivityStore
from tests.artifacts import make_bound_pair
from tests.nodes import PartyNode
from tests.redis_server import DURABLE, redis_server

pytestmark = pytest.mark.usefixtures("untraced")

USERS, BATCH, USERS_PER_S = 400, 20, 50
SECRET = b"s" * 32
WEIGHTS: dict[str, Any] = {"guest_weights": {"a": 0.5}, "host_weights": {"x": 1.0}, "intercept": 0.125}

Kept = tuple[str, dict[str, Any]]
"""Who has the lease, and the run as it is noted."""


class Parties:
    """A host, a guest of one or more nodes, and the cache that these share. Users were active before `due`."""

    def __init__(self, folder: Path, cache: str) -> None:
        self.folder = folder
        self.host = PartyNode(
            folder,
            "shop",
            "plaintext_caller = 'bank'\npeers.bank = {may_load = ['*'], purposes = ['infer', 'warmup']}\n"
            "features.default = {kind = 'file', path = 'users.csv'}\ncache.embedded = false",
        )
        (self.host.folder / "users.csv").write_text("id,x\n" + "".join(f"{n:04d},{n}\n" for n in range(USERS)))
        self.registry = folder / "registry"
        make_bound_pair(self.registry, self.host.registry, model="m", version="1", guest="bank", host="shop", **WEIGHTS)
        self.secret = folder / "secret"
        self.secret.write_bytes(SECRET)
        self.secret.chmod(0o600)
        self.cache = cache
        self.due = int(time.time()) // 60 * 60 - 60
        self.guests: list[PartyNode] = []

    def guest(self, name: str, top: str) -> PartyNode:
        """Its services are online; its schedule is that of `schedule`, once it is started anew."""
        settings = (
            f"{top}\npeers.shop.address = '127.0.0.1:{self.host.party_port}'\n"
            f"cache = {{url = '{self.cache}', secret_file = '{self.secret}'}}\nlimits.max_batch_rows = {BATCH}\n"
        )
        node = PartyNode(self.folder / name, "bank", settings)
        node.registry.rmdir()
        node.registry.symlink_to(self.registry)
        node.start()
        self.guests.append(node)
        return node

    def schedule(self) -> None:
        at = time.gmtime(self.due)
        cron = f"{at.tm_min} {at.tm_hour} * * *"
        for node in self.guests:
            node.stop()
            text = node.config.read_text()
            warmup = f"warmup = {{schedule = '{cron}', share = 1.0, users_per_s = {USERS_PER_S}}}\n"
            node.config.write_text(text.replace("[ports]", f"{warmup}[ports]"))
        for node in self.guests:
            node.launch()
        for node in self.guests:
            node.wait_until_serving()

    def count_activity(self) -> None:
        async def add() -> None:
            store, seal = RedisActivityStore(self.cache, "bank", 0, 10 * USERS), IdSeal(SECRET, "bank")
            counted = [("s", seal.seal(f"{n:04d}"), USERS - n) for n in range(USERS)]
            await store.add(self.due // DAY_S - 1, counted)
            await store.close()

        asyncio.run(add())

    def stop(self) -> None:
        for node in (*self.guests, self.host):
            node.stop()


@pytest.fixture
def parties(tmp_path: Path) -> Iterator[Parties]:
    (tmp_path / "cache").mkdir()
    with redis_server(tmp_path / "cache") as cache:
        made = Parties(tmp_path, cache)
        try:
            made.host.start()
            yield made
        finally:
            made.stop()


def once(what: Callable[[], Any], timeout_s: float = 30.0) -> Any:
    """The first true value."""
    end = time.monotonic() + timeout_s
    while not (value := what()):
        assert time.monotonic() < end, f"nothing came of {what}"
        time.sleep(0.02)
    return value


def progress(kept: Kept) -> dict[str, Any]:
    found: dict[str, Any] = kept[1].get("services", {}).get("s", {}).get("progress", {})
    return found


def metric(node: PartyNode, name: str) -> list[float]:
    """Of every worker."""
    lines = node.http("GET", "/metrics").text.splitlines()
    return [float(line.rpartition(" ")[2]) for line in lines if line.startswith(name) and "#" not in line]


def gone_on_with(look: Callable[[], Kept], kill: Callable[[int], None]) -> tuple[str, str, dict[str, Any]]:
    """Kills the one that runs it, in the middle; who that was, who ended it, and what it came to."""
    runner, _ = kept = once(lambda: found if progress(found := look()).get("done", 0) >= 3 * BATCH else None)
    kill(int(kept[0].rpartition("(")[2].rstrip(")")))
    done = progress(look())["done"]
    assert done < USERS, "it was killed in the middle"
    other, run = once(lambda: found if (found := look())[1]["ended_s"] else None)
    return runner, other, {**run, "done_before": done}


def check(run: dict[str, Any]) -> None:
    """Everybody was fetched once: only the batch that was on its way when it was killed was there already."""
    [service] = run["services"].values()
    came = service["progress"]
    assert (service["planned"], came["done"], came["stopped"]) == (USERS, USERS, "")
    assert came["fetched"] + came["cached"] == USERS
    assert came["cached"] <= BATCH


@pytest.mark.soak
def test_of_three_workers_one_runs_it_and_another_goes_on(parties: Parties) -> None:
    node = parties.guest("node", "workers = 3\nreplica = 'here'")
    node.load("m", "1")
    node.online("s", "m", "1")
    parties.count_activity()
    parties.schedule()
    path = node.folder / "state" / "leases" / "warmup.json"

    def look() -> Kept:
        kept = json.loads(path.read_text()) if path.exists() else {"holder": "", "notes": ""}
        return kept["holder"], json.loads(base64.b64decode(kept["notes"]) or b"{}")

    def kill(process: int) -> None:
        once(lambda: len(running := metric(node, "tessera_warmup_running")) == 3 and sum(running) == 1, 10)
        os.kill(process, signal.SIGKILL)

    runner, other, run = gone_on_with(look, kill)
    assert runner != other
    check(run)
    node.wait_until_serving()
    once(lambda: max(metric(node, "tessera_warmup_last_run_fetched_users"), default=0) >= USERS - BATCH)
    assert "warm-up goes on where another run of it ended" in node.log


def test_of_two_nodes_the_other_goes_on(parties: Parties, tmp_path: Path) -> None:
    (tmp_path / "control").mkdir()
    with redis_server(tmp_path / "control", **DURABLE) as url:
        nodes = {name: parties.guest(name, f"replica = '{name}'\ncontrol.url = '{url}'") for name in ("one", "two")}
        nodes["one"].load("m", "1")
        nodes["one"].online("s", "m", "1")
        parties.count_activity()
        parties.schedule()

        def look() -> Kept:
            with redis.Redis.from_url(url) as server:
                kept = server.hgetall("tessera:control:bank:lease:warmup")
            return kept.get(b"holder", b"").decode(), json.loads(kept.get(b"notes", b"{}"))

        def kill(worker: int) -> None:
            supervisor = next(node.process for node in nodes.values() if node.process and node.worker().pid == worker)
            supervisor.kill()
            supervisor.wait(10)

        runner, other, run = gone_on_with(look, kill)
        assert runner.partition(" ")[0] != other.partition(" ")[0] == run["by"]
        check(run)
        survivor = nodes[run["by"]]
        [asked] = metric(survivor, 'tessera_warmup_users_total{outcome="fetched"}')
        assert asked <= USERS - run["done_before"], "it went on from the cursor"
