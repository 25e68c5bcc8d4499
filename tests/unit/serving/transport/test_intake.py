"""What calls may have kept for them: alone, beside others of their connection, beside other connections."""

import pytest

from serving.transport import Code, RpcError
from serving.transport.intake import Intake, Store

LIMIT = 1600
SHARE, ROOM = 400, 100


class Call:
    def __init__(self):
        self.returned = 0

    def returns(self, count):
        self.returned += count


def intakes(count):
    store = Store(LIMIT)
    return store, [Intake(store) for _ in range(count)]


def refused(intake, call, size):
    with pytest.raises(RpcError) as caught:
        intake.keep(call, size)
    return caught.value.code is Code.RESOURCE_EXHAUSTED


def test_a_call_alone_may_be_as_large_as_a_message_may_be():
    store, (intake,) = intakes(1)
    intake.keep(call := Call(), 10 * LIMIT)
    intake.give_back(call, 7)
    assert (call.returned, store.kept_bytes) == (7, 10 * LIMIT)
    intake.release(call)
    assert (intake.kept_bytes, store.kept_bytes) == (0, 0)


def test_a_connection_has_its_share():
    store, (intake, other) = intakes(2)
    first, second = Call(), Call()
    intake.keep(first, SHARE)
    assert refused(intake, second, 1)
    other.keep(Call(), SHARE)
    intake.keep(first, SHARE - 50)
    intake.keep(second, 50)
    assert store.kept_bytes == 2 * SHARE


def test_all_connections_have_what_the_server_has():
    store, several = intakes(5)
    for intake in several[:4]:
        intake.keep(Call(), SHARE)
    assert refused(several[4], Call(), 1)
    assert store.kept_bytes == LIMIT


def test_beyond_the_room_the_first_goes_on_and_the_others_wait_for_it():
    _, (intake,) = intakes(1)
    first, second, third = Call(), Call(), Call()
    for call in (first, second, third):
        intake.keep(call, 60)
        intake.give_back(call, 60)
    assert (first.returned, second.returned, third.returned) == (60, 0, 0)
    intake.keep(first, 120)
    intake.give_back(first, 60)
    assert first.returned == 120
    intake.release(first)
    assert (second.returned, third.returned) == (60, 0)
    intake.release(second)
    assert third.returned == 60


def test_a_call_that_needs_less_makes_room():
    _, (intake,) = intakes(1)
    first, second = Call(), Call()
    intake.keep(first, 90)
    intake.keep(second, 50)
    intake.give_back(second, 50)
    assert second.returned == 0
    intake.keep(first, 40)
    assert second.returned == 50


def test_a_call_that_waits_may_end():
    store, (intake,) = intakes(1)
    first, second = Call(), Call()
    intake.keep(first, 90)
    intake.keep(second, 50)
    intake.give_back(second, 50)
    intake.release(second)
    intake.release(first)
    assert (second.returned, store.kept_bytes) == (0, 0)
