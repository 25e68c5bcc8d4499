"""SIGKILL at every step of writing each kind of state: what was acknowledged is there. Whole nodes: test_node_kills."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.cache.keys import load_secret
from serving.control import FileControlStore, State
from serving.control_redis import RedisControlStore
from serving.figures.sqlite import SqliteFigureStore
from tests.forking import Forked, ForkServer, fork_server
from tests.integration.dying_writer import SUBJECT
from tests.redis_server import DURABLE, redis_server, url_of


@pytest.fixture(scope="module")
def writers() -> Iterator[ForkServer]:
    with fork_server("tests.integration.dying_writer") as server:
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
    asked, done = (place for place, step in enumerate(steps) if step == "written audit.log")
    assert log.count('"event":"asked"') == 1 + len(steps) - asked  # the first, and all that died later
    assert log.count('"event":"done"') == 1 + len(steps) - done


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
