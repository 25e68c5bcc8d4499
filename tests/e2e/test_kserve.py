"""Open Inference Protocol v2, asked by kserve's client from an environment of its own, which `make` installs once."""

from __future__ import annotations

import json
import math
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.artifacts import make_onnx
from tests.e2e.test_two_parties import Parties, expected
from tests.nodes import ROOT

pytestmark = pytest.mark.usefixtures("untraced")

PYTHON = ROOT / ".venv" / "kserve" / "bin" / "python"


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    assert PYTHON.exists(), "make .venv/kserve/.done"
    both = Parties(tmp_path_factory.mktemp("parties"))
    both.pair()
    make_onnx(both.guest.registry, model="local", version="1", party=both.guest.party, further=True)
    both.start()
    try:
        both.guest.load("m", "1")
        both.guest.load("local", "1")
        both.guest.online("s", "m", "1")
        client = Path(__file__).with_name("kserve_client.py")
        command = [str(PYTHON), str(client), both.guest.address("service"), both.guest.address("http")]
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
