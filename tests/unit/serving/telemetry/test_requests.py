from serving.telemetry.requests import RequestFigures
from serving.transport import Code
from tests.clock import Clock


def test_a_request_is_counted_by_how_it_ended_and_how_long_it_took():
    clock = Clock()
    figures = RequestFigures(clock).of("tessera.v1", "/m")
    first, second = figures.start(), figures.start()
    assert figures.running == 2
    clock.tick(0.003)
    figures.finish(first)
    clock.tick(2)
    figures.finish(second, Code.UNAVAILABLE)
    assert (figures.running, figures.codes) == (0, {Code.OK: 1, Code.UNAVAILABLE: 1})
    assert dict(figures.seconds.cumulative())["0.005"] == 1
    assert abs(figures.seconds.sum - 2.006) < 1e-9


def test_a_method_has_one_set_of_figures():
    figures = RequestFigures()
    assert figures.of("http", "/v1/predict") is figures.of("http", "/v1/predict")
    assert figures.of("http", "/v1/predict") is not figures.of("tessera.v1", "/v1/predict")
