from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.budget import FOLDER, KEPT_WINDOWS, Ledger, QueryBudget
from serving.errors import LimitError
from serving.pool import ModelId
from tests.clock import Clock

M1, M2 = ModelId("m", "1"), ModelId("m", "2")
SECRET = b"s" * 32
DAY_S = 86_400.0


@pytest.fixture
def clock() -> Clock:
    return Clock(1_000 * DAY_S + 3_600)


def budget(folder: Path, clock: Clock, limit: int = 3, party: str = "bank") -> QueryBudget:
    return QueryBudget(Ledger(folder, party, SECRET), limit, DAY_S, clock)


def test_a_user_counts_once_for_each_version(tmp_path: Path, clock: Clock) -> None:
    one = budget(tmp_path, clock)
    assert one.take(M1, ["u1", "u1"]) is None
    assert one.take(M1, ["u1"]) is None
    assert one.spent == 1
    assert one.take(M2, ["u1"]) is None
    assert one.spent == 2


def test_what_is_over_is_refused_row_by_row_and_what_was_counted_is_not(tmp_path: Path, clock: Clock) -> None:
    one = budget(tmp_path, clock)
    one.take(M1, ["u1"])
    assert one.take(M1, ["u2", "u3", "u4", "u1", "u4", "u2"]) == [True, True, False, True, False, True]
    assert (one.spent, one.refused) == (3, 2)
    assert one.take(M1, ["u3", "u1"]) is None
    with pytest.raises(LimitError, match="budget is spent: 3 users and versions in 86400 s") as raised:
        one.take(M1, ["u5"])
    assert raised.value.retry_after_s == DAY_S - 3_600
    assert one.spent == 3


def test_a_new_window_begins_anew(tmp_path: Path, clock: Clock) -> None:
    one = budget(tmp_path, clock, limit=1)
    one.take(M1, ["u1"])
    clock.tick(DAY_S - 3_600)
    assert one.spent == 0
    assert one.take(M1, ["u2"]) is None


def test_a_restart_knows_what_was_spent(tmp_path: Path, clock: Clock) -> None:
    budget(tmp_path, clock).take(M1, ["u1", "u2"])
    after = budget(tmp_path, clock)
    assert after.spent == 2
    assert after.take(M1, ["u2", "u3", "u4"]) == [True, True, False]


def test_workers_share_the_count(tmp_path: Path, clock: Clock) -> None:
    one, two = budget(tmp_path, clock), budget(tmp_path, clock)
    one.take(M1, ["u1", "u2"])
    assert two.take(M1, ["u1", "u3", "u4"]) == [True, True, False]
    assert one.spent == two.spent == 3
    with pytest.raises(LimitError):
        one.take(M1, ["u4"])


def test_workers_at_once_never_let_more_pass(tmp_path: Path, clock: Clock) -> None:
    workers = [budget(tmp_path, clock, limit=100) for _ in range(4)]

    def ask(one: QueryBudget) -> None:
        for user in range(200):
            try:
                one.take(M1, [f"u{user}"])
            except LimitError:
                continue

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, workers))
    assert [one.spent for one in workers] == [100] * 4
    [file] = (tmp_path / FOLDER).iterdir()
    assert file.stat().st_size == 800


def test_parties_are_counted_apart_and_no_id_is_on_disk(tmp_path: Path, clock: Clock) -> None:
    budget(tmp_path, clock, party="bank").take(M1, ["customer-4711"])
    assert budget(tmp_path, clock, party="bakery").spent == 0
    files = sorted((tmp_path / FOLDER).iterdir())
    assert [file.stat().st_size for file in files] == [0, 8]
    assert b"4711" not in files[1].read_bytes()
    assert all(file.stat().st_mode & 0o077 == 0 for file in files)
    hashes = [Ledger(tmp_path, "bank", secret).hashes(M1, ["customer-4711"]) for secret in (SECRET, b"t" * 32)]
    assert hashes[0] != hashes[1]


def test_half_an_entry_of_a_full_disk_is_cut_off(tmp_path: Path, clock: Clock) -> None:
    budget(tmp_path, clock).take(M1, ["u1"])
    [file] = (tmp_path / FOLDER).iterdir()
    with file.open("ab") as torn:
        torn.write(b"\x01\x02\x03")
    after = budget(tmp_path, clock)
    assert after.spent == 1
    after.take(M1, ["u2"])
    assert budget(tmp_path, clock).spent == 2
    assert file.stat().st_size == 16


def test_old_ledgers_go(tmp_path: Path, clock: Clock) -> None:
    one = budget(tmp_path, clock)
    for _ in range(KEPT_WINDOWS + 10):
        one.take(M1, ["u"])
        clock.tick(DAY_S)
    assert len(list((tmp_path / FOLDER).iterdir())) <= KEPT_WINDOWS + 1


@given(calls=st.lists(st.tuples(st.sampled_from([M1, M2]), st.lists(st.sampled_from("abcdef"), min_size=1))))
def test_it_is_a_bounded_set(tmp_path_factory: pytest.TempPathFactory, calls: list[tuple[ModelId, list[str]]]) -> None:
    one, limit = budget(tmp_path_factory.mktemp("budget"), Clock(0.0), limit=5), 5
    model: set[tuple[ModelId, str]] = set()
    for version, users in calls:
        expected = []
        for user in users:
            if len(model) < limit:
                model.add((version, user))
        expected = [(version, user) in model for user in users]
        if any(expected):
            assert (one.take(version, users) or [True] * len(users)) == expected
        else:
            with pytest.raises(LimitError):
                one.take(version, users)
    assert one.spent == len(model)
