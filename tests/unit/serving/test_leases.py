from __future__ import annotations

from pathlib import Path

import pytest

from serving.leases import FileLeases, LeaseLostError, Leases, MemoryLeases
from tests.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "file"])
def leases(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Leases:
    return MemoryLeases(clock) if request.param == "memory" else FileLeases(tmp_path / "leases", clock)


def test_a_lease_ends_by_itself(leases: Leases, clock: Clock) -> None:
    early = leases.acquire("work", "one", 10.0)
    assert early is not None
    clock.tick(9.9)
    assert leases.acquire("work", "other", 10.0) is None
    leases.renew(early, 10.0)
    clock.tick(9.9)
    assert leases.acquire("work", "other", 10.0) is None
    clock.tick(0.1)
    late = leases.acquire("work", "other", 10.0)
    assert late is not None
    assert late.token == early.token + 1
    with pytest.raises(LeaseLostError, match="'other' has taken over 'work' from 'one'"):
        leases.note(early, b"early")


def test_tokens_and_notes_survive_a_restart(tmp_path: Path, clock: Clock) -> None:
    before = FileLeases(tmp_path, clock)
    held = before.acquire("work/of the night", "one", 10.0)
    assert held is not None
    before.note(held, b"\x00notes")
    again = FileLeases(tmp_path, clock)
    assert again.notes(held.name) == b"\x00notes"
    assert again.acquire(held.name, "one", 10.0) is None
    clock.tick(10.0)
    taken = again.acquire(held.name, "one", 10.0)
    assert taken is not None
    assert taken.token == held.token + 1


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "work.json").write_bytes(b"{")
    with pytest.raises(OSError, match=r"work\.json is corrupt; remove it"):
        FileLeases(tmp_path, clock).acquire("work", "one", 10.0)
