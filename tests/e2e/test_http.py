"""The HTTP port of real nodes: probes, figures, inference in JSON."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving.transport import Code, RpcError
from tessera.v1 import inference_pb2 as wire
from tests.e2e.test_two_parties import CASE, USERS, Parties, expected
from tests.nodes import ROOT, PartyNode

pytestmark = pytest.mark.usefixtures("transport")

PARTS = ("bucket", "count", "sum")
"""Of a histogram."""


@pytest.fixture(scope="module")
def parties(transport: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parties]:
    """Nodes that tests share and leave as they were. The guest could send traces, so that it has metrics of them."""
    both = Parties(tmp_path_factory.mktemp("parties"), "[traces]\nendpoint = 'http://127.0.0.1:1/v1/traces'\n")
    both.pair()
    both.start()
    try:
        both.guest.load("m", "1")
        both.guest.online("s", "m", "1")
        yield both
    finally:
        both.stop()


def sample(node: PartyNode, name: str, **labels: str) -> float:
    families = text_string_to_metric_families(node.http("GET", "/metrics").text)
    found = [
        one.value
        for family in families
        for one in family.samples
        if one.name == name and labels.items() <= one.labels.items()
    ]
    assert found, name
    return sum(found)


def named_metrics(text: str) -> set[str]:
    return set(re.findall(r"\btessera_[a-z0-9_]+(?![a-z0-9_/.-])", text))


CONSOLE = "serving/frontdoor/console/console.js"


@pytest.mark.parametrize("page", ["docs/grafana/tessera.json", "docs/operations.md", "docs/performance.md", CONSOLE])
def test_metrics_that_a_page_names_are_there(parties: Parties, page: str) -> None:
    shown = "".join(node.http("GET", "/metrics").text for node in (parties.guest, parties.host))
    families = dict(re.findall(r"^# TYPE (\S+) (\S+)$", shown, re.MULTILINE))
    histograms = {f"{name}_{part}" for name, kind in families.items() if kind == "histogram" for part in PARTS}
    asked = named_metrics((ROOT / page).read_text())
    assert len(asked) > 1
    assert asked <= families.keys() | histograms


def test_metrics_keep_to_the_naming_conventions(parties: Parties) -> None:
    for node in (parties.guest, parties.host):
        shown = node.http("GET", "/metrics").text
        families = dict(re.findall(r"^# TYPE (\S+) (\S+)$", shown, re.MULTILINE))
        about = dict(re.findall(r"^# HELP (\S+) (.+)$", shown, re.MULTILINE))
        assert families.keys() == about.keys()
        own = {name: kind for name, kind in families.items() if not name.startswith(("process_", "python_"))}
        assert len(own) > 30
        for name, kind in own.items():
            assert re.fullmatch(r"tessera_[a-z0-9]+(_[a-z0-9]+)*", name)
            assert name.endswith("_total") is (kind == "counter"), name
            assert not re.search(r"_(ms|milliseconds|micros|us|minutes|kb|kib|mb|mib|percent)(_|$)", name), name
        assert not re.search(r'tessera_[^\n]*[{,](user_id|case_id|user|case)="', shown)


def test_rows_are_counted_by_service_and_version(parties: Parties) -> None:
    def counted() -> float:
        return sample(parties.guest, "tessera_variant_rows_total", service="s", variant="m:1", shadow="false")

    parties.guest.predict(service="s", user_id="0001", numbers=CASE)
    before = counted()
    columns = {name: wire.NumberColumn(values=[value] * len(USERS)) for name, value in CASE.items()}
    parties.guest.batch(service="s", user_ids=list(USERS), numbers=columns)
    assert counted() == before + len(USERS)
    assert sample(parties.guest, "tessera_cache_entries", level="l2") == len(USERS)
    assert sample(parties.guest, "tessera_model_batches_waiting") == 0


def test_json_gives_the_score_that_grpc_gives(parties: Parties) -> None:
    body = {"service": "s", "user_id": "0001", "features": CASE}
    answer = parties.guest.http("POST", "/v1/predict", json=body)
    assert answer.status_code == 200
    assert answer.json()["score"] == [pytest.approx(expected("0001"), abs=1e-12)]
    parties_said = [(one["party"], one["status"]) for one in answer.json()["parties"]]
    assert parties_said == [("shop", "OK")]


def test_a_repeated_case_comes_from_the_result_cache(parties: Parties) -> None:
    body = {"service": "s", "case_id": "http-1", "user_id": "0003", "features": CASE}
    first, again = (parties.guest.http("POST", "/v1/predict", json=body).json() for _ in range(2))
    assert (first["cache"], again["cache"]) == ("NONE", "L1")
    assert first["score"] == again["score"]


def test_a_batch_in_json(parties: Parties) -> None:
    columns = {name: [value] * 4 for name, value in CASE.items()}
    body = {"service": "s", "user_ids": [*USERS, "stranger"], "columns": columns}
    answer = parties.guest.http("POST", "/v1/batch_predict", json=body).json()
    assert answer["statuses"] == ["OK", "OK", "OK", "NOT_FOUND"]
    assert answer["scores"][3] == [None]
    assert [score for [score] in answer["scores"][:3]] == [pytest.approx(expected(user), abs=1e-12) for user in USERS]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ("{", 400, "INVALID_ARGUMENT"),
        ('{"service": "none", "user_id": "0001"}', 404, "NOT_FOUND"),
        ('{"service": "s", "user_id": "stranger", "features": {"a": 1, "b": 2}}', 400, "FAILED_PRECONDITION"),
        ('{"service": "s", "user_id": "0001", "features": {"c": 1}}', 400, "INVALID_ARGUMENT"),
        ("x" * (5 << 20), 429, "RESOURCE_EXHAUSTED"),
    ],
)
def test_errors_have_a_status_and_a_text(parties: Parties, body: str, status: int, code: str) -> None:
    answer = parties.guest.http("POST", "/v1/predict", content=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.json()["error"]["message"]


def test_a_spent_deadline_is_said(parties: Parties) -> None:
    body = {"service": "s", "user_id": "0002", "features": CASE}
    answer = parties.guest.http("POST", "/v1/predict", json=body, headers={"x-timeout-ms": "0"})
    assert answer.status_code == 504
    wrong = parties.guest.http("POST", "/v1/predict", json=body, headers={"x-timeout-ms": "soon"})
    assert wrong.status_code == 400


def test_figures_follow_what_happens(parties: Parties) -> None:
    guest = parties.guest
    predicted = {"method": "/tessera.v1.Inference/Predict", "code": "OK"}
    before = sample(guest, "tessera_request_seconds_count", **predicted)
    guest.predict(service="s", user_id="0001", numbers=CASE)
    assert sample(guest, "tessera_request_seconds_count", **predicted) == before + 1
    asked = {"method": "/tessera.v1.Federation/Infer", "code": "OK"}
    assert sample(parties.host, "tessera_request_seconds_count", **asked) >= 1
    assert sample(guest, "tessera_model_state", model="m", version="1", state="ready") == 1
    assert sample(guest, "tessera_pool_bytes") > 0
    assert sample(guest, "tessera_cache_hits_total", level="l1") >= 1


def test_requests_are_counted_by_protocol_service_variant_code_and_cache(parties: Parties) -> None:
    body = {"service": "s", "case_id": "http-2", "user_id": "0003", "features": CASE}
    for _ in range(3):
        parties.guest.http("POST", "/v1/predict", json=body)
    parties.guest.http("POST", "/v1/predict", content="{")
    answered = {"protocol": "http", "service": "s", "variant": "m:1", "code": "OK"}
    assert sample(parties.guest, "tessera_requests_total", **answered, cache="none") >= 1
    assert sample(parties.guest, "tessera_requests_total", **answered, cache="l1") >= 2
    unread = {"protocol": "http", "service": "", "variant": "", "code": "INVALID_ARGUMENT"}
    assert sample(parties.guest, "tessera_requests_total", **unread) >= 1


def test_raw_ids_stay_out_of_the_figures(parties: Parties) -> None:
    parties.guest.predict(service="s", user_id="0002", numbers=CASE)
    assert '"0002"' not in parties.guest.http("GET", "/metrics").text  # as a label; numbers may hold any digits


def test_the_console_is_a_page_that_may_run_nothing_but_its_own_files(parties: Parties) -> None:
    page = parties.guest.http("GET", "/console")
    policy = dict(one.split(" ", 1) for one in page.headers["content-security-policy"].split("; "))
    assert policy == {
        "default-src": "'none'",
        **dict.fromkeys(("script-src", "style-src", "connect-src", "img-src"), "'self'"),
        **dict.fromkeys(("base-uri", "form-action", "frame-ancestors"), "'none'"),
    }
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert page.headers["x-content-type-options"] == "nosniff"
    files = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert files == ["/console/console.css", "/console/console.js"]
    for path, kind in zip(files, ("text/css", "text/javascript"), strict=True):
        file = parties.guest.http("GET", path)
        assert (file.status_code, file.headers["content-type"].split(";")[0]) == (200, kind)
        assert file.headers["content-security-policy"] == page.headers["content-security-policy"]
    assert parties.guest.http("POST", "/console").status_code == 405
    assert parties.guest.http("GET", "/console/../access.py").status_code == 404


def test_the_console_shows_models_and_services_as_they_are(parties: Parties) -> None:
    guest = parties.guest
    before = guest.http("GET", "/console/data").json()
    guest.predict(service="s", user_id="0002", numbers=CASE)
    answer = guest.http("GET", "/console/data")
    shown = answer.json()
    [model], [service] = shown["models"], shown["services"]
    assert (shown["party"], model["model"], model["state"], model["role"]) == ("bank", "m", "READY", "guest")
    assert model["bytes"] > 0
    assert (model["replicas"], model["replicas_ready"], model["held_by"]) == (1, 1, ["service 's'"])
    assert shown["pool"]["bytes"] == model["bytes"]
    assert (service["service"], service["revision"], service["is_default"]) == ("s", 1, False)
    assert service["variants"] == [{"variant": "m:1", "weight": 10_000, "shadow": False}]
    [figures] = service["figures"]
    earlier = before["services"][0]["figures"]
    assert figures["answers"] == (earlier[0]["answers"] if earlier else 0) + 1
    assert (sum(figures["times"]), len(figures["times"])) == (figures["answers"], len(shown["bounds_s"]) + 1)
    assert '"0002"' not in answer.text
    assert not any(f'"{feature}"' in answer.text for feature in CASE)


def test_the_probes_say_what_is_so(tmp_path: Path) -> None:
    both = Parties(tmp_path)
    both.pair()
    both.pair(model="n")
    both.start()
    guest = both.guest
    try:
        for model in ("m", "n"):
            guest.load(model, "1")
            guest.online(model, model, "1")
        assert guest.http("GET", "/healthz").text == "ok\n"
        told = guest.http("GET", "/readyz").json()
        [own] = told.pop("replicas")
        assert told == {"ready": True, "state": "ready", "problems": []}
        assert set(own["models"].values()) == {"READY"}
        guest.stop()
        shutil.rmtree(guest.registry / "n")
        guest.start()
        answer = guest.http("GET", "/readyz")
        assert (answer.status_code, answer.json()["ready"]) == (200, True)
        [problem] = answer.json()["problems"]
        assert problem.startswith("model n/1 does not load")
    finally:
        both.stop()


def test_a_service_has_its_limit_on_every_protocol(tmp_path: Path) -> None:
    limits = "[limits.services.s]\nper_s = 0.5\nburst = 2\n[limits.models.m]\nconcurrent = 50\n"
    both = Parties(tmp_path, guest_settings=limits)
    both.pair()
    both.start()
    try:
        both.guest.load("m", "1")
        both.guest.online("s", "m", "1")
        body = {"service": "s", "case_id": "c", "user_id": "0001", "features": CASE}
        answers = [both.guest.http("POST", "/v1/predict", json=body) for _ in range(3)]
        assert [one.status_code for one in answers] == [200, 200, 429]
        assert answers[2].json()["error"]["message"] == "service 's' is limited to 0.5 rows a second"
        assert int(answers[2].headers["retry-after"]) in {1, 2}
        with pytest.raises(RpcError) as caught:
            both.guest.predict(service="s", user_id="0001", numbers=CASE)
        assert caught.value.code is Code.RESOURCE_EXHAUSTED
        assert 0 < int(dict(caught.value.trailing_metadata)["grpc-retry-pushback-ms"]) <= 2000
        assert both.guest.predict(model="m", version="1", user_id="0001", numbers=CASE).complete
    finally:
        both.stop()
