"""Several workers' sides of one memory, in this process."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator

import pytest

from serving.shared_counts import PLACES, WINDOW, Pair, Seat, Seats, SharedCounts, Table, key_of, shared_counts

KEY = key_of("service", "s")
EMPTY = (0.0, math.inf)


@pytest.fixture
def seats() -> Iterator[Seats]:
    made = Seats(4)
    yield made
    made.close()


def taken(seats: Seats) -> Seat:
    seat = seats.take()
    assert seat is not None
    return seat


def pair(counts: SharedCounts, key: int = KEY, table: Table = Table.TALLIES) -> Pair:
    found = counts.pair(table, key)
    assert found is not None
    return found


def test_each_sees_the_sum_and_the_least_of_the_others(seats: Seats) -> None:
    one, two, three = (pair(SharedCounts(taken(seats))) for _ in range(3))
    assert one.read() == one.of_others() == EMPTY
    one.write(5.0, -1.0)
    two.write(7.0, -2.0)
    assert [each.of_others() for each in (one, two, three)] == [(7.0, -2.0), (5.0, -1.0), (12.0, -2.0)]
    assert one.read() == (5.0, -1.0)


def test_keys_and_tables_are_counted_apart(seats: Seats) -> None:
    one, two = (SharedCounts(taken(seats)) for _ in range(2))
    pair(one).write(1.0, 0.0)
    pair(one, table=Table.CALLS).write(2.0, 0.0)
    pair(one, key_of("other")).write(4.0, 0.0)
    assert pair(two).of_others()[0] == 1.0
    assert pair(two, table=Table.CALLS).of_others()[0] == 2.0
    assert pair(two, key_of("nobody's")).of_others() == EMPTY


def test_a_worker_that_comes_later_is_seen_by_those_that_are_there(seats: Seats) -> None:
    one = pair(SharedCounts(taken(seats)))
    one.of_others()
    pair(SharedCounts(taken(seats))).write(3.0, -3.0)
    assert one.of_others() == (3.0, -3.0)


def test_keys_that_meet_are_told_apart(seats: Seats) -> None:
    """In different orders at the two workers, and when the one in front is gone."""
    one, two = (SharedCounts(taken(seats)) for _ in range(2))
    keys = [5 + PLACES * number for number in range(1, WINDOW + 1)]
    ones = {key: pair(one, key) for key in keys}
    twos = {key: pair(two, key) for key in reversed(keys)}
    for key in keys:
        ones[key].write(float(key), 0.0)
    assert [twos[key].of_others()[0] for key in keys] == keys
    ones.pop(keys[0]).release()
    assert [twos[key].of_others()[0] for key in keys] == [0.0, *keys[1:]]


def test_a_key_without_room_is_not_shared_until_there_is_some(seats: Seats) -> None:
    one = SharedCounts(taken(seats))
    held = [pair(one, PLACES * number) for number in range(1, WINDOW + 1)]
    late = PLACES * (WINDOW + 1)
    assert one.pair(Table.TALLIES, late) is None
    assert one.pair(Table.CALLS, late) is not None
    held[7].release()
    assert pair(one, late).read() == EMPTY


def test_the_last_places_of_a_table_have_their_whole_window(seats: Seats) -> None:
    seat, two = taken(seats), SharedCounts(taken(seats))
    one = SharedCounts(seat)
    keys = [PLACES * number - 1 for number in range(1, WINDOW + 1)]
    for key in keys:
        pair(one, key).write(float(key), 0.0)
        pair(one, key, Table.CALLS).write(2.0, 0.0)
    assert [pair(two, key).of_others()[0] for key in keys] == keys
    seats.leave(seat)
    assert [pair(two, key).of_others()[0] for key in keys] == keys
    assert [pair(two, key, Table.CALLS).of_others() for key in keys] == [EMPTY] * WINDOW


def test_what_a_worker_did_outlives_it_and_what_it_was_doing_does_not(seats: Seats) -> None:
    seat, other = taken(seats), SharedCounts(taken(seats))
    ended = SharedCounts(seat)
    pair(ended).write(5.0, -1.0)
    pair(ended, table=Table.CALLS).write(2.0, 0.0)
    seats.leave(seat)
    assert pair(other).of_others() == (5.0, -1.0)
    assert pair(other, table=Table.CALLS).of_others() == EMPTY
    successor = SharedCounts(taken(seats))
    assert pair(successor).read() == (5.0, -1.0)
    assert pair(successor, table=Table.CALLS).read() == EMPTY
    pair(successor).write(6.0, -2.0)
    assert pair(other).of_others() == (6.0, -2.0)


def test_a_worker_and_its_successor_do_not_share_a_seat(seats: Seats) -> None:
    old, new = taken(seats), taken(seats)
    assert old != new
    seats.leave(old)
    assert taken(seats) == old


def test_what_the_worker_before_left_makes_room(seats: Seats) -> None:
    seat = taken(seats)
    before = SharedCounts(seat)
    for number in range(1, WINDOW + 1):
        pair(before, PLACES * number).write(9.0, 0.0)
    seats.leave(seat)
    after, other = SharedCounts(taken(seats)), SharedCounts(taken(seats))
    late = PLACES * (WINDOW + 1)
    assert pair(after, late).read() == EMPTY
    assert pair(after, 2 * PLACES).read() == (9.0, 0.0)
    assert pair(other, 2 * PLACES).of_others()[0] == 9.0
    for number in range(WINDOW + 2, 2 * WINDOW):
        assert pair(after, PLACES * number).read() == EMPTY
    assert after.pair(Table.TALLIES, PLACES * 2 * WINDOW) is None


def test_a_worker_without_a_seat_counts_alone(seats: Seats, caplog: pytest.LogCaptureFixture) -> None:
    held = [taken(seats) for _ in range(4)]
    assert seats.take() is None
    assert "a new one counts alone" in caplog.text
    assert shared_counts(None) is None
    seats.leave(None)
    seats.leave(held[2])
    assert taken(seats) == held[2]


def test_memory_of_another_version_is_left_alone(seats: Seats, caplog: pytest.LogCaptureFixture) -> None:
    seat = taken(seats)
    assert shared_counts(seat) is not None
    SharedCounts(seat).words[0] = 99
    with caplog.at_level(logging.WARNING):
        assert shared_counts(seat) is None
    assert "in layout 99" in caplog.text


def test_a_worker_that_ends_after_the_memory_is_closed_is_no_obstacle() -> None:
    seats = Seats(1)
    seat = seats.take()
    seats.close()
    seats.leave(seat)


def test_keys_are_the_same_everywhere_and_apart() -> None:
    assert key_of("service 's'", 1.5, None) == key_of("service 's'", 1.5, None)
    names = ["", "s", "service 's'", "caller 's'"]
    assert len({key_of(name, rate, None) for name in names for rate in (1.0, 2.0)}) == 8
    assert key_of("service 's'") > 1
