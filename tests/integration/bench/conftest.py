from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def echo_address(untraced: None) -> Iterator[str]:
    """Of an echo server in a process of its own."""
    command = [sys.executable, "-m", "tests.integration.bench.echo_server"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/proto"}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield f"127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.communicate(timeout=10)
