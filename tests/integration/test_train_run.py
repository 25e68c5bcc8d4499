"""`tessera train run` as two real processes on the breast cancer data."""

import contextlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import psutil
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from loaders import catalog, registry
from loaders.signature import Batch
from tests.nodes import free_port
from training import tables
from training.store import State, read_status, settled_status

ROOT = Path(__file__).resolve().parents[2]
SIDES = {"guest": "bank", "host": "shop"}
pytestmark = pytest.mark.timeout(120)


def make_parties_module() -> ModuleType:
    path = ROOT / "docs/examples/breast_cancer/make_parties.py"
    spec = importlib.util.spec_from_file_location("make_parties", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Parties:
    """The folder of both, and their processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: dict[str, subprocess.Popen[str]] = {}
        folder.mkdir(exist_ok=True)
        make_parties_module().make_parties(folder, guest_port=free_port(), host_port=free_port())

    def change_job(self, change: Callable[[dict[str, Any]], None]) -> None:
        job = json.loads((self.folder / "job.json").read_text())
        change(job)
        (self.folder / "job.json").write_text(json.dumps(job))

    def start(self, side: str, *options: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-P", "-m", "serving", "train", "run"]
        command += [str(self.folder / "job.json"), "--party", str(self.folder / side / "party.toml")]
        self.processes[side] = subprocess.Popen(
            [*command, "--job", "spring", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/proto"},
        )
        return self.processes[side]

    def job(self, side: str) -> Path:
        return self.folder / side / "jobs" / "spring"

    def wait_for_loss(self, side: str) -> None:
        """Until training is under way."""
        deadline = time.monotonic() + 40
        while True:
            with contextlib.suppress(OSError):
                if '"loss"' in (self.job(side) / "metrics.jsonl").read_text():
                    return
            assert time.monotonic() < deadline and self.processes[side].poll() is None
            time.sleep(0.05)


@contextlib.contextmanager
def ended(parties: Parties) -> Iterator[Parties]:
    try:
        yield parties
    finally:
        for process in parties.processes.values():
            process.kill()
            process.communicate()


@pytest.fixture
def parties(tmp_path: Path) -> Iterator[Parties]:
    with ended(Parties(tmp_path)) as started:
        yield started


def make_long(job: dict[str, Any]) -> None:
    job["parameters"]["common"]["lr"] = {"epochs": 10_000, "tolerance": 0.0}


def held_out(parties: Parties, port: str) -> tuple[np.ndarray, np.ndarray]:
    read = {side: tables.read_parquet(parties.job(side) / f"tasks/scale/{port}/table.parquet") for side in SIDES}
    assert read["guest"].ids == read["host"].ids
    assert read["guest"].label is not None
    return np.hstack([read["guest"].features, read["host"].features]), read["guest"].label


def test_end_to_end(parties: Parties) -> None:
    running = {side: parties.start(side, "--json") for side in SIDES}
    told = {side: process.communicate(timeout=90) for side, process in running.items()}
    assert {side: process.returncode for side, process in running.items()} == {"guest": 0, "host": 0}, told
    outcome = json.loads(told["guest"][0])
    assert outcome["state"] == "succeeded"
    assert set(json.loads(told["host"][0])["metrics"]) == {"reader", "psi", "split"}

    halves = {
        side: registry.open_half(parties.folder / side / "registry", "tumour", "spring", party)
        for side, party in SIDES.items()
    }
    assert halves["guest"].binding_digest == halves["host"].binding_digest
    assert halves["guest"].manifest.provenance == {"job": "spring", "metrics": outcome["metrics"]["evaluate"]}
    assert halves["host"].manifest.provenance == {"job": "spring"}
    assert registry.resolve_alias(parties.folder / "host" / "registry", "tumour", "latest") == "spring"

    (train, label), (test, truth) = held_out(parties, "train"), held_out(parties, "test")
    plain = LogisticRegression(C=1 / (0.01 * len(label)), max_iter=10_000).fit(train, label)
    plain_auc = roc_auc_score(truth, plain.decision_function(test))
    assert outcome["metrics"]["evaluate"]["auc"] == pytest.approx(plain_auc, abs=2e-3)
    assert outcome["metrics"]["evaluate"]["auc"] > 0.97
    check_served_scores(parties, halves)


def check_served_scores(parties: Parties, halves: dict[str, Any]) -> None:
    """What the halves answer to raw rows is what training predicted."""
    prediction = tables.read_parquet(parties.job("guest") / "tasks/lr/prediction/table.parquet")
    linear = np.zeros(len(prediction.ids))
    for side, half in halves.items():
        raw = tables.read_parquet(parties.job(side) / "tasks/split/test/table.parquet")
        assert raw.ids == prediction.ids
        servable = catalog.load_servable(catalog.loader_for(half))
        outputs = servable.predict(Batch(raw.features, np.empty((len(raw.ids), 0), dtype=object)))
        linear += outputs["partial"][:, 0]
    np.testing.assert_allclose(1 / (1 + np.exp(-linear)), prediction.features[:, 0], atol=1e-9)


def kill(parties: Parties, killed: str) -> tuple[float, list[psutil.Process]]:
    """In the middle of training; when that was, and the processes that it had started."""
    parties.change_job(make_long)
    running = {side: parties.start(side) for side in SIDES}
    parties.wait_for_loss("guest")
    workers = psutil.Process(running[killed].pid).children(recursive=True)
    running[killed].kill()
    return time.monotonic(), workers


def check_ended(parties: Parties, killed: str, began: float, workers: list[psutil.Process]) -> None:
    [left] = SIDES.keys() - {killed}
    _, told = parties.processes[left].communicate(timeout=60)
    assert time.monotonic() - began < 35
    assert parties.processes[left].returncode == 1
    lines = [line for line in told.splitlines() if line.startswith("tessera: ")]
    assert len(lines) == 1 and f"party {SIDES[killed]}" in lines[0] and "Traceback" not in told
    assert read_status(parties.job(left)).state is State.FAILED
    assert settled_status(parties.job(killed)).state is State.FAILED
    assert not list(parties.folder.rglob("manifest.json"))
    psutil.wait_procs(workers, timeout=5)
    assert not any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers)


def test_a_killed_party_ends_the_other(tmp_path: Path) -> None:
    """Two jobs side by side: the one that is left waits for a quarter of a minute."""
    with ended(Parties(tmp_path / "one")) as one, ended(Parties(tmp_path / "two")) as two:
        of_host = kill(one, "host")
        of_guest = kill(two, "guest")
        check_ended(one, "host", *of_host)
        check_ended(two, "guest", *of_guest)


def test_a_stopped_party_says_so(parties: Parties) -> None:
    parties.change_job(make_long)
    running = {side: parties.start(side) for side in SIDES}
    parties.wait_for_loss("guest")
    running["host"].send_signal(signal.SIGTERM)
    _, told = running["guest"].communicate(timeout=15)
    assert "tessera: party shop failed: stopped by its operator" in told
    _, own = running["host"].communicate(timeout=15)
    assert "job spring was stopped; the other parties know" in own
    assert [process.returncode for process in running.values()] == [1, 1]
    assert read_status(parties.job("host")).state is State.STOPPED


def test_a_port_in_use(parties: Parties, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("TESSERA_TRAIN_LISTEN", address)
        process = parties.start("host")
        _, told = process.communicate(timeout=20)
    assert process.returncode == 1
    assert f"tessera: party shop cannot listen on {address}" in told
    assert read_status(parties.job("host")).state is State.FAILED


def test_how_long_to_wait_for_the_others(parties: Parties) -> None:
    alone = parties.start("guest", "--wait-s", "0.5")
    _, told = alone.communicate(timeout=20)
    assert alone.returncode == 1
    lines = [line for line in told.splitlines() if line.startswith("tessera: ")]
    assert len(lines) == 1 and "party shop did not join job spring within 0.5 s" in lines[0]


def test_a_table_that_is_not_there(parties: Parties) -> None:
    (parties.folder / "host" / "table.csv").unlink()
    running = {side: parties.start(side) for side in SIDES}
    told = {side: process.communicate(timeout=40)[1] for side, process in running.items()}
    assert "table.csv: there is no such file" in told["host"]
    assert "tessera: party shop failed: task reader cannot go on; its own log says why" in told["guest"]
    assert "table.csv" not in told["guest"]
    assert "table.csv" in (parties.job("host") / "log").read_text()
