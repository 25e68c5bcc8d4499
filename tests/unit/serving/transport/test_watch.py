"""What a peer may leave unfinished, and for how long; a clock that is ticked, no sockets."""

import pytest

from serving.transport import frames
from serving.transport.connection import Connection
from serving.transport.frames import Setting
from serving.transport.streams import ConnectionLimits
from serving.transport.watch import Uploads, Watch
from tests.unit.serving.transport.test_connection import HELLO, REQUEST, Sink, request

KEEPALIVE_S = 20.0


class Scene:
    """A server's connection, its watch, and a peer that says something once a second."""

    def __init__(self, *greeting: bytes) -> None:
        self.now = 0.0
        self.sink = Sink()
        self.connection = Connection(self.sink, lambda fields: fields, ConnectionLimits(), lambda: self.now, False)
        self.watch = Watch(self.connection, KEEPALIVE_S, self.now)
        self.hear(*greeting)

    def hear(self, *parts: bytes) -> None:
        self.connection.receive(b"".join(parts))
        self.watch.heard_at = self.now

    def given_up(self, drops, within_s: int):
        """(reason, seconds) once the watch gives the peer up; each of its drops comes a second later."""
        for drop in drops:
            self.now += 1
            if drop:
                self.hear(drop)
            reason = self.watch.verdict(self.now)
            if reason is not None or self.now > within_s:
                return reason, self.now
        return None, self.now


def one_by_one(text: bytes):
    return [bytes((byte,)) for byte in text]


LONG = frames.frame(frames.DATA, 0, 1, b"x" * 1000)
PENDING = (frames.settings({Setting.INITIAL_WINDOW_SIZE: 0}), request(1))


@pytest.mark.parametrize(
    ("greeting", "drops", "reason", "after_s"),
    [
        ((), one_by_one(HELLO), "handshake timeout", 11),
        ((frames.PREFACE,), [b""] * 100, "handshake timeout", 11),
        ((HELLO, frames.frame(frames.HEADERS, 0, 1, REQUEST)), [b""] * 100, "slow headers", 12),
        (
            (HELLO, frames.frame(frames.HEADERS, 0, 1, REQUEST)),
            one_by_one(frames.frame(frames.CONTINUATION, 0, 1, b"") * 12),
            "slow headers",
            12,
        ),
        ((HELLO, request(1, end=False)), one_by_one(LONG), "slow frame", 62),
        ((HELLO,), [b""] * 100, "silent", 41),
    ],
    ids=["preface", "no settings", "silent block", "slow block", "slow frame", "silence"],
)
def test_what_never_ends_is_given_up(greeting, drops, reason, after_s):
    assert Scene(*greeting).given_up(drops, 100) == (reason, after_s)


def test_a_window_that_stays_shut_is_given_up_though_the_peer_talks():
    scene = Scene(HELLO, *PENDING)
    scene.connection.send_data(scene.sink.streams[0], b"x" * 100)
    assert scene.given_up([frames.frame(0xEE, 0, 0)] * 100, 100) == ("stalled", 62)


def test_slow_progress_is_progress():
    scene = Scene(HELLO, *PENDING)
    stream = scene.sink.streams[0]
    for _ in range(300):  # as much is said as is taken, so that what waits is always the same
        scene.connection.send_data(stream, b"x" * 10)
        scene.now += 30
        scene.hear(frames.window_update(1, 10))
        assert scene.watch.verdict(scene.now) is None
    whole = Scene(HELLO, request(1, end=False))
    assert whole.given_up([LONG[:500], *[LONG[500:] + LONG[:500]] * 300], 250) == (None, 251)


def test_a_silent_peer_is_asked_once_and_may_answer():
    scene = Scene(HELLO)
    scene.now = 21
    assert scene.watch.should_ask(scene.now)
    scene.connection.ping()
    assert not scene.watch.should_ask(scene.now)
    scene.hear(frames.frame(frames.PING, frames.ACK, 0, b"tessera\0"))
    assert scene.watch.verdict(60) is None
    assert scene.watch.should_ask(42.5)


def test_a_peer_that_is_not_read_is_not_silent_while_it_takes_output():
    scene = Scene(HELLO, request(1))
    scene.watch.unread = True
    for step in range(20):
        scene.now += 30
        assert scene.watch.verdict(scene.now, 100_000 - step) is None
        assert not scene.watch.should_ask(scene.now)
    scene.watch.read_again(scene.now)
    assert scene.watch.verdict(scene.now + 39) is None
    assert scene.watch.should_ask(scene.now + 21)
    assert scene.watch.verdict(scene.now + 41) == "silent"


@pytest.mark.parametrize("unsent", [lambda second: 100_000, lambda second: 100_000 + second])
def test_a_peer_that_takes_nothing_is_given_up(unsent):
    """However much is added meanwhile."""
    scene = Scene(HELLO, request(1))
    scene.watch.unread = True
    reasons = [scene.watch.verdict(float(second), unsent(second)) for second in range(1, 70)]
    assert reasons.index("stalled") in {60, 61}


def test_every_pause_has_its_own_time():
    scene = Scene(HELLO, request(1))
    for step in range(10):
        scene.now += 30
        scene.watch.read_again(scene.now)
        scene.watch.unread = True
        assert scene.watch.verdict(scene.now, 1000 + step) is None


def test_what_began_is_not_slow_while_nobody_reads_it():
    scene = Scene(HELLO, frames.frame(frames.HEADERS, 0, 1, REQUEST), LONG[:20])
    scene.watch.unread = True
    assert [scene.watch.verdict(float(second), 1000 - second) for second in range(1, 200)] == [None] * 199


class Upload:
    def __init__(self, deadline=None):
        self.deadline, self.arrived, self.awaits_request = deadline, 0, True


def test_requests_that_do_not_go_on_are_named_unless_a_deadline_ends_them():
    uploads, stuck, slow, timed, whole = Uploads(), Upload(), Upload(), Upload(500.0), Upload()
    whole.awaits_request = False
    found = {}
    for second in range(1, 200):
        slow.arrived += second % 50 == 0
        for call in uploads.overdue((stuck, slow, timed, whole), float(second)):
            found.setdefault(call, second)
    assert found == {stuck: 62}
    assert not uploads.overdue((), 200.0)
    assert not uploads.overdue((stuck,), 300.0)  # seen anew
