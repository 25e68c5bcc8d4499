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
    assert figures.running == 0
    answered, unavailable = (dict(figures.seconds[code].cumulative()) for code in (Code.OK, Code.UNAVAILABLE))
    assert (answered["0.005"], answered["+Inf"]) == (1, 1)
    assert (unavailable["2.5"], unavailable["1.0"]) == (1, 0)
    assert abs(figures.seconds[Code.UNAVAILABLE].sum - 2.003) < 1e-9


def test_a_method_has_one_set_of_figures():
    figures = RequestFigures()
    assert figures.of("http", "/v1/predict") is figures.of("http", "/v1/predict")
    assert figures.of("http", "/v1/predict") is not figures.of("tessera.v1", "/v1/predict")
