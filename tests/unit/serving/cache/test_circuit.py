import pytest

from serving.cache.circuit import FAULTS_TO_OPEN, FIRST_PAUSE_S, LONGEST_PAUSE_S, Circuit
from tests.clock import Clock


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def circuit(clock):
    return Circuit("the store", clock)


def fail(circuit, times=FAULTS_TO_OPEN):
    for _ in range(times):
        circuit.failed("no answer")


def test_single_faults_do_not_open_it(circuit):
    for _ in range(10):
        fail(circuit, FAULTS_TO_OPEN - 1)
        circuit.succeeded()
    assert circuit.allows()


def test_faults_in_a_row_open_it_until_the_pause_is_over(circuit, clock):
    fail(circuit)
    assert circuit.is_open
    assert not circuit.allows()
    clock.tick(FIRST_PAUSE_S)
    assert circuit.allows()
    assert not circuit.allows(), "one attempt per pause"


def test_faults_of_attempts_that_began_before_do_not_lengthen_the_pause(circuit, clock):
    fail(circuit, 1_000)
    clock.tick(FIRST_PAUSE_S)
    assert circuit.allows()


def test_the_pause_doubles_up_to_a_bound(circuit, clock):
    fail(circuit)
    pause = FIRST_PAUSE_S
    for _ in range(12):
        clock.tick(pause)
        assert circuit.allows()
        circuit.failed("no answer")
        pause = min(2 * pause, LONGEST_PAUSE_S)
        failed_at = clock.now
        clock.now = failed_at + 0.99 * pause
        assert not circuit.allows()
        clock.now = failed_at
    assert pause == LONGEST_PAUSE_S


def test_an_attempt_that_never_reports_blocks_nothing(circuit, clock):
    fail(circuit)
    clock.tick(FIRST_PAUSE_S)
    assert circuit.allows()
    clock.tick(FIRST_PAUSE_S)
    assert circuit.allows()


def test_success_closes_it_and_it_starts_anew(circuit, clock):
    fail(circuit)
    clock.tick(FIRST_PAUSE_S)
    assert circuit.allows()
    circuit.succeeded()
    assert not circuit.is_open
    fail(circuit, FAULTS_TO_OPEN - 1)
    assert circuit.allows()


def test_it_says_down_once_and_back_once(circuit, clock, caplog):
    caplog.set_level("INFO")
    fail(circuit, 50)
    clock.tick(FIRST_PAUSE_S)
    circuit.allows()
    circuit.failed("still nothing")
    circuit.succeeded()
    circuit.succeeded()
    assert [record.getMessage() for record in caplog.records] == [
        "the store is down, going on without it: no answer",
        "the store is back",
    ]
