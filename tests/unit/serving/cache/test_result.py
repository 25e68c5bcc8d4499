import hashlib

import numpy as np
import pytest
from msgspec.structs import replace

from apps.app import Request
from serving.cache.counts import Counts
from serving.cache.result import SHORT_BYTES, NoResults, ResultCache
from serving.cache.tier import MISS
from serving.telemetry.served import Repeats
from tests.clock import Clock

CASE = Request(
    service="s",
    model="",
    version="",
    case_id="c1",
    user_ids=("u1",),
    numbers={"a": 1.0, "b": 2.0},
    texts={"t": "x"},
    parameters={"p": "1"},
)


def by_case(cache, epochs, request, method="predict"):
    return cache.by_case(cache.case_of(method, request), epochs)


def store(cache, raw, request, epoch, reply):
    cache.store("predict", raw, cache.case_of("predict", request), epoch, reply, Repeats())


class Routes:
    """Epochs by address, as routing knows them."""

    def __init__(self):
        self.epochs = {("s", "", ""): 5}

    def __call__(self, address):
        return self.epochs.get(address, -1)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def epochs():
    return Routes()


@pytest.fixture
def cache(clock, epochs):
    cache = ResultCache(10, 120, clock)
    store(cache, b"raw", CASE, epochs(CASE.address), b"reply")
    return cache


def test_both_keys_lead_to_the_reply(cache, epochs):
    assert cache.by_raw("predict", b"raw", epochs).reply == b"reply"
    assert by_case(cache, epochs, CASE).reply == b"reply"
    assert (cache.counts.fills, cache.counts.hits, cache.counts.misses) == (1, 1, 0)


def test_long_requests_are_told_apart_too(cache, epochs):
    long, other = b"x" * SHORT_BYTES + b"a", b"x" * SHORT_BYTES + b"b"
    store(cache, long, CASE, epochs(CASE.address), b"of the long one")
    assert cache.by_raw("predict", long, epochs).reply == b"of the long one"
    assert cache.by_raw("predict", other, epochs) is MISS


def test_long_cases_are_told_apart_too_in_any_order(cache, epochs):
    numbers = {f"f{number}": float(number) for number in range(200)}
    long = replace(CASE, numbers=numbers)
    store(cache, b"long", long, 5, b"of the long one")
    assert len(cache.case_of("predict", long).key) < SHORT_BYTES
    turned = replace(CASE, numbers=dict(reversed(numbers.items())))
    assert by_case(cache, epochs, turned).reply == b"of the long one"
    assert by_case(cache, epochs, replace(CASE, numbers={**numbers, "f7": 8.0})) is MISS


def test_the_order_of_names_does_not_matter(cache, epochs):
    assert by_case(cache, epochs, replace(CASE, numbers={"b": 2.0, "a": 1.0})).reply == b"reply"


@pytest.mark.parametrize(
    "change",
    [
        {"service": "s2"},
        {"case_id": "c2"},
        {"user_ids": ("u2",)},
        {"numbers": {"a": 1.0}},
        {"numbers": {"a": 1.0, "b": 2.0000000001}},
        {"numbers": {"a": 2.0, "b": 1.0}},
        {"texts": {"t": "y"}},
        {"texts": {}},
        {"parameters": {"p": "2"}},
        {"parameters": {}, "texts": {"t": "x", "p": "1"}},
        {"matrix": np.zeros((1, 2)), "signature_hash": bytes(32)},
    ],
)
def test_the_same_case_id_with_other_content_is_another_case(cache, epochs, change):
    epochs.epochs["s2", "", ""] = 5
    assert by_case(cache, epochs, replace(CASE, **change)) is MISS


def test_packed_features_count_too(cache, epochs):
    packed = replace(CASE, numbers={}, matrix=np.array([[1.0, 2.0]]), signature_hash=b"h" * 32)
    store(cache, b"packed", packed, 5, b"packed reply")
    assert by_case(cache, epochs, packed).reply == b"packed reply"
    assert by_case(cache, epochs, replace(packed, matrix=np.array([[1.0, 3.0]]))) is MISS
    assert by_case(cache, epochs, replace(packed, signature_hash=b"i" * 32)) is MISS


def test_protocols_do_not_share_replies(cache, epochs):
    assert cache.by_raw("other", b"raw", epochs) is MISS
    assert by_case(cache, epochs, CASE, "other") is MISS


def test_another_epoch_is_a_miss_until_a_new_answer_is_stored(cache, epochs):
    epochs.epochs["s", "", ""] = 6
    assert cache.by_raw("predict", b"raw", epochs) is MISS
    assert by_case(cache, epochs, CASE) is MISS
    store(cache, b"raw", CASE, 6, b"newer")
    assert cache.by_raw("predict", b"raw", epochs).reply == b"newer"


def test_an_answer_made_under_an_old_epoch_is_never_given(cache, epochs):
    epochs.epochs["s", "", ""] = 6
    store(cache, b"raw", CASE, 5, b"late")
    assert cache.by_raw("predict", b"raw", epochs) is MISS


def test_an_address_that_leads_nowhere_is_not_stored(cache, epochs):
    del epochs.epochs["s", "", ""]
    store(cache, b"again", CASE, epochs(CASE.address), b"reply")
    assert cache.by_raw("predict", b"again", epochs) is MISS


def test_the_ttl_is_absolute(cache, clock, epochs):
    clock.tick(119)
    assert cache.by_raw("predict", b"raw", epochs).reply == b"reply"
    clock.tick(1)
    assert cache.by_raw("predict", b"raw", epochs) is MISS
    assert by_case(cache, epochs, CASE) is MISS


def test_without_a_case_id_there_is_no_second_key(cache, epochs):
    assert by_case(cache, epochs, replace(CASE, case_id="")) is MISS


def test_the_number_of_entries_is_bounded(cache, epochs):
    for number in range(100):
        store(cache, b"%d" % number, replace(CASE, case_id=f"n{number}"), 5, b"reply")
    assert len(cache) == 20
    assert cache.by_raw("predict", b"99", epochs).reply == b"reply"
    assert cache.by_raw("predict", b"raw", epochs) is MISS


def test_of_the_user_an_entry_holds_the_mark_alone(clock, epochs):
    cache = ResultCache(10, 120, clock, mark=lambda user_id: hashlib.sha256(user_id.encode()).digest())
    store(cache, b"raw", CASE, 5, b"reply")
    entry = cache.by_raw("predict", b"raw", epochs)
    assert entry.user == hashlib.sha256(b"u1").digest()
    assert "u1" not in repr(entry)


def test_a_request_that_neither_key_finds_is_one_miss(cache, epochs):
    assert cache.by_raw("predict", b"new", epochs) is MISS
    assert by_case(cache, epochs, replace(CASE, case_id="c2")) is MISS
    assert cache.counts.misses == 1


def test_what_goes_to_make_room_is_counted(cache, epochs):
    for number in range(12):
        store(cache, b"%d" % number, replace(CASE, case_id=str(number)), 5, b"reply")
    assert cache.counts.evictions == 2 * 3


def test_switched_off_it_makes_no_keys_and_counts_nothing(epochs):
    cache, unhashable = NoResults(), object()
    assert cache.case_of("predict", unhashable) is None
    assert cache.by_raw("predict", b"raw", epochs) is MISS
    assert by_case(cache, epochs, unhashable) is MISS
    assert (len(cache), cache.counts) == (0, Counts())
