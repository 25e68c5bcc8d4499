import asyncio
import secrets

import pytest

from serving import activity
from serving.activity import DAY_S, Activity, IdSeal
from serving.activity_store import MemoryActivityStore
from serving.errors import InvalidRequestError, NotReadyError
from tests.clock import Clock

SECRET = secrets.token_bytes(32)
DAY = 20_000


class Store(MemoryActivityStore):
    """Remembers what it was given; fails when told to."""

    def __init__(self):
        super().__init__(100)
        self.given = []
        self.given_in, self.turns = [], 0
        self.fails_after = 1_000

    async def add(self, day, counted):
        if len(self.given) >= self.fails_after:
            raise OSError("down")
        self.given.append(counted)
        self.given_in.append(self.turns)
        await super().add(day, counted)


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def clock():
    return Clock(DAY * DAY_S + 10)


@pytest.fixture
def counting(store, clock):
    return Activity(store, IdSeal(SECRET, "bank"), clock)


async def test_the_most_active_come_first(counting):
    counting.count("s", ("a", "b"))
    counting.count("s", ("b",))
    counting.count("t", ("c",))
    found = await counting.top("s", (DAY, DAY), 0, 10)
    assert (found.user_ids, found.counts, found.total_users, found.total_count) == (["b", "a"], [2, 1], 2, 3)


async def test_users_known_by_their_sealed_ids_are_the_same_users(counting, store):
    counting.count("s", ("a", "b", "b"))
    for _ in range(2):
        counting.count_again("s", counting.seal("a"))
    for service, nobody in (("s", counting.seal("")), ("", counting.seal("a"))):
        counting.count_again(service, nobody)
    found = await counting.top("s", (DAY, DAY), 0, 10)
    assert (found.user_ids, found.counts, found.total_count) == (["a", "b"], [3, 2], 5)


async def test_no_raw_id_reaches_the_store(counting, store):
    counting.count("s", ("somebody",))
    await counting.flush()
    assert "somebody" not in repr(store.given)


async def test_replicas_seal_alike_and_other_secrets_and_parties_cannot_open():
    seal = IdSeal(SECRET, "bank")
    assert seal.seal("u") == IdSeal(SECRET, "bank").seal("u")
    assert seal.open(seal.seal("ü")) == "ü"
    for other in (IdSeal(secrets.token_bytes(32), "bank"), IdSeal(SECRET, "shop")):
        assert other.open(seal.seal("u")) is None


async def test_what_cannot_be_stored_waits_and_is_counted_once(counting, store, caplog):
    users = [f"u{number}" for number in range(activity.PIECE + 50)]
    counting.count("s", users)
    store._max_users = 1_000
    store.fails_after = 1
    await counting.flush()
    await counting.flush()
    assert [record.getMessage() for record in caplog.records] == ["activity of users waits in memory: down"]
    store.fails_after = 1_000
    found = await counting.top("s", (DAY, DAY), 0, 1_000)
    assert sorted(found.user_ids) == sorted(users)
    assert set(found.counts) == {1}


async def test_others_run_between_two_pieces(counting, store):
    turns = 0

    def turn():
        nonlocal turns
        turns += 1
        store.turns = turns
        asyncio.get_running_loop().call_soon(turn)

    turn()
    counting.count("s", [f"u{number}" for number in range(3 * activity.PIECE)])
    await counting.flush()
    assert len(set(store.given_in)) == 3


async def test_memory_is_bounded(counting, monkeypatch):
    monkeypatch.setattr(activity, "MAX_HELD", 2)
    counting.count("s", ("a", "b", "c", "a"))
    found = await counting.top("s", (DAY, DAY), 0, 10)
    assert sorted(zip(found.user_ids, found.counts, strict=True)) == [("a", 2), ("b", 1)]
    assert counting.shed == 1
    counting.count("s", ("a", "b"))
    for user in ("a", "c", "c"):
        counting.count_again("s", counting.seal(user))
    assert counting.shed == 4


async def test_calls_without_a_user_or_a_service_are_nobodys(counting, store):
    counting.count("s", ("",))
    counting.count("", ("a",))
    await counting.flush()
    assert store.given == []


async def test_days_are_apart(counting, clock):
    counting.count("s", ("a",))
    await counting.flush()
    clock.tick(DAY_S)
    counting.count("s", ("b",))
    assert (await counting.top("s", (DAY + 1, DAY + 1), 0, 10)).user_ids == ["b"]


async def test_stop_stores_what_waits(counting, store):
    await counting.start()
    counting.count("s", ("a",))
    await counting.stop()
    assert len(store.given) == 1


@pytest.mark.parametrize(("days", "limit"), [((DAY, DAY - 1), 1), ((DAY, DAY + 31), 1), ((DAY, DAY), 0)])
async def test_what_cannot_be_asked_is_refused(counting, days, limit):
    with pytest.raises(InvalidRequestError):
        await counting.top("s", days, 0, limit)


async def test_a_store_that_is_down_is_said(counting, store, monkeypatch):
    async def down(*_):
        raise OSError("down")

    monkeypatch.setattr(store, "top", down)
    with pytest.raises(NotReadyError):
        await counting.top("s", (DAY, DAY), 0, 1)
