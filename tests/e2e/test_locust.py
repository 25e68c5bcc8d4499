"""bench/locustfile.py, headless, in a process of its own (gevent patches it) against real parties."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_two_parties import CASE, Parties
from tests.nodes import ROOT


@pytest.fixture(scope="module")
def parties(untraced: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parties]:
    made = Parties(tmp_path_factory.mktemp("locust"))
    made.pair()
    try:
        made.start()
        made.guest.load("m", "1")
        made.guest.online("credit", "m", "1")
        yield made
    finally:
        made.stop()


def locust(parties: Parties, folder: Path, service: str) -> tuple[int, dict[str, str]]:
    """Its exit code, and what it counted of Predict."""
    (folder / "case.json").write_text(json.dumps(CASE))
    (folder / "ids.txt").write_text("0001\n0002\n")
    command = [sys.executable, "-m", "locust", "-f", str(ROOT / "bench/locustfile.py"), "--headless", "--only-summary"]
    options = {"-u": "4", "-r": "4", "-t": "3s", "--host": parties.guest.address("service"), "--service": service}
    files = {"--features": "case.json", "--ids": "ids.txt", "--csv": "told"}
    done = subprocess.run(
        [*command, *(word for pair in (options | files).items() for word in pair)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/proto"},
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert (folder / "told_stats.csv").exists(), done.stderr
    with (folder / "told_stats.csv").open() as file:
        told = {row["Name"]: row for row in csv.DictReader(file)}
    return done.returncode, told["tessera.v1.Inference/Predict"]


def test_users_are_answered(parties: Parties, tmp_path: Path) -> None:
    code, told = locust(parties, tmp_path, "credit")
    assert (code, told["Failure Count"]) == (0, "0")
    assert int(told["Request Count"]) > 20
    assert float(told["Average Content Size"]) > 20


def test_failures_are_counted(parties: Parties, tmp_path: Path) -> None:
    code, told = locust(parties, tmp_path, "nothing")
    assert code == 1
    assert 0 < int(told["Failure Count"]) == int(told["Request Count"])
