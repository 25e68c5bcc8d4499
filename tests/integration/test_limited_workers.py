"""Limits that real processes keep to together, all asking as fast as they can."""

import itertools
import json
import subprocess
import sys
import time
from pathlib import Path

from serving.shared_counts import Seats
from tests.integration.limited_worker import RATE

ROOT = Path(__file__).resolve().parents[2]
WORKERS = 3


def worker(seat):
    command = [sys.executable, "-m", "tests.integration.limited_worker", str(seat.memory), str(seat.number)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, pass_fds=(seat.memory,), text=True)


def test_no_more_is_let_in_than_by_one():
    seats = Seats(WORKERS)
    started = [worker(seats.take()) for _ in range(WORKERS)]
    assert [one.stdout.readline() for one in started] == ["ready\n"] * WORKERS
    began_ns = time.monotonic_ns()
    for one in started:
        one.stdin.write(f"{began_ns + 500_000_000}\n")
        one.stdin.flush()
    told = [json.loads(one.communicate(timeout=30)[0]) for one in started]
    seconds = (time.monotonic_ns() - began_ns) / 1e9
    seats.close()
    rows = sum(rows for rows, _ in told)
    assert RATE.burst <= rows <= RATE.burst + RATE.per_s * seconds + WORKERS
    calls = sorted(itertools.chain.from_iterable(calls for _, calls in told))
    assert calls
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(calls)), "two were in at once"
