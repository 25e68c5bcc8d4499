from prometheus_client.parser import text_string_to_metric_families

from serving.telemetry.exposition import Exposition, counter, gauge, request_metrics
from serving.telemetry.requests import RequestFigures
from serving.transport import Code


def samples(text):
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_requests_show_by_method_and_code():
    figures = RequestFigures()
    method = figures.of("tessera.v1", "/m")
    method.finish(method.start(), Code.NOT_FOUND)
    method.start()
    labels = {"protocol": "tessera.v1", "method": "/m"}
    found = samples(Exposition([lambda: request_metrics(figures)]).text())
    assert found["tessera_request_seconds_count", frozenset({**labels, "code": "NOT_FOUND"}.items())] == 1
    assert found["tessera_request_seconds_count", frozenset({**labels, "code": "OK"}.items())] == 0
    assert found["tessera_requests_running", frozenset(labels.items())] == 1


def test_readings_are_taken_when_asked_for():
    value = [1.0]
    exposition = Exposition([lambda: [counter("tessera_x", "X.", [({}, value[0])]), gauge("tessera_y", "Y.", [])]])
    assert samples(exposition.text())["tessera_x_total", frozenset()] == 1
    value[0] = 7.0
    assert samples(exposition.text())["tessera_x_total", frozenset()] == 7


def test_the_process_is_there_too():
    names = {name for name, _ in samples(Exposition([]).text())}
    assert {"process_cpu_seconds_total", "python_info", "tessera_build_info"} <= names
