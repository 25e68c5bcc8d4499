"""The locust file against a real node, headless, in a process of its own: gevent must not meet our event loop."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.harness.parties import Parties, running
from bench.harness.population import guest_columns, guest_numbers
from serving.transport import Transport

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parties]:
    folder = tmp_path_factory.mktemp("locust")
    with running(folder, transport=Transport.NATIVE, hosts=1, users=1_000) as made:
        yield made


def locust(parties: Parties, *arguments: str) -> tuple[int, list[dict[str, object]]]:
    """Its exit status, and its figures by method."""
    numbers = json.dumps(dict(zip(guest_columns(), guest_numbers(), strict=True)))
    command = [sys.executable, "-m", "locust", "-f", str(ROOT / "bench" / "locustfile.py"), "--headless", "--json"]
    times = ("--users", "4", "--spawn-rate", "4", "--run-time", "2s", "--host", parties.address, "--numbers", numbers)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/proto"}
    done = subprocess.run(
        [*command, *times, *arguments], check=False, cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.stdout.strip(), done.stderr
    return done.returncode, json.loads(done.stdout)


def test_users_of_locust_get_their_answers(parties: Parties) -> None:
    status, [figures] = locust(parties, "--service", "s", "--distinct-users", "1000")
    assert figures["name"] == "/tessera.v1.Inference/Predict"
    assert figures["num_requests"] > 20
    assert figures["num_failures"] == 0
    assert status == 0


def test_failures_are_locusts_failures(parties: Parties) -> None:
    status, [figures] = locust(parties, "--service", "nothing")
    assert figures["num_failures"] == figures["num_requests"] > 0
    assert status == 1
