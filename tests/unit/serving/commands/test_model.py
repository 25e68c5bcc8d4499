import grpc
import pytest

from tessera.v1 import admin_pb2


def variants(*triples):
    return [admin_pb2.VariantWeight(model=model, version=version, weight=weight) for model, version, weight in triples]


def test_load_shows_every_party(tessera, admin):
    result = tessera("model", "load", "lr", "v2")
    assert result.exit_code == 0
    assert admin.asked == [admin_pb2.PublishLoadRequest(model="lr", version="v2")]
    assert [line.split() for line in result.stdout.splitlines()[1:]] == [
        ["bank", "0", "already_loaded"],
        ["shop", "0", "loaded"],
    ]


def test_load_fails_when_a_party_fails(tessera):
    result = tessera("model", "load", "lr", "bad")
    assert result.exit_code == 1
    assert "shop   0        failed          digest differs" in result.stdout
    assert result.stderr == "Error: lr bad is not loaded at shop\n"


def test_load_as_json_has_the_digest_in_hexadecimal(as_json):
    assert as_json("model", "load", "lr", "v2")["binding_digest"] == "ab" * 32


def test_online_takes_the_revision_from_the_node(tessera, admin):
    result = tessera("model", "online", "credit", "lr:v2=99.5", "lr:v3=0.5", "--app", "scorecard")
    assert result.stdout == "credit revision 8: lr:v2=99.5%, lr:v3=0.5%\n"
    assert admin.asked[-1] == admin_pb2.PublishOnlineRequest(
        service="credit", revision=7, app="scorecard", variants=variants(("lr", "v2", 9950), ("lr", "v3", 50))
    )


def test_online_of_a_new_service_starts_at_revision_0(tessera, admin):
    assert tessera("model", "online", "fraud", "lr:v2", "--app-parameters", '{"a": 1}').exit_code == 0
    assert admin.asked[-1] == admin_pb2.PublishOnlineRequest(
        service="fraud", app_parameters='{"a": 1}', variants=variants(("lr", "v2", 10_000))
    )


def test_online_with_a_revision_does_not_ask_for_it(as_json, admin):
    assert as_json("model", "online", "credit", "lr:v2", "--revision", "3")["revision"] == 4
    assert len(admin.asked) == 1


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (["lr"], "'lr' is not MODEL:VERSION"),
        (["lr:v1=x"], "'lr:v1=x' is not MODEL:VERSION"),
        (["lr:v1", "lr:v2=50"], "'lr:v1' has no weight"),
        (["lr:v1=50", "lr:v2=49"], "the weights sum to 99 %, not 100 %"),
        (["lr:v1=99.999", "lr:v2=0.001"], "a weight has at most two decimals"),
    ],
)
def test_wrong_weights_are_refused_before_any_call(tessera, admin, given, reason):
    result = tessera("model", "online", "credit", *given)
    assert result.exit_code == 2
    assert reason in result.stderr
    assert admin.asked == []


def test_rollback_names_the_binding_it_returns_to(tessera, admin):
    assert tessera("model", "rollback", "credit").stdout == "credit revision 8: lr:v1=100%\n"
    assert admin.asked[-1] == admin_pb2.RollbackRequest(service="credit", revision=7)


def test_unload_can_be_forced(tessera, admin):
    assert tessera("model", "unload", "lr", "v1", "--force").stdout == "lr v1 is unloaded\n"
    assert admin.asked == [admin_pb2.UnloadRequest(model="lr", version="v1", force=True)]


def test_list_shows_what_is_held(tessera, as_json):
    header, line = tessera("model", "list").stdout.splitlines()
    assert header.split()[:5] == ["model", "version", "role", "format", "state"]
    assert " ".join(line.split()) == (
        "lr v2 guest tessera.linear READY 2023-11-14 22:13:20 1 of 1 READY abababababab service credit"
    )
    assert as_json("model", "list")["models"][0]["held_by"] == ["service credit"]


def test_list_names_replicas_that_lack_a_version_or_are_silent(tessera, admin):
    admin.at_replicas += [
        admin_pb2.ReplicaState(replica="b/1", state="FAILED", reason="no memory", age_ms=900),
        admin_pb2.ReplicaState(replica="b/2", state="READY", age_ms=4_100),
    ]
    line = " ".join(tessera("model", "list").stdout.splitlines()[1].split())
    assert "2 of 3 READY; b/1 FAILED; b/2 READY (4 s ago)" in line
    assert line.endswith("service credit b/1: no memory")


@pytest.mark.parametrize(
    ("status", "text", "line"),
    [
        (
            grpc.StatusCode.FAILED_PRECONDITION,
            "revision 3 is not current, 7 is",
            "FAILED_PRECONDITION: revision 3 is not current, 7 is",
        ),
        (
            grpc.StatusCode.NOT_FOUND,
            "no model lr",
            "NOT_FOUND: no model lr (`tessera model list` and `tessera service list` show what the node knows)",
        ),
        (grpc.StatusCode.INTERNAL, "internal error", "INTERNAL: internal error (the node's log says why)"),
        (grpc.StatusCode.UNAVAILABLE, "party shop: timeout", "UNAVAILABLE: party shop: timeout"),
    ],
)
def test_an_error_is_one_line_with_code_text_and_what_to_do(tessera, admin, status, text, line):
    admin.fails["Unload"] = (status, text)
    result = tessera("model", "unload", "lr", "v1")
    assert (result.exit_code, result.stderr) == (1, f"Error: {line}\n")


def test_a_node_that_is_not_there_is_named(tessera, nobody):
    result = tessera("model", "list", target=nobody)
    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: UNAVAILABLE: no node answers at {nobody} (as --admin says); "
        "start one with `tessera serve --config FILE`, or name another with --admin HOST:PORT\n"
    )


def test_online_takes_shadows(tessera, admin):
    result = tessera("model", "online", "credit", "lr:v2", "--shadow", "lr:v3=5", "--shadow", "lr:v4")
    assert result.stdout == "credit revision 8: lr:v2=100%, shadow lr:v3=5%, shadow lr:v4=100%\n"
    assert [(one.version, one.weight) for one in admin.asked[-1].shadows] == [("v3", 500), ("v4", 10_000)]
