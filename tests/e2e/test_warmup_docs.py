"""The commands of docs/warmup.md run, and what its files say is accepted."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from serving.commands.warmup import warmup
from serving.settings_file import load
from tests.e2e.test_warmup import Parties
from tests.nodes import ROOT

PAGE = (ROOT / "docs/warmup.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)\n```", PAGE, re.DOTALL)


def accepted(arguments: list[str]) -> dict[str, Any]:
    """The options as the command reads them."""
    with warmup.make_context("warmup", arguments) as context:
        return context.params


@pytest.fixture
def parties(tmp_path: Path) -> Any:
    made = Parties(tmp_path)
    try:
        made.host.start()
        made.guest.start()
        made.guest.load("m", "1")
        made.guest.online("credit", "m", "1")
        yield made
    finally:
        made.guest.stop()
        made.host.stop()


def test_the_commands_run(parties: Parties) -> None:
    commands = blocks("sh")
    assert len(commands) == 3
    folder = parties.guest.folder
    (folder / "active.csv").write_text(parties.list.read_text().partition("0002")[0])
    shim = folder / "tessera"
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m serving "$@"\n')
    shim.chmod(0o700)
    environ = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": f"{ROOT}:{ROOT}/proto"}
    said = [
        subprocess.run(shlex.split(one), cwd=folder, env=environ, check=True, capture_output=True, text=True).stdout
        for one in commands
    ]
    assert said[0].startswith("0 users would be warmed")
    assert "2 users planned, 2 done" in said[2]
    assert "2 fetched" in said[2]


def test_the_crontab_is_accepted() -> None:
    [line] = blocks("cron")
    program, command, *arguments = line.split()[5:]
    assert (program, command) == ("tessera", "warmup")
    assert accepted(arguments)["service"] == "credit"


def test_the_settings_are_accepted(tmp_path: Path) -> None:
    [settings] = blocks("toml")
    path = tmp_path / "serving.toml"
    path.write_text(f"party = 'bank'\nstate_dir = 'state'\nregistry = 'registry'\n{settings}")
    assert load(path, {}).warmup.schedule == tomllib.loads(settings)["warmup"]["schedule"]


def test_the_cron_job_is_accepted() -> None:
    job = yaml.safe_load((ROOT / "docs/kubernetes/warmup-cronjob.yaml").read_text())
    assert (job["kind"], job["spec"]["concurrencyPolicy"]) == ("CronJob", "Forbid")
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    command, *arguments = container["args"]
    assert command == "warmup"
    assert "command" not in container, "the image's entry point is tessera"
    options = accepted(arguments)
    assert options["service"] == "credit"
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert mounts.keys() == {str(options["cursor"].parent), "/certificates"}
    assert {mount["name"] for mount in mounts.values()} == {volume["name"] for volume in pod["volumes"]}
    assert pod["restartPolicy"] == "OnFailure", "the cursor is in the pod"
