"""SIGKILL at named steps of every state change, and at random times: what was acknowledged is there, and it starts."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from serving.cache.keys import load_secret
from serving.control import FileControlStore, State
from serving.control_redis import RedisControlStore
from serving.figures.sqlite import SqliteFigureStore
from serving.pool import ModelId
from serving.transport import RpcError
from tessera.v1 import admin_pb2 as wire
from tests.app_sources import store, times
from tests.dying import arm
from tests.forking import Forked, ForkServer, fork_server
from tests.integration.dying_writer import SUBJECT
from tests.nodes import ROOT, PartyNode
from tests.redis_server import DURABLE, redis_server, url_of
from tests.unit.serving.halves import publish

V1, V2 = ModelId("m", "1"), ModelId("m", "2")
BEFORE, AFTER = False, True
POINTS = {
    "open state.draft": BEFORE,
    "sync state.draft": BEFORE,
    "rename state.draft": BEFORE,
    "sync state": AFTER,
    "": AFTER,
}
"""Before it is written; written; safe under its other name; in place, the folder not yet safe; acknowledged."""
ENVIRON = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/proto"}
ENVIRON.pop("COVERAGE_PROCESS_CONFIG", None)  # what is killed leaves no figures of coverage


@pytest.fixture(scope="module")
def writers() -> Iterator[ForkServer]:
    with fork_server("tests.integration.dying_writer", ENVIRON) as server:
        yield server


class Writer:
    """Processes of dying_writer.py in a folder, one after the other."""

    def __init__(self, writers: ForkServer, kind: str, folder: Path) -> None:
        self._writers, self._kind, self._folder = writers, kind, folder
        folder.mkdir(exist_ok=True)
        self._said = folder.with_suffix(".said")

    def start(self, dies_at: int) -> Forked:
        self._said.write_text("")
        return self._writers.start(self._kind, str(self._folder), str(dies_at), output=self._said)

    def said(self) -> list[str]:
        """Whole lines."""
        return [line.rstrip("\n") for line in self._said.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def steps(self) -> list[str]:
        """Of a change that is left alone."""
        assert self.start(-1).wait(20) == 0, self.said()
        acknowledgement, *steps = self.said()
        assert acknowledgement.startswith("acknowledged ")
        return steps

    def killed_at(self, step: int) -> None:
        assert self.start(step).wait(20) == -signal.SIGKILL


@pytest.mark.parametrize("kind", ["control", "kept"])
def test_at_every_step_of_a_change_of_the_state(writers: ForkServer, tmp_path: Path, kind: str) -> None:
    writer = Writer(writers, kind, tmp_path)
    writer.steps()
    steps = writer.steps()
    assert steps.index("synced state.draft") < steps.index("rename state.draft")
    assert steps[-1] == f"synced {tmp_path.name}"
    replaced = steps.index("rename state.draft") + 1
    for step in range(len(steps)):
        before = FileControlStore(tmp_path).read().revision
        writer.killed_at(step)
        assert FileControlStore(tmp_path).read().revision == before + (step >= replaced), steps[step]
    acknowledged = FileControlStore(tmp_path).compare_and_set(before + 1, State(default_service="after all that"))
    assert FileControlStore(tmp_path).read() == acknowledged


def test_at_every_step_of_a_change_that_replicas_share(writers: ForkServer, tmp_path: Path) -> None:
    """Once the server has it, it is done; what the replica keeps by itself follows at its next start."""

    def restarted() -> int:
        store = RedisControlStore(url_of(tmp_path), "bank", FileControlStore(tmp_path / "state"))
        store.close()
        assert FileControlStore(tmp_path / "state").read() == store.read()
        return store.read().revision

    with redis_server(tmp_path, **DURABLE):
        writer = Writer(writers, "shared", tmp_path)
        writer.steps()
        steps = writer.steps()
        stored = steps.index("open state.lock")
        assert "rename state.draft" in steps[stored:]
        for step in range(len(steps)):
            before = restarted()
            writer.killed_at(step)
            assert restarted() == before + (step >= stored), steps[step]


def test_at_every_step_of_making_the_secret(writers: ForkServer, tmp_path: Path) -> None:
    """Once a process has used it, it stays; a mode that others can read would be refused."""
    steps = Writer(writers, "secret", tmp_path / "whole").steps()
    for step, name in enumerate(steps):
        folder = tmp_path / str(step)
        Writer(writers, "secret", folder).killed_at(step)
        in_place = folder / "cache.secret"
        found = in_place.read_bytes() if in_place.exists() else None
        assert (found is not None) is (step > steps.index(next(one for one in steps if one.startswith("link")))), name
        assert load_secret(in_place) == (found or load_secret(in_place))


def test_at_every_step_of_an_audited_change(writers: ForkServer, tmp_path: Path) -> None:
    """Whole lines; a change without an end was cut off."""
    writer = Writer(writers, "audit", tmp_path)
    steps = writer.steps()
    for step in range(len(steps)):
        writer.killed_at(step)
    log = (tmp_path / "audit.log").read_text()
    assert log.endswith("\n")
    assert log.count('"event":"asked"') == len(steps)  # all but the one that died before it had a file, and the first
    assert log.count('"event":"done"') == 3


def kill_feedback(writers: ForkServer, folder: Path, after: int) -> None:
    """SIGKILL when so many outcomes, or a few more, were acknowledged; then counts them."""
    writer = Writer(writers, "feedback", folder)
    process = writer.start(-1)
    while len(writer.said()) < after:
        assert process.poll() is None, writer.said()
    process.kill()
    assert process.wait(20) == -signal.SIGKILL
    acknowledged = len(writer.said())
    store = SqliteFigureStore(folder)
    counted = sum(store.read()[SUBJECT].values())
    store.close()
    assert acknowledged <= counted <= acknowledged + 1


def test_while_outcomes_are_taken(writers: ForkServer, tmp_path: Path) -> None:
    for after in (1, 3):
        kill_feedback(writers, tmp_path / str(after), after)


@pytest.mark.soak
def test_while_outcomes_are_taken_again_and_again(writers: ForkServer, tmp_path: Path) -> None:
    for turn in range(100):
        kill_feedback(writers, tmp_path / str(turn), turn % 17 + 1)


class DyingNode(PartyNode):
    """A worker without its supervisor, which would make the pauses between starts longer and longer."""

    def __init__(self, forks: ForkServer, folder: Path) -> None:
        digest = store(folder / "apps", "1", times(2.0))
        apps = f"[apps]\nroot = '{folder / 'apps'}'\nallowed = ['{digest}']\n"
        super().__init__(folder, "bank", f"[cache]\nembedded = false\n{apps}")
        self._forks = forks

    def launch(self) -> None:
        self.process = self._forks.start(str(self.config), output=self.folder / "log")

    def died(self) -> None:
        assert self.process is not None
        assert self.process.wait(20) == -signal.SIGKILL
        (self.folder / "state" / "ports.json").unlink()  # its supervisor would


@pytest.fixture
def bank(tmp_path: Path) -> Iterator[DyingNode]:
    """A guest without hosts, started; version 1 online."""
    with fork_server("tests.integration.dying_node", ENVIRON) as forks:
        node = DyingNode(forks, tmp_path)
        for model in (V1, V2):
            publish({"bank": node.registry}, model)
        try:
            node.start()
            node.load("m", "1")
            node.online("s", "m", "1")
            yield node
        finally:
            node.stop()


@dataclass(frozen=True)
class Seen:
    """What an operator sees of a node."""

    versions: tuple[str, ...]
    revision: int
    online: str
    apps: tuple[str, ...] = ()
    default: bool = False
    limited: bool = False

    @classmethod
    def at(cls, node: PartyNode) -> Seen:
        models = node.admin("ListModels", wire.ListModelsRequest()).models
        apps = [app for app in node.admin("ListApps", wire.ListAppsRequest()).apps if app.version]
        assert {one.state for one in (*models, *apps)} == {"READY"}
        [service] = node.admin("ListServices", wire.ListServicesRequest()).services
        return cls(
            tuple(model.version for model in models),
            service.revision,
            service.variants[0].version,
            tuple(app.version for app in apps),
            service.is_default,
            bool(node.admin("ListLimits", wire.ListLimitsRequest()).limits),
        )


@dataclass(frozen=True)
class Change:
    """A call, and what is to be seen after it."""

    name: str
    ask: Callable[[PartyNode, Seen], object]
    after: Callable[[Seen], Seen]


CHANGES = (
    Change("load", lambda node, _: node.load("m", "2"), lambda seen: replace(seen, versions=("1", "2"))),
    Change(
        "online",
        lambda node, seen: node.online("s", "m", "2", seen.revision),
        lambda seen: replace(seen, revision=seen.revision + 1, online="2"),
    ),
    Change(
        "rollback",
        lambda node, seen: node.admin("Rollback", wire.RollbackRequest(service="s", revision=seen.revision)),
        lambda seen: replace(seen, revision=seen.revision + 1, online="1"),
    ),
    Change(
        "unload",
        lambda node, _: node.admin("Unload", wire.UnloadRequest(model="m", version="2", force=True)),
        lambda seen: replace(seen, versions=("1",)),
    ),
)
LIMIT_KIND = wire.LIMIT_KIND_SERVICE
OTHERS = (
    Change(
        "load an app",
        lambda node, _: node.admin("LoadApp", wire.LoadAppRequest(name="risk", version="1")),
        lambda seen: replace(seen, apps=("1",)),
    ),
    Change(
        "default service",
        lambda node, _: node.admin("SetDefaultService", wire.SetDefaultServiceRequest(service="s")),
        lambda seen: replace(seen, default=True),
    ),
    Change(
        "limit",
        lambda node, _: node.admin(
            "SetLimit", wire.SetLimitRequest(kind=LIMIT_KIND, name="s", limit=wire.Limit(per_s=500))
        ),
        lambda seen: replace(seen, limited=True),
    ),
    Change(
        "no limit",
        lambda node, _: node.admin("ClearLimit", wire.ClearLimitRequest(kind=LIMIT_KIND, name="s")),
        lambda seen: replace(seen, limited=False),
    ),
    Change(
        "no default service",
        lambda node, _: node.admin("SetDefaultService", wire.SetDefaultServiceRequest()),
        lambda seen: replace(seen, default=False),
    ),
    Change(
        "unload an app",
        lambda node, _: node.admin("UnloadApp", wire.UnloadAppRequest(name="risk", version="1")),
        lambda seen: replace(seen, apps=()),
    ),
)
EVERY = CHANGES + OTHERS


def make(change: Change, node: DyingNode, point: str, seen: Seen) -> None:
    """The change, and the end of the node at the point; "" is after the answer."""
    if not point:
        change.ask(node, seen)
        assert node.process is not None
        node.process.kill()
    else:
        arm(node.folder / "state", point)
        with pytest.raises(RpcError):
            change.ask(node, seen)
    node.died()


@pytest.mark.timeout(300)
def test_twenty_kills_of_a_node_at_named_points(bank: DyingNode) -> None:
    seen = Seen.at(bank)
    for point in POINTS:
        for change in CHANGES:
            seen = killed(bank, change, point, seen)
    assert Seen.at(bank) == seen


@pytest.mark.timeout(300)
def test_kills_around_the_changes_of_everything_else(bank: DyingNode) -> None:
    """Before the new state is in place and after it; the other points as above, since all take the same way."""
    seen = Seen.at(bank)
    for place, change in enumerate(OTHERS):
        seen = killed(bank, change, ("rename state.draft", "sync state")[place % 2], seen)
    assert Seen.at(bank) == seen


def killed(node: DyingNode, change: Change, point: str, seen: Seen) -> Seen:
    """The change, cut off at the point and then, if it had not happened, made; what is to be seen after it."""
    make(change, node, point, seen)
    node.start()
    happened = POINTS[point]
    wanted = change.after(seen) if happened else seen
    assert Seen.at(node) == wanted, (change.name, point)
    assert node.predict(service="s", numbers={"x": 0.0}).version == wanted.online
    if not happened:
        change.ask(node, seen)
    return change.after(seen)


class Operator(threading.Thread):
    """Makes changes in turn until the node dies. `seen`: after the last acknowledged one; `tried`: the one after it."""

    def __init__(self, node: PartyNode, seen: Seen, turn: int) -> None:
        super().__init__(daemon=True)
        self.seen, self.tried, self.turn = seen, seen, turn
        self._node = node

    def run(self) -> None:
        while True:
            change = EVERY[self.turn % len(EVERY)]
            self.tried = change.after(self.seen)
            try:
                change.ask(self._node, self.seen)
            except (RpcError, KeyError):
                return
            self.seen = self.tried
            self.turn += 1


@pytest.mark.soak
def test_hundreds_of_kills_at_random_times(bank: DyingNode) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    chance = random.Random(seed)
    seen, turn = Seen.at(bank), 0
    for number in range(300):
        operator = Operator(bank, seen, turn)
        operator.start()
        operator.join(chance.uniform(0.0, 0.2))
        assert bank.process is not None
        bank.process.kill()
        bank.died()
        operator.join(20)
        bank.start()
        found = Seen.at(bank)
        assert found in {operator.seen, operator.tried}, f"kill {number} of seed {seed}"
        turn = operator.turn + (found == operator.tried and found != operator.seen)
        seen = found
    assert turn > 100
