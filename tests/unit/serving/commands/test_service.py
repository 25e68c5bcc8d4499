from tessera.v1 import admin_pb2


def test_list_shows_bindings(tessera, as_json):
    line = tessera("service", "list").stdout.splitlines()[1]
    assert line.split() == ["credit", "7", "lr:v2=100%", "scorecard", "yes"]
    assert as_json("service", "list")[0]["revision"] == 7


def test_show_tells_what_a_rollback_returns_to(tessera, as_json):
    assert "previous: lr:v1=100%" in tessera("service", "show", "credit").stdout.splitlines()
    assert as_json("service", "show", "credit")["previous"][0]["version"] == "v1"


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
