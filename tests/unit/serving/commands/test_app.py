import re

from tessera.v1 import admin_pb2


def cells(line):
    return re.split(r"  +", line.strip())


def test_load_has_a_line_for_every_replica(tessera, as_json, admin):
    result = tessera("app", "load", "risk", "2")
    assert result.exit_code == 0
    assert [cells(line) for line in result.stdout.splitlines()] == [
        ["replica", "state", "reason"],
        ["0", "already_loaded"],
        ["1", "loaded"],
    ]
    assert admin.asked == [admin_pb2.LoadAppRequest(name="risk", version="2")]
    assert as_json("app", "load", "risk", "2")["digest"] == "ab" * 32


def test_a_replica_that_fails_is_an_error(tessera):
    result = tessera("app", "load", "risk", "bad")
    assert (result.exit_code, result.stderr) == (1, "Error: risk bad is not loaded at 1\n")


def test_unload(tessera, as_json, admin):
    assert tessera("app", "unload", "risk", "2").stdout == "risk 2 is unloaded\n"
    assert admin.asked == [admin_pb2.UnloadAppRequest(name="risk", version="2")]
    assert as_json("app", "unload", "risk", "2") == {}


def test_list_shows_built_in_ones_and_who_uses_the_others(tessera, as_json):
    header, built_in, loaded = tessera("app", "list").stdout.splitlines()
    assert cells(header) == ["app", "version", "state", "since (UTC)", "digest", "used by", "reason"]
    assert cells(built_in) == ["rules", "BUILT_IN"]
    assert cells(loaded) == ["risk", "2", "READY", "2023-11-14 22:13:20", "abababababab", "service 'credit'"]
    assert as_json("app", "list")["apps"][1]["used_by"] == ["service 'credit'"]
