"""Open Inference Protocol v2, asked by kserve's client from an environment of its own, which the test makes.

It is among the long tests since that environment comes from a registry: kserve's pins (kubernetes, pandas, cloud
clients, older gRPC) do not go with ours, and to install them takes half a minute of one core besides the downloads.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.artifacts import make_onnx
from tests.e2e.test_two_parties import Parties, expected

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]

REQUIREMENT = "kserve>=0.15,<1"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kserve")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", REQUIREMENT], check=True, timeout=500)
    return python


@pytest.fixture(scope="module")
def said(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    both = Parties(tmp_path_factory.mktemp("parties"))
    both.pair()
    make_onnx(both.guest.registry, model="local", version="1", party=both.guest.party, further=True)
    both.start()
    try:
        both.guest.load("m", "1")
        both.guest.load("local", "1")
        both.guest.online("s", "m", "1")
        client = Path(__file__).with_name("kserve_client.py")
        command = [str(python), str(client), both.guest.address("service"), both.guest.address("http")]
        clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=clean)
        assert done.returncode == 0, done.stderr
        yield json.loads(done.stdout)
    finally:
        both.stop()


@pytest.mark.parametrize("carrier", ["grpc", "http"])
def test_it_is_well(said: dict[str, Any], carrier: str) -> None:
    assert [said[carrier][name] for name in ("live", "ready", "model_ready")] == [True, True, True]


@pytest.mark.parametrize("carrier", ["grpc", "http"])
def test_scores_of_one_and_of_many(said: dict[str, Any], carrier: str) -> None:
    one, many = said[carrier]["infer"], said[carrier]["batch"]
    # Over HTTP this client does not read the version.
    assert (one["id"], one["version"], one["status"]) == ("r-1", "1" if carrier == "grpc" else None, ["OK"])
    assert one["score"] == [[pytest.approx(expected("0001"), abs=1e-12)]]
    assert many["status"] == ["OK", "OK", "NOT_FOUND"]
    assert many["score"][1] == [pytest.approx(expected("0002"), abs=1e-12)]
    [lost] = many["score"][2]
    assert lost is None or math.isnan(lost)


def test_a_local_model_is_itself(said: dict[str, Any]) -> None:
    assert said["grpc"]["same"] == [[0.0, 0.25], [1.0, 0.0]]


def test_an_unknown_model_is_said_as_clients_expect_it(said: dict[str, Any]) -> None:
    code, text = said["grpc"]["unknown"]
    assert (code, "Request for unknown model" in text) == ("StatusCode.NOT_FOUND", True)
    code, text = said["http"]["unknown"]
    assert (code, "Request for unknown model" in text) == ("404", True)
