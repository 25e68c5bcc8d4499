"""The demo of the README, as a newcomer runs it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.usefixtures("untraced")

DEMO = Path(__file__).resolve().parents[2] / "docs" / "examples" / "breast_cancer" / "demo.py"


@pytest.mark.timeout(180)
def test_the_main_job_end_to_end(tmp_path: Path) -> None:
    environ = {**os.environ, "COLUMNS": "120"}
    command = [sys.executable, str(DEMO)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environ, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    offline, online = re.search(r"AUC offline ([\d.]+), online ([\d.]+)", done.stdout).groups()
    assert offline == online
    assert float(offline) > 0.97
    levels = [line.split("from ")[-1] for line in done.stdout.splitlines() if re.search("from L[123]$", line)]
    assert levels == ["L1", "L2", "L3"]
    assert "6. Everything is shut down" in done.stdout
    left = [process for process in psutil.process_iter(["cwd"]) if process.info["cwd"] == str(tmp_path)]
    assert not left


def test_the_parties_hold_different_things(tmp_path: Path) -> None:
    code = "from pathlib import Path; from make_parties import make_parties; make_parties(Path('.'))"
    subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, check=True, env={**os.environ, "PYTHONPATH": str(DEMO.parent)}
    )
    guest, host = ((tmp_path / party / "table.csv").read_text().splitlines() for party in ("guest", "host"))
    assert (guest[0].count(","), host[0].count(",")) == (11, 20)
    assert "malignant" in guest[0]
    assert "malignant" not in host[0]
    ids = [[row.split(",")[0] for row in rows[1:]] for rows in (guest, host)]
    assert set(ids[0]) - set(ids[1])
    assert set(ids[1]) - set(ids[0])
    common = set(ids[0]) & set(ids[1])
    assert [name for name in ids[0] if name in common] != [name for name in ids[1] if name in common]
