import click
import pytest
from click.testing import CliRunner

from serving import ports_file, settings_file
from serving.cli import main
from serving.commands.connection import connected
from tessera.v1 import admin_pb2, admin_pb2_grpc


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "node.toml"
    path.write_text('party = "bank"\nstate_dir = "state"\nregistry = "registry"\n')
    return path


def test_a_local_node_is_found_by_its_settings(config, address):
    ports_file.write(config.parent / "state", {"admin": address})
    result = CliRunner().invoke(main, ["service", "list", "--config", str(config)])
    assert result.exit_code == 0
    assert "credit" in result.stdout


def test_settings_without_a_running_node_say_how_to_start_it(config):
    result = CliRunner().invoke(main, ["service", "list", "--config", str(config)])
    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: no node runs on {config.parent / 'state'} ({config}, as --config says); start one with "
        f"`tessera serve --config {config}`, or name another with --admin HOST:PORT\n"
    )


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder without settings."""
    monkeypatch.delenv("TESSERA_CONFIG", raising=False)
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def settings_of(folder, ports):
    """Of a node that runs with these ports, or none where there are none."""
    folder.mkdir(exist_ok=True)
    path = folder / "serving.toml"
    path.write_text('party = "bank"\nstate_dir = "state"\nregistry = "registry"\n')
    if ports:
        ports_file.write(folder / "state", ports)
    return path


@pytest.mark.parametrize("port", ["admin", "single"])
def test_settings_that_lie_here_are_meant(here, address, port):
    settings_of(here, {port: address})
    result = CliRunner().invoke(main, ["service", "list"])
    assert result.exit_code == 0, result.stderr
    assert "credit" in result.stdout


def test_named_settings_come_before_those_that_lie_here_and_what_is_given_before_both(
    here, tmp_path, address, nobody, monkeypatch
):
    settings_of(here, {"admin": nobody})
    monkeypatch.setenv("TESSERA_CONFIG", str(settings_of(tmp_path / "named", {"admin": address})))
    assert CliRunner().invoke(main, ["service", "list"]).exit_code == 0
    result = CliRunner().invoke(main, ["service", "list", "--config", "serving.toml"])
    assert f"no node answers at {nobody} (of serving.toml, as --config says);" in result.stderr
    result = CliRunner().invoke(main, ["service", "list", "--admin", nobody])
    assert f"no node answers at {nobody} (as --admin says);" in result.stderr


def test_settings_that_lie_here_send_no_token_to_another_machine(here):
    settings_of(here, {"admin": "198.51.100.7:8702"})
    result = CliRunner().invoke(main, ["service", "list"])
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: 198.51.100.7:8702 (of serving.toml, found here) is not on loopback; "
        "say --config serving.toml or --admin HOST:PORT\n"
    )


@pytest.mark.parametrize("runs", [True, False])
def test_where_nothing_answers_it_is_said_why_one_asked_there(here, nobody, monkeypatch, runs):
    @click.command()
    @connected("admin", nobody)
    def ask(connection):
        connection.ask(admin_pb2_grpc.AdminStub, "ListServices", admin_pb2.ListServicesRequest())

    remedy = "start one with `tessera serve --config {}`, or name another with --admin HOST:PORT\n"
    default = f"no node answers at {nobody} (the default: no --config, no TESSERA_CONFIG, no serving.toml here)"
    assert CliRunner().invoke(ask).stderr == f"Error: UNAVAILABLE: {default}; {remedy.format('FILE')}"
    settings_of(here, {"admin": nobody} if runs else {})
    for origin, path in (("found here", "serving.toml"), ("as TESSERA_CONFIG says", str(here / "serving.toml"))):
        answers = f"UNAVAILABLE: no node answers at {nobody} (of {path}, {origin}); {remedy.format('FILE')}"
        absent = f"no node runs on {here / 'state'} ({path}, {origin}); {remedy.format(path)}"
        assert CliRunner().invoke(ask).stderr == f"Error: {answers if runs else absent}"
        monkeypatch.setenv("TESSERA_CONFIG", str(here / "serving.toml"))


def test_the_variable_is_no_setting(here, monkeypatch):
    path = settings_of(here, {})
    assert settings_file.load(path, {"TESSERA_CONFIG": str(path)}).party == "bank"


def test_wrong_settings_are_an_error_of_the_command(config):
    config.write_text("party = 5\n")
    result = CliRunner().invoke(main, ["service", "list", "--config", str(config)])
    assert result.exit_code == 1
    assert f"{config}: party: must be " in result.stderr
    assert "the settings as --config says" in result.stderr


def test_two_ways_to_say_where_are_one_too_many(config):
    result = CliRunner().invoke(main, ["model", "list", "--admin", "127.0.0.1:1", "--config", str(config)])
    assert result.exit_code == 2
    assert "not both" in result.stderr


def test_a_node_that_does_not_answer_in_time(tessera, admin):
    admin.go.clear()
    try:
        result = tessera("model", "unload", "lr", "v1", "--timeout-s", "0.2")
    finally:
        admin.go.set()
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: DEADLINE_EXCEEDED")
    assert "--timeout-s" in result.stderr
