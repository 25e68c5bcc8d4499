import pytest
from click.testing import CliRunner

from serving import ports_file
from serving.cli import main


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
    assert f"start one with `tessera serve --config {config}`" in result.stderr


def test_wrong_settings_are_an_error_of_the_command(config):
    config.write_text("party = 5\n")
    result = CliRunner().invoke(main, ["service", "list", "--config", str(config)])
    assert result.exit_code == 1
    assert f"{config}: party: must be " in result.stderr


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
