"""Open Inference Protocol v2, asked by kserve's client from an environment of its own, which `make` installs once."""

from __future__ import annotations

import json
import math
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.artifacts import make_onnx, make_words
from tests.e2e.test_two_parties import Parties, expected
from tests.nodes import ROOT

pytestmark = pytest.mark.usefixtures("untraced")

PYTHON = ROOT / ".venv" / "kserve" / "bin" / "python"
CARRIERS = pytest.mark.parametrize("carrier", ["grpc", "http"])


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    assert PYTHON.exists(), "make .venv/kserve/.done"
    both = Parties(tmp_path_factory.mktemp("parties"))
    both.pair()
    make_onnx(both.guest.registry, model="local", version="1", party=both.guest.party, further=True)
    make_words(both.guest.registry, model="words", version="1", party=both.guest.party)
    both.start()
    try:
        for model in ("m", "local", "words"):
            both.guest.load(model, "1")
        both.guest.online("s", "m", "1")
        client = Path(__file__).with_name("kserve_client.py")
        command = [str(PYTHON), str(client), both.guest.address("service"), both.guest.address("http")]
        clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=clean)
        assert done.returncode == 0, done.stderr
        yield json.loads(done.stdout)
    finally:
        both.stop()


def score(user: str) -> Any:
    return [pytest.approx(expected(user), abs=1e-12)]


@CARRIERS
def test_it_is_well(said: dict[str, Any], carrier: str) -> None:
    ready = [said[carrier][name] for name in ("live", "ready", "model_ready", "none_ready")]
    assert ready == [True, True, True, False]


@CARRIERS
def test_a_score_comes_back_with_its_id(said: dict[str, Any], carrier: str) -> None:
    one = said[carrier]["infer"]
    # Over HTTP this client does not read the version.
    assert (one["id"], one["version"], one["status"]) == ("r-1", "1" if carrier == "grpc" else None, ["OK"])
    assert one["score"] == [score("0001")]


BATCHES = [
    *((carrier, step) for carrier in ("grpc", "http") for step in ("batch", "typed")),
    ("http", "binary_output"),
    ("http", "mixed_output"),
]


@pytest.mark.parametrize(("carrier", "step"), BATCHES)
def test_a_batch_has_a_status_per_row_in_every_form(said: dict[str, Any], carrier: str, step: str) -> None:
    many = said[carrier][step]
    assert many["status"] == ["OK", "OK", "NOT_FOUND"]
    assert many["score"][:2] == [score("0001"), score("0002")]
    [lost] = many["score"][2]
    assert lost is None or math.isnan(lost)


@CARRIERS
@pytest.mark.parametrize("datatype", ["fp32", "fp16"])
def test_narrow_numbers_are_numbers(said: dict[str, Any], carrier: str, datatype: str) -> None:
    """0.25 and -1.5 are the same in each."""
    assert said[carrier][datatype]["score"] == [score("0001")]


@CARRIERS
def test_calls_at_once_have_answers_of_their_own(said: dict[str, Any], carrier: str) -> None:
    assert said[carrier]["together"] == [score(user) for user in ("0001", "0002", "0003")]


@CARRIERS
def test_a_repeated_case_has_the_id_of_its_own_call(said: dict[str, Any], carrier: str) -> None:
    first, again = said[carrier]["first"], said[carrier]["again"]
    assert (first.pop("id"), again.pop("id")) == ("x", "y")
    assert first == again


@CARRIERS
def test_only_what_was_asked_for_comes_back(said: dict[str, Any], carrier: str) -> None:
    assert said[carrier]["one_output"] == {"score": [score("0001")]}


@CARRIERS
@pytest.mark.parametrize("step", ["local", "local_typed"])
def test_a_local_model_gives_numbers_and_texts(said: dict[str, Any], carrier: str, step: str) -> None:
    answer = said[carrier][step]
    assert answer.pop("score") == [[pytest.approx(one, abs=1e-6)] for one in (0.5, 0.6224593312)]
    assert answer == {"same": [[0.0, 0.25], [1.0, 0.0]], "larger": [[1], [0]], "word": [["1"], ["0"]]}


@CARRIERS
@pytest.mark.parametrize("step", ["words", "words_typed"])
def test_a_text_is_a_feature_too(said: dict[str, Any], carrier: str, step: str) -> None:
    assert np.ravel(said[carrier][step]["score"]).tolist() == [0.0, 1.0, 0.0, 0.0]


def test_its_messages_describe_the_node_and_its_models(said: dict[str, Any]) -> None:
    told = said["messages"]
    assert (told["server"]["name"], "binary_tensor_data" in told["server"]["extensions"]) == ("tessera", True)
    assert (told["metadata"]["name"], told["metadata"]["versions"]) == ("s", ["1"])
    inputs = {one["name"]: (one["datatype"], one["shape"]) for one in told["metadata"]["inputs"]}
    assert inputs == {
        name: (kind, ["-1", "1"]) for name, kind in {"user_id": "BYTES", "a": "FP64", "b": "FP64"}.items()
    }
    assert [one["name"] for one in told["metadata"]["outputs"]] == ["score", "fed_status_shop"]
    [colour] = [one for one in told["words_metadata"]["inputs"] if one["name"] == "colour"]
    assert (colour["datatype"], colour["shape"]) == ("BYTES", ["-1", "1"])
    assert told["version_ready"] == {"ready": True}


@pytest.mark.parametrize(
    ("asked", "code"), [("grpc", "StatusCode.NOT_FOUND"), ("messages", "StatusCode.NOT_FOUND"), ("http", "404")]
)
def test_an_unknown_model_is_said_as_clients_expect_it(said: dict[str, Any], asked: str, code: str) -> None:
    told, text = said[asked]["unknown"]
    assert (told, "Request for unknown model" in text) == (code, True)
