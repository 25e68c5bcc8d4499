"""The examples of docs/examples/ that need a running pair of nodes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.e2e.test_two_parties import CASE, Parties, expected
from tests.nodes import ROOT


def test_the_client(tmp_path: Path) -> None:
    parties = Parties(tmp_path)
    parties.pair()
    try:
        parties.start()
        parties.guest.load("m", "1")
        parties.guest.online("credit", "m", "1")
        done = subprocess.run(
            [sys.executable, str(ROOT / "docs/examples/client.py"), parties.guest.address("service"), "credit"],
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/proto"},
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
    finally:
        parties.stop()
    said = done.stdout.splitlines()
    assert said[0] == f"score {expected('0001', CASE):.4f} by m:1, complete: True"
    assert said[1] == "  shop: OK, from NONE"
    assert said[2] == "the same case again: from cache L1"
    assert said[3] == f"0001: {expected('0001', CASE):.4f} OK"
    assert said[5] == "nobody: nan NOT_FOUND"
    assert said[6].startswith("INVALID_ARGUMENT: ")
    assert "height" in said[6]
