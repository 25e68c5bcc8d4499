from types import SimpleNamespace

import numpy as np

from apps.app import Response
from apps.catalog import make_app
from serving.pool import ModelId
from serving.routing import Target
from serving.telemetry.served import MAX_ENDED, MAX_VARIANTS, Served, served_metrics
from serving.transport import Code

APP = make_app("passthrough")


def target(revision=1, service="s", variant="m:1"):
    return Target(ModelId("m", "1"), APP, variant, service, revision)


def by(*protocols):
    return [SimpleNamespace(protocol=protocol) for protocol in protocols]


def response(*variants, model="m"):
    return Response(np.zeros((max(1, len(variants)), 1)), model, "1" if model else "", variants, True)


def requests(served):
    """By protocol, service, variant, code and cache."""
    family = next(iter(served_metrics(served)))
    return {
        tuple(one.labels[name] for name in ("protocol", "service", "variant", "code", "cache")): one.value
        for one in family.samples
        if one.name == "tessera_requests_total"
    }


def test_requests_are_counted_by_protocol_service_variant_and_code_whatever_the_revision():
    served = Served()
    served.answered(by("http", "oip", "http"), target(1))
    served.answered(by("http"), target(2))
    served.answered(by("oip"), target(service="", variant=""))
    served.count(("http", "s", "m:1"), Code.UNAVAILABLE, 2)
    served.count(("http", "s", ""), Code.RESOURCE_EXHAUSTED)
    assert requests(served) == {
        ("http", "s", "m:1", "OK", "none"): 3,
        ("oip", "s", "m:1", "OK", "none"): 1,
        ("oip", "", "m:1", "OK", "none"): 1,
        ("http", "s", "m:1", "UNAVAILABLE", "none"): 2,
        ("http", "s", "", "RESOURCE_EXHAUSTED", "none"): 1,
    }
    assert requests(served)["http", "s", "m:1", "OK", "none"] == 3, "to look changes nothing"


def test_revisions_that_come_and_go_take_no_memory_and_no_count():
    served = Served()
    for revision in range(3_000):
        served.answered(by("http"), target(revision))
    assert requests(served) == {("http", "s", "m:1", "OK", "none"): 3_000}
    assert len(served._answered) <= MAX_VARIANTS


def test_versions_that_come_and_go_take_no_memory():
    served = Served()
    for version in range(6 * MAX_VARIANTS):
        served.answered(by("http"), target(variant=f"m:{version}"))
        served.answered(by("http"), target(variant="m:old"))
        served.count(("http", "s", f"m:{version}"), Code.INTERNAL)
        served.repeats("http", "s", response(f"m:{version}"))
    shown = requests(served)
    assert len(shown) <= MAX_ENDED + 2 * MAX_VARIANTS
    assert shown["http", "s", "m:old", "OK", "none"] == 6 * MAX_VARIANTS, "what still answers is not forgotten"
    assert ("http", "s", "m:0", "INTERNAL", "none") not in shown


def test_repeats_are_counted_where_the_answer_was():
    served = Served()
    first, again = (served.repeats("http", "s", response("m:1")) for _ in range(2))
    explicit, several = (served.repeats("oip", "", response()), served.repeats("oip", "s", response("m:1", "m:2")))
    for repeats in (first, again, explicit, several):
        repeats.calls += 1
    assert requests(served) == {
        ("http", "s", "m:1", "OK", "l1"): 2,
        ("oip", "", "m:1", "OK", "l1"): 1,
        ("oip", "s", "", "OK", "l1"): 1,
    }


def test_rows():
    served = Served()
    served.single = 7
    served.rows.observe(40)
    _, rows = served_metrics(served)
    counted = {one.labels.get("le", one.name): one.value for one in rows.samples}
    assert (counted["1"], counted["20"], counted["50"], counted["+Inf"]) == (7, 7, 8, 8)
    assert counted["tessera_request_rows_sum"] == 47
