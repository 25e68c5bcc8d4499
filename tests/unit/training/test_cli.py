import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.unit.training.jobs import good, spoilt
from training import report
from training.cli import train
from training.progress import Bars
from training.store import JobStore, Metric, State, Status


def invoked(*arguments: object) -> Result:
    return CliRunner().invoke(train, [str(argument) for argument in arguments])


def job_file(folder: Path, document: Any) -> Path:
    path = folder / "job.json"
    path.write_text(json.dumps(document))
    return path


def party_file(folder: Path) -> Path:
    path = folder / "party.toml"
    path.write_text('party = "bank"\nregistry = "r"\nwork_dir = "jobs"\n')
    return path


@pytest.fixture
def done(tmp_path: Path) -> Path:
    with JobStore(tmp_path / "spring", Status("spring", "bank", "guest", "d")) as store:
        store.move(State.RUNNING)
        for step, loss in enumerate((0.7, 0.5)):
            store.add_metric(Metric("lr_0", "loss", loss, step))
        store.move(State.FAILED, "party shop is lost")
    return tmp_path / "spring"


def test_plan_shows_what_runs_where(tmp_path: Path) -> None:
    path = job_file(tmp_path, good())
    shown = invoked("plan", path)
    assert shown.exit_code == 0 and "hetero_lr" in shown.output and "reader_0.data" in shown.output
    planned = json.loads(invoked("plan", path, "--json").output)
    assert [task["task"] for task in planned["tasks"]] == ["reader_0", "psi_0", "lr_0", "evaluate_0"]
    assert planned["tasks"][3]["parties"] == ["bank"] and planned["job"] == "spring"


def test_every_problem_of_a_job_is_a_line(tmp_path: Path) -> None:
    document = spoilt("components", "psi_0", "module", value="pis")
    document["roles"]["hosts"] = []
    found = invoked("plan", job_file(tmp_path, document))
    assert found.exit_code == 1
    assert "tessera: $.components.psi_0.module: unknown module 'pis'; did you mean psi?\n" in found.output
    assert "tessera: $.roles.hosts: must name at least one party\n" in found.output


def test_run_refuses_before_it_starts(tmp_path: Path) -> None:
    path, party = job_file(tmp_path, good()), party_file(tmp_path)
    refused = invoked("run", path, "--party", party)
    assert refused.exit_code == 1
    assert "add [peers.shop]" in refused.output and "its settings have no table 'people'" in refused.output
    assert not (tmp_path / "jobs").exists()
    wrong = invoked("run", path, "--party", tmp_path / "none.toml")
    assert wrong.exit_code == 1 and "cannot be read" in wrong.output


def test_a_work_dir_that_is_a_file(tmp_path: Path) -> None:
    path, party = job_file(tmp_path, good()), party_file(tmp_path)
    (tmp_path / "jobs").touch()
    tables = '[peers.shop]\naddress = "127.0.0.1:1"\n[tables.people]\npath = "people.csv"\n'
    party.write_text(party.read_text() + tables)
    refused = invoked("run", path, "--party", party)
    assert refused.exit_code == 1
    assert refused.output.strip() == f"tessera: {tmp_path}/jobs/spring cannot be written: Not a directory"


def test_show_of_a_job_that_was_killed(tmp_path: Path) -> None:
    with JobStore(tmp_path / "spring", Status("spring", "bank", "guest", "d")) as store:
        store.move(State.RUNNING)
    document = json.loads(invoked("show", tmp_path / "spring", "--json").output)
    assert document["state"] == "failed" and "run it again" in document["reason"]


def test_show_gives_last_values_and_the_reason(done: Path) -> None:
    shown = invoked("show", done)
    assert shown.exit_code == 0
    assert "failed" in shown.output and "0.5" in shown.output and "0.7" not in shown.output
    assert "reason: party shop is lost" in shown.output
    document = json.loads(invoked("show", done, "--json").output)
    assert (document["state"], document["metrics"]) == ("failed", {"lr_0": {"loss": 0.5}})


def test_show_of_another_folder(tmp_path: Path) -> None:
    shown = invoked("show", tmp_path)
    assert shown.exit_code == 1 and "is not the folder of a job" in shown.output


def test_last_values() -> None:
    points = [Metric("a", "x", 1), Metric("b", "x", 2), Metric("a", "x", 3, 1)]
    assert report.last_values(points) == {"a": {"x": 3}, "b": {"x": 2}}


def test_bars_show_the_loss(capsys: pytest.CaptureFixture[str]) -> None:
    with Bars(2, visible=True) as bars:
        bars.task("psi")
        bars.task("lr")
        bars.progress("lr", 1, 10, "loss 0.5000")
        bars.done()
    shown = capsys.readouterr().err
    assert "1/2 psi" in shown and "2/2 lr" in shown and "loss 0.5000" in shown


def test_no_bars_when_not_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    with Bars(1, visible=False) as bars:
        bars.task("psi")
        bars.progress("psi", 1, 2, "")
    assert capsys.readouterr() == ("", "")
