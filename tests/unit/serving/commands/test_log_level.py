from tessera.v1 import admin_pb2


def test_a_level_is_set_and_given_back(tessera, as_json, admin):
    assert tessera("log-level", "debug").stdout == "log level: debug\n"
    assert as_json("log-level", "--as-settings") == {"level": ""}
    assert admin.asked == [admin_pb2.SetLogLevelRequest(level="debug"), admin_pb2.SetLogLevelRequest()]


def test_it_needs_a_level_or_the_settings(tessera, admin):
    assert tessera("log-level").exit_code == 2
    assert tessera("log-level", "debug", "--as-settings").exit_code == 2
    assert tessera("log-level", "loud").exit_code == 2
    assert admin.asked == []
