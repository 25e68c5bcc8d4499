from __future__ import annotations

import pytest

from bench.harness import bodies
from bench.harness.population import PATTERNS, expected_scores, user
from tessera.v1 import inference_pb2 as wire

SIGNATURE = "ab" * 32


def reply(number: int, hosts: int = 1, level: int = 0, **fields: object) -> bytes:
    score = expected_scores(hosts)[number % PATTERNS]
    parts = [wire.PartyOutcome(party="host0", level=level)]
    return wire.PredictReply(**{"score": [score], "complete": True, "parties": parts, **fields}).SerializeToString()


@pytest.mark.parametrize("named", [False, True])
def test_a_request_names_the_user_of_its_number(named: bool) -> None:
    body = bodies.predict(SIGNATURE, first=40, users=10, cases=True, named=named)
    request = wire.PredictRequest.FromString(body(13))
    assert (request.user_id, request.case_id) == (user(43), user(43))
    assert len(request.numbers if named else request.vector.numbers) == 20


def test_only_the_users_own_complete_score_is_right() -> None:
    request = bodies.predict(SIGNATURE, 0, 1_000)(200)
    right = bodies.predict_check(1)
    assert right(request, reply(200))
    assert not right(request, reply(201))
    assert not right(request, reply(200, hosts=2))
    assert not right(request, reply(200, complete=False))
    assert not right(request, reply(200, score=[]))


def test_an_answer_from_another_level_is_wrong() -> None:
    request = bodies.predict(SIGNATURE, 0, 1_000)(7)
    right = bodies.predict_check(1, levels=(3,))
    assert right(request, reply(7, level=3))
    assert not right(request, reply(7, level=2))
    assert not bodies.predict_check(1, cache=1)(request, reply(7))
    assert bodies.predict_check(1, cache=1)(request, reply(7, cache=1))


def test_batches_hold_the_next_users_and_start_over() -> None:
    body = bodies.batch(SIGNATURE, first=5, users=25, rows=10)
    users = [list(wire.BatchPredictRequest.FromString(body(number)).user_ids) for number in range(3)]
    assert users[0] == [user(number) for number in range(5, 15)]
    assert users[1] == [user(number) for number in range(15, 25)]
    assert users[2] == users[0]


def test_one_wrong_row_makes_a_batch_wrong() -> None:
    request = bodies.batch(SIGNATURE, 90, 20, 10)(0)
    right = bodies.batch_check(1, 10)
    scores = [expected_scores(1)[number % PATTERNS] for number in range(90, 100)]
    made = wire.BatchPredictReply(width=1, scores=scores, statuses=bytes(10))
    assert right(request, made.SerializeToString())
    made.statuses = bytes(9) + b"\x01"
    assert not right(request, made.SerializeToString())
    made.statuses = bytes(10)
    made.scores[4] += 1e-3
    assert not right(request, made.SerializeToString())
