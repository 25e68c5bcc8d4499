"""Whole jobs of two parties in one process, over memory channels."""

import asyncio
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.unit.training.jobs import good
from training import dsl, graph, runner
from training.channel import ChannelError
from training.channels.meeting import Meeting
from training.channels.memory import MemoryHub
from training.component import Component, ComponentError, Table
from training.components.psi import Psi
from training.components.reader import Reader
from training.graph import Graph
from training.party import PartySettings, PeerSettings, TableSettings
from training.runner import RunError
from training.store import JobStore, State, Status, StoreError, read_metrics, read_status
from training.task_context import Place

PEER = {"bank": "shop", "shop": "bank"}


class Notes:
    def __init__(self) -> None:
        self.tasks: list[str] = []

    def task(self, name: str) -> None:
        self.tasks.append(name)

    def progress(self, task: str, done: int, total: int, note: str) -> None:
        assert task in self.tasks and done <= total


def job(**changes: Any) -> Graph:
    """Reader, then psi."""
    document = good()
    document["components"] = {name: document["components"][name] for name in ("reader_0", "psi_0")}
    document["parameters"]["common"] = {"reader_0": {"table": "people"}}
    return graph.check(*dsl.parse({**document, **changes}))


def settings(folder: Path, party: str, **changes: Any) -> PartySettings:
    path = folder / f"{party}.csv"
    ids = {"bank": ("1", "2", "3"), "shop": ("3", "2", "4")}[party]
    path.write_text("id,a\n" + "".join(f"{name},0.5\n" for name in ids))
    given: dict[str, Any] = {
        "tables": {name: TableSettings(path=path) for name in ("people", "baskets")},
        "peers": {PEER[party]: PeerSettings(address="127.0.0.1:1", consent=("psi",))},
        "receive_timeout_s": 20.0,
        "meet_timeout_s": 5.0,
    }
    return PartySettings(party=party, registry=folder, work_dir=folder / party, **given | changes)


class Run:
    """One job at both parties. `graphs` and `changes` (of settings) by party."""

    def __init__(self, folder: Path, graphs: Mapping[str, Graph] | None = None, **changes: Mapping[str, Any]) -> None:
        self.folder = folder
        self.graphs = graphs or dict.fromkeys(PEER, job())
        self.settings = {party: settings(folder, party, **changes.get(party, {})) for party in PEER}
        self.notes = {party: Notes() for party in PEER}
        self.outcomes: dict[str, Any] = {}

    def go(self, meddle: Callable[[dict[str, asyncio.Task[None]], "Run"], Any] | None = None) -> "Run":
        stores = {
            party: JobStore(self.folder / party / "spring", Status("spring", party, "", "")) for party in self.graphs
        }
        with stores["bank"], stores["shop"], ThreadPoolExecutor(4) as pool:
            asyncio.run(self._go(stores, pool, meddle))
        return self

    async def _go(self, stores: dict[str, JobStore], pool: ThreadPoolExecutor, meddle: Any) -> None:
        hub, tasks = MemoryHub(), {}
        for party, peer in PEER.items():
            channels = {peer: hub.channel(Meeting("spring", party, peer))}
            place = Place(self.settings[party], channels, pool, stores[party], self.notes[party])
            tasks[party] = asyncio.create_task(runner.run(self.graphs[party], place))
        if meddle:
            await meddle(tasks, self)
        async with asyncio.timeout(15):
            outcomes = await asyncio.gather(*tasks.values(), return_exceptions=True)
        self.outcomes = dict(zip(tasks, outcomes, strict=True))

    def status(self, party: str) -> Status:
        return read_status(self.folder / party / "spring")


def test_a_job_runs_at_both(tmp_path: Path) -> None:
    run = Run(tmp_path).go()
    assert run.outcomes == {"bank": None, "shop": None}
    for party in PEER:
        status = run.status(party)
        assert status.state is State.SUCCEEDED
        assert status.tasks == {"reader_0": State.SUCCEEDED, "psi_0": State.SUCCEEDED}
        kept = JobStore(tmp_path / party / "spring", status).load("psi_0", "data")
        assert isinstance(kept, Table) and kept.ids == ("2", "3")
        metrics = {(metric.task, metric.name): metric.value for metric in read_metrics(tmp_path / party / "spring")}
        assert metrics == {("reader_0", "rows"): 3, ("psi_0", "common_ids"): 2}
        assert run.notes[party].tasks == ["reader_0", "psi_0"]


def test_a_failure_ends_both_and_names_the_party(tmp_path: Path) -> None:
    run = Run(tmp_path, shop={"tables": {"baskets": TableSettings(path=tmp_path / "none.csv")}}).go()
    assert "none.csv: there is no such file" in str(run.outcomes["shop"])
    assert str(run.outcomes["bank"]) == "party shop failed: task reader_0 cannot go on; its own log says why"
    assert {run.status(party).state for party in PEER} == {State.FAILED}
    assert run.status("bank").reason == str(run.outcomes["bank"])
    assert run.status("shop").tasks == {"reader_0": State.FAILED}
    assert State.RUNNING not in run.status("bank").tasks.values()


def test_consent_comes_from_the_hosts_settings(tmp_path: Path) -> None:
    run = Run(tmp_path, shop={"peers": {"bank": PeerSettings(address="127.0.0.1:1")}}).go()
    assert "party shop does not consent to psi with party bank" in str(run.outcomes["shop"])
    assert all(isinstance(outcome, RunError) for outcome in run.outcomes.values())


def test_parties_with_different_files_do_not_begin(tmp_path: Path) -> None:
    other = job(parameters={"common": {"reader_0": {"table": "baskets"}}})
    run = Run(tmp_path, {"bank": job(), "shop": other}).go()
    assert "runs another specification of job spring" in str(run.outcomes["bank"])
    assert run.notes["bank"].tasks == run.notes["shop"].tasks == []


def test_stopping_one_ends_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reached = asyncio.Event()

    async def never(self: Psi, *_: Any) -> Any:
        reached.set()
        await asyncio.Event().wait()

    async def meddle(tasks: dict[str, asyncio.Task[None]], run: Run) -> None:
        await reached.wait()
        tasks["shop"].cancel()

    monkeypatch.setattr(Psi, "run", never)
    run = Run(tmp_path).go(meddle)
    assert isinstance(run.outcomes["shop"], asyncio.CancelledError)
    assert str(run.outcomes["bank"]) == "party shop failed: stopped by its operator"
    assert run.status("shop").state is State.STOPPED


def test_a_fault_in_a_component_tells_the_others_nothing_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(self: Psi, context: Any, *_: Any) -> Any:
        if context.party == "shop":
            raise ValueError("secret")
        await asyncio.Event().wait()

    monkeypatch.setattr(Psi, "run", broken)
    run = Run(tmp_path).go()
    assert "internal error: ValueError('secret')" in str(run.outcomes["shop"])
    assert str(run.outcomes["bank"]) == "party shop failed: internal error; its own log has the detail"


def test_a_party_that_never_comes(tmp_path: Path) -> None:
    async def meddle(tasks: dict[str, asyncio.Task[None]], run: Run) -> None:
        tasks["shop"].cancel()

    run = Run(tmp_path, bank={"meet_timeout_s": 0.2}).go(meddle)
    assert "party shop did not join job spring within 0.2 s" in str(run.outcomes["bank"])


def test_an_input_that_does_not_exist_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(self: Component, *_: Any) -> Any:
        return {}

    monkeypatch.setattr(Reader, "run", nothing)
    run = Run(tmp_path).go()
    assert any("task psi_0 needs reader_0.data, which does not exist here" in str(e) for e in run.outcomes.values())


def test_what_a_party_must_have(tmp_path: Path) -> None:
    bare = settings(tmp_path, "bank", tables={"peeple": TableSettings(path=tmp_path)}, peers={})
    with pytest.raises(dsl.JobError) as caught:
        runner.check_here(job(), bare)
    assert [str(problem) for problem in caught.value.problems] == [
        "$.parameters.reader_0.table: party bank: its settings have no table 'people'; did you mean peeple?",
        "$.roles: party bank: its settings do not say where party shop listens: add [peers.shop]",
    ]
    stranger = PartySettings(party="mill", registry=tmp_path, work_dir=tmp_path)
    with pytest.raises(dsl.JobError, match=r"party mill: has no role in this job"):
        runner.check_here(job(), stranger)
    runner.check_here(job(), settings(tmp_path, "bank"))


def test_a_full_disk_ends_both_with_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = JobStore.save

    def full(self: JobStore, task: str, port: str, value: Any) -> None:
        if self.status.party == "shop":
            raise StoreError("shop's folder cannot be written: No space left on device")
        save(self, task, port, value)

    monkeypatch.setattr(JobStore, "save", full)
    run = Run(tmp_path).go()
    assert str(run.outcomes["shop"]) == "shop's folder cannot be written: No space left on device"
    assert str(run.outcomes["bank"]) == "party shop failed: task reader_0 cannot go on; its own log says why"
    assert {run.status(party).state for party in PEER} == {State.FAILED}


def test_a_library_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Psi, "libraries", frozenset({"no_such_library"}))
    with pytest.raises(dsl.JobError) as caught:
        runner.check_here(job(), settings(tmp_path, "bank"))
    assert str(caught.value) == (
        "$.components.psi_0.module: party bank: psi needs no_such_library: pip install 'tessera-federated[train]'"
    )


def test_another_partys_words_stay_on_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(self: Psi, context: Any, *_: Any) -> Any:
        if context.party == "shop":
            raise ChannelError("first\nsecond\x1b[2J" + "x" * 1000)
        await asyncio.Event().wait()

    monkeypatch.setattr(Psi, "run", broken)
    told = str(Run(tmp_path).go().outcomes["bank"])
    assert told.startswith("party shop failed: first second [2Jxxx")
    assert told.isprintable() and len(told) < 400


def test_a_peers_failure_while_a_task_is_being_settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that records the task goes on after the runner has given up."""
    move_task, began, failed = JobStore.move_task, threading.Event(), threading.Event()

    async def broken(self: Psi, context: Any, *_: Any) -> Any:
        if context.party == "shop":
            await asyncio.to_thread(began.wait, 10)
            raise ComponentError("shop cannot")
        began.set()
        return {}

    def slow(self: JobStore, task: str, state: State) -> None:
        if (self.status.party, task, state) == ("bank", "psi_0", State.SUCCEEDED):
            failed.wait(10)
        move_task(self, task, state)

    def end(self: JobStore, running: State, state: State, reason: str) -> None:
        settle(self, running, state, reason)
        if self.status.party == "bank":
            failed.set()

    settle = JobStore.end
    monkeypatch.setattr(Psi, "run", broken)
    monkeypatch.setattr(JobStore, "move_task", slow)
    monkeypatch.setattr(JobStore, "end", end)
    run = Run(tmp_path).go()
    assert str(run.outcomes["bank"]) == "party shop failed: task psi_0 cannot go on; its own log says why"
    assert run.status("bank").state is State.FAILED
    assert run.status("bank").tasks["psi_0"] is State.STOPPED
