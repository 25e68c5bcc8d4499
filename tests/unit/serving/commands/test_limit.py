import grpc

from tessera.v1 import admin_pb2


def test_a_limit_is_set(tessera, as_json, admin):
    said = tessera("limit", "set", "service", "credit", "--rate", "2.5", "--burst", "9", "--concurrent", "3").stdout
    assert said == "service credit: 2.5 rows a second, burst 9, 3 calls at once\n"
    bounds = {"per_s": 0.0, "burst": None, "concurrent": None, "across_nodes": False}
    assert as_json("limit", "set", "model", "m", "--rate", "0") == {"kind": "model", "name": "m", "limit": bounds}
    assert tessera("limit", "set", "caller", "big", "--unlimited").stdout == "caller big: unlimited\n"
    shared = tessera("limit", "set", "service", "s", "--rate", "5", "--across-nodes").stdout
    assert shared == "service s: 5 rows a second, at all nodes together\n"
    request = admin_pb2.SetLimitRequest
    assert admin.asked == [
        request(
            kind=admin_pb2.LIMIT_KIND_SERVICE,
            name="credit",
            limit=admin_pb2.Limit(per_s=2.5, burst=9, concurrent=3),
        ),
        request(kind=admin_pb2.LIMIT_KIND_MODEL, name="m", limit=admin_pb2.Limit(per_s=0)),
        request(kind=admin_pb2.LIMIT_KIND_CALLER, name="big", limit=admin_pb2.Limit()),
        request(kind=admin_pb2.LIMIT_KIND_SERVICE, name="s", limit=admin_pb2.Limit(per_s=5, across_nodes=True)),
    ]


def test_it_must_say_what_of_what(tessera, admin):
    for wrong in (["service", "credit"], ["service", "credit", "--rate", "1", "--unlimited"], ["shop", "x"]):
        assert tessera("limit", "set", *wrong).exit_code == 2
    assert tessera("limit", "set", "service", "credit", "--rate", "-1").exit_code == 2
    assert admin.asked == []


def test_a_refusal_is_one_line(tessera, admin):
    admin.fails["SetLimit"] = (grpc.StatusCode.INVALID_ARGUMENT, "a burst needs a rate")
    result = tessera("limit", "set", "service", "credit", "--burst", "1")
    assert (result.exit_code, result.stderr) == (1, "Error: INVALID_ARGUMENT: a burst needs a rate\n")


def test_clearing_tells_what_counts_now(tessera, as_json, admin):
    assert (
        tessera("limit", "clear", "caller", "default").stdout == "caller default: 7 calls at once from the settings\n"
    )
    assert tessera("limit", "clear", "caller", "x").stdout == "caller x: nothing was set; no limit of its own\n"
    shown = as_json("limit", "clear", "party", "shop")
    assert shown == {"kind": "party", "name": "shop", "cleared": False, "limit": None}
    assert admin.asked[-1] == admin_pb2.ClearLimitRequest(kind=admin_pb2.LIMIT_KIND_PARTY, name="shop")


def test_list_says_where_each_comes_from(tessera, as_json):
    lines = tessera("limit", "list").stdout.splitlines()
    assert lines[1].split() == ["service", "credit", "closed", "set", "2.5", "rows", "a", "second,", "burst", "9"]
    assert lines[2].split() == ["caller", "default", "7", "calls", "at", "once", "settings"]
    service, caller = as_json("limit", "list")
    assert service == {
        "kind": "service",
        "name": "credit",
        "limit": {"per_s": 0.0, "burst": None, "concurrent": None, "across_nodes": False},
        "from": "set",
        "settings": {"per_s": 2.5, "burst": 9, "concurrent": None, "across_nodes": False},
    }
    assert (caller["from"], caller["settings"]) == ("settings", None)
