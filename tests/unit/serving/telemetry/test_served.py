from apps.catalog import make_app
from serving.pool import ModelId
from serving.routing import Target
from serving.telemetry.served import Served, served_metrics
from serving.transport import Code

APP = make_app("passthrough")


def target(revision, service="s", variant="m:1"):
    return Target(ModelId("m", "1"), APP, variant, service, revision)


def requests(served):
    family = next(iter(served_metrics(served)))
    return {tuple(one.labels.values()): one.value for one in family.samples if one.name.endswith("_total")}


def test_calls_are_counted_by_service_variant_and_code_whatever_the_revision():
    served = Served()
    served.answered(target(1), 3)
    served.answered(target(2), 2)
    served.answered(target(0, service="", variant=""), 1)
    served.failed("s", "m:1", Code.UNAVAILABLE, 2)
    served.failed("s", "", Code.RESOURCE_EXHAUSTED)
    assert requests(served) == {
        ("s", "m:1", "OK"): 5,
        ("", "m:1", "OK"): 1,
        ("s", "m:1", "UNAVAILABLE"): 2,
        ("s", "", "RESOURCE_EXHAUSTED"): 1,
    }
    assert requests(served)["s", "m:1", "OK"] == 5, "to look changes nothing"


def test_revisions_that_come_and_go_take_no_memory_and_no_count():
    served = Served()
    for revision in range(3_000):
        served.answered(target(revision), 1)
    assert requests(served) == {("s", "m:1", "OK"): 3_000}
    assert len(served._answered) < 1_100


def test_repeats_and_rows():
    served = Served()
    for _ in range(2):
        served.repeat("s")
    served.single = 7
    served.rows.observe(40)
    _, repeats, rows = served_metrics(served)
    assert [one.value for one in repeats.samples if one.name.endswith("_total")] == [2]
    counted = {one.labels.get("le", one.name): one.value for one in rows.samples}
    assert (counted["1"], counted["20"], counted["50"], counted["+Inf"]) == (7, 7, 8, 8)
    assert counted["tessera_request_rows_sum"] == 47
