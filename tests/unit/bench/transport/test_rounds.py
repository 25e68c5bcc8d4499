from __future__ import annotations

import pytest

from bench.transport.contenders import Kind
from bench.transport.report import goals
from bench.transport.rounds import SHAPES, Cell, Figure, Headers, cells, median

CELL = Cell(4, 32, Headers.PLAIN)


def figure(kind: Kind, rate: float, p50: float = 1.0, cell: Cell = CELL) -> Figure:
    return Figure(kind, cell, "h2load", rate, p50, 2.0, 0.1)


def test_every_shape_is_measured_with_every_kind_of_headers() -> None:
    assert len(set(cells(SHAPES))) == len(SHAPES) * len(Headers)


def test_a_median_is_not_moved_by_one_bad_round() -> None:
    assert median([figure(Kind.NATIVE, rate) for rate in (100, 3, 110)]).requests_per_s == 100


def test_goals_compare_servers_that_do_the_same_work() -> None:
    rates = {Kind.NATIVE: 120.0, Kind.GRPC_AIO: 10.0, Kind.NATIVE_MESSAGE: 40.0, Kind.GRPC_AIO_MESSAGE: 20.0}
    found = {goal.name: goal for goal in goals([figure(kind, rate) for kind, rate in rates.items()])}
    plain = found["native : grpc.aio at (4, 32), requests/s"]
    assert (plain.measured, plain.met) == (12.0, True)
    message = found["message, native : grpc.aio at (4, 32), requests/s"]
    assert (message.measured, message.met) == (2.0, False)
    absent = found["native : C++ callback at (4, 32), requests/s"]
    assert (absent.measured, absent.met) == (None, None)


def test_the_latency_goal_is_a_third_of_the_reference() -> None:
    cell = Cell(1, 1, Headers.PLAIN)
    found = goals([figure(Kind.NATIVE, 1, 0.1, cell), figure(Kind.GRPC_AIO, 1, 0.33, cell)])
    [latency] = [goal for goal in found if "p50" in goal.name]
    assert latency.measured == pytest.approx(3.3)
