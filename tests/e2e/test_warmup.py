"""`tessera warmup` with real parties: from a file, killed and gone on with, from counts, against a spent budget."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.artifacts import make_bound_pair
from tests.nodes import ROOT, PartyNode

USERS = 400
CASE = {"a": 0.25, "b": -1.5}


class Parties:
    def __init__(self, folder: Path) -> None:
        self.host = PartyNode(
            folder,
            "shop",
            "plaintext_caller = 'bank'\npeers.bank = {may_load = ['*'], purposes = ['infer', 'warmup'], budget = 450}\n"
            "features.default = {kind = 'file', path = 'users.csv'}",
        )
        rows = "".join(f"{n:04d},{n / 10},0\n" for n in range(2 * USERS))
        (self.host.folder / "users.csv").write_text("id,x,y\n" + rows)
        self.guest = PartyNode(folder, "bank", f"peers.shop.address = '127.0.0.1:{self.host.party_port}'")
        weights = {"guest_weights": {"a": 0.5, "b": -0.25}, "host_weights": {"x": 1.0, "y": 2.0}, "intercept": 0.125}
        registries = (self.guest.registry, self.host.registry)
        make_bound_pair(*registries, model="m", version="1", guest="bank", host="shop", **weights)
        self.list = folder / "active.csv"
        self.list.write_text("user,calls\n" + "".join(f"{n:04d},{USERS - n}\n" for n in range(USERS)))

    def warmup(self, *arguments: str, as_json: bool = True, stderr: int = subprocess.PIPE) -> subprocess.Popen[str]:
        command = [sys.executable, "-P", "-c", "from serving.commands.warmup import warmup; warmup()"]
        return subprocess.Popen(
            [*command, "s", "--admin", self.guest.address("admin"), *(["--json"] if as_json else []), *arguments],
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/proto", "TERM": "xterm", "COLUMNS": "100"},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )

    def on_terminal(self, *arguments: str, as_json: bool) -> tuple[str, str]:
        """What it says on its standard output, and on a terminal that is its standard error."""
        ours, its = pty.openpty()
        process = self.warmup(*arguments, as_json=as_json, stderr=its)
        os.close(its)
        shown = b""
        with contextlib.suppress(OSError):  # the terminal is gone with its last user
            while part := os.read(ours, 65_536):
                shown += part
        os.close(ours)
        out, _ = process.communicate(timeout=50)
        assert process.returncode == 0, shown
        return out, shown.decode()

    def warmed(self, *arguments: str, code: int = 0) -> dict[str, object]:
        process = self.warmup(*arguments)
        out, err = process.communicate(timeout=50)
        assert process.returncode == code, err
        told: dict[str, object] = json.loads(out)
        return told

    @property
    def from_file(self) -> list[str]:
        return ["--file", str(self.list), "--id-column", "user", "--count-column", "calls", "--share", "0.5"]


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parties]:
    both = Parties(tmp_path_factory.mktemp("warmup"))
    try:
        both.host.start()
        both.guest.start()
        both.guest.load("m", "1")
        both.guest.online("s", "m", "1")
        yield both
    finally:
        both.guest.stop()
        both.host.stop()


def test_a_warm_up_is_killed_and_gone_on_with(parties: Parties, tmp_path: Path) -> None:
    planned = USERS // 2
    dry = parties.warmed(*parties.from_file, "--dry-run")
    assert (dry["planned"], dry["missing"], dry["coverage_before"], dry["coverage_after"]) == (planned, planned, 0, 1)

    cursor = tmp_path / "cursor"
    options = [*parties.from_file, "--cursor", str(cursor), "--batch", "10"]
    process = parties.warmup(*options, "--users-per-s", "50")
    end = time.monotonic() + 20
    while not cursor.exists() or json.loads(cursor.read_text())["done"] < 30:
        assert time.monotonic() < end
        assert process.poll() is None, process.stderr
        time.sleep(0.01)
    process.kill()
    process.communicate()
    done = json.loads(cursor.read_text())["done"]
    assert 30 <= done < planned

    told = parties.warmed(*options, "--users-per-s", "100000")
    assert (told["done"], told["stopped"], told["coverage_after"]) == (planned, "", 1)
    assert told["fetched"] + told["cached"] == planned
    assert told["cached"] <= 10, "only the batch that was on its way when it was killed"
    calls = sum(range(USERS - planned + 1, USERS + 1)) / sum(range(1, USERS + 1))
    assert told["expected_hit_share"] == pytest.approx(calls)

    reply = parties.guest.predict(service="s", user_id="0000", numbers=CASE)
    assert reply.parties[0].level != 0, "no remote call is needed"
    parties.guest.stop()
    parties.guest.start()
    assert parties.warmed(*parties.from_file, "--dry-run")["cached"] == planned, "they are in the shared level"


def test_a_bar_shows_on_a_terminal_alone_and_never_beside_json(parties: Parties) -> None:
    planned = USERS // 2
    options = [*parties.from_file, "--dry-run", "--batch", "20", "--users-per-s", "100000"]
    piped = parties.warmup(*options, as_json=False)
    out, bar = parties.on_terminal(*options, as_json=False)
    assert "warm-up" in bar
    assert f"{planned}/{planned}" in bar
    assert f"0/{planned}" in bar
    assert out.startswith(f"{planned} users would be warmed\n")
    assert piped.communicate(timeout=50) == (out, "")
    out, bar = parties.on_terminal(*options, as_json=True)
    assert (json.loads(out)["planned"], bar) == (planned, "")


def test_the_most_active_are_known_from_counts(parties: Parties) -> None:
    for user, times in (("0500", 3), ("0501", 2), ("0502", 1)):
        for _ in range(times):
            parties.guest.predict(service="s", user_id=user, numbers=CASE)
    told = parties.warmed("--include-today", "--days", "1", "--share", "0.7", "--dry-run")
    assert told["planned"] >= 2
    assert told["cached"] == told["planned"], "whoever was asked about is there"


def test_a_spent_budget_stops_it_and_it_says_so(parties: Parties, tmp_path: Path) -> None:
    rest = tmp_path / "rest.csv"
    rest.write_text("id\n" + "".join(f"{n:04d}\n" for n in range(2 * USERS)))
    process = parties.warmup("--file", str(rest), "--share", "1", "--batch", "100", "--users-per-s", "100000")
    out, err = process.communicate(timeout=50)
    assert process.returncode == 1
    told = json.loads(out)
    assert told["refused"] > 0
    assert told["done"] < 2 * USERS
    assert "shop" in err, err
    assert parties.guest.predict(service="s", user_id="0001", numbers=CASE).complete
