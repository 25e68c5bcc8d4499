from tessera.v1 import admin_pb2


def test_list_shows_bindings(tessera, as_json):
    line = tessera("service", "list").stdout.splitlines()[1]
    assert line.split() == ["credit", "7", "lr:v2=100%", "scorecard", "yes"]
    assert as_json("service", "list")[0]["revision"] == 7


def test_show_tells_what_a_rollback_returns_to(tessera, as_json):
    assert "previous: lr:v1=100%" in tessera("service", "show", "credit").stdout.splitlines()
    assert as_json("service", "show", "credit")["previous"][0]["version"] == "v1"


def test_show_has_the_figures_of_every_variant(tessera, as_json):
    lines = tessera("service", "show", "credit").stdout.splitlines()
    assert lines[-2].split() == ["lr:v2", "1000", "0.1", "0.2", "0.3", "0.4", "0.5", "10/90", "0.75", "0.5", "2", "10"]
    assert lines[-1].split() == ["lr:v3", "(shadow)", "0", "0/0"]
    counted, shadow = as_json("service", "show", "credit")["figures"]
    assert (counted["auc"], counted["answers"]) == (0.75, 1_000)
    assert (shadow["auc"], shadow["shadow"]) == (None, True)


def test_show_of_an_unknown_service_names_the_known_ones(tessera):
    result = tessera("service", "show", "nothing")
    assert (result.exit_code, result.stderr) == (1, "Error: NOT_FOUND: no service nothing; known: credit\n")


def test_default_is_set_and_cleared(tessera, as_json, admin):
    assert tessera("service", "default", "credit").stdout == "default service: credit\n"
    assert as_json("service", "default", "--none") == {"service": ""}
    assert admin.asked == [
        admin_pb2.SetDefaultServiceRequest(service="credit"),
        admin_pb2.SetDefaultServiceRequest(service=""),
    ]


def test_default_needs_one_of_service_and_none(tessera, admin):
    assert tessera("service", "default").exit_code == 2
    assert tessera("service", "default", "credit", "--none").exit_code == 2
    assert admin.asked == []


def test_remove_takes_the_revision_from_the_node(tessera, as_json, admin):
    assert tessera("service", "remove", "credit").stdout == "credit is removed\n"
    assert admin.asked[-1] == admin_pb2.RemoveServiceRequest(service="credit", revision=7)
    assert as_json("service", "remove", "credit", "--revision", "3") == {"service": "credit", "removed": True}
    assert admin.asked[-1] == admin_pb2.RemoveServiceRequest(service="credit", revision=3)


def test_what_is_not_there_is_removed(tessera):
    result = tessera("service", "remove", "nothing")
    assert (result.exit_code, result.stdout) == (0, "there is no service nothing\n")
