"""The examples of docs/examples/ that need a running pair of nodes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.e2e.test_two_parties import CASE, Parties, expected
from tests.nodes import ROOT

pytestmark = pytest.mark.usefixtures("untraced")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The service port of a guest that serves `credit`."""
    parties = Parties(tmp_path_factory.mktemp("examples"))
    parties.pair()
    try:
        parties.start()
        parties.guest.load("m", "1")
        parties.guest.online("credit", "m", "1")
        yield parties.guest.address("service")
    finally:
        parties.stop()


def said(example: str, address: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs/examples" / example), address, "credit"],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/proto"},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


SCORE = f"{expected('0001', CASE):.4f}"


def test_the_client(address: str) -> None:
    lines = said("client.py", address)
    assert lines[0] == f"score {SCORE} by m:1, complete: True"
    assert lines[1].startswith("  shop: OK, from ")
    assert lines[2] == "the same case again: from cache L1"
    assert lines[3] == f"0001: {SCORE} OK"
    assert lines[5] == "nobody: nan NOT_FOUND"
    assert lines[6].startswith("INVALID_ARGUMENT: ")
    assert "height" in lines[6]


def test_a_caller_of_the_open_inference_protocol(address: str) -> None:
    lines = said("open_inference.py", address)
    assert lines[:3] == ["input user_id: BYTES [-1, 1]", "input a: FP64 [-1, 1]", "input b: FP64 [-1, 1]"]
    assert lines[3] == f"0001: {SCORE} OK"
    assert lines[5] == "nobody: nan NOT_FOUND"
    assert lines[6:8] == ["case r-1 by version 1", "case r-1 by version 1, again"]
    assert lines[8].startswith("StatusCode.INVALID_ARGUMENT: ")
    assert "height" in lines[8]


def test_a_caller_of_fate_serving(address: str) -> None:
    lines = said("fate_caller.py", address)
    assert lines[0] == f"0: {SCORE} by m 1"
    assert lines[1] == f"row 0: 0 {round(expected('0001', CASE), 4)}"
    assert lines[2].startswith("row 1: 2113 host return code 113 host msg :")
    assert lines[3] == f"job application 80: {SCORE}"
    assert lines[4] == "104: unknown service 'nothing'"
