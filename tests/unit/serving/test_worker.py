import os
import signal
import subprocess
import sys

import pytest

from loaders.artifact import ArtifactError
from serving.control import SnapshotError
from serving.errors import NotReadyError
from serving.exit_code import ExitCode
from serving.features.source import FeatureSourceError
from serving.worker import die_with, run

pytestmark = pytest.mark.usefixtures("restored_logging")

SETTINGS = "party = 'bank'\nstate_dir = 'state'\nregistry = 'registry'\n"


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "node.toml"
    path.write_text(SETTINGS)
    return path


async def never(settings, counts):
    raise AssertionError("not to be reached")


def test_wrong_settings_are_one_line_each(config, capsys):
    config.write_text(SETTINGS + "colour = 1\nparty2 = 2\n")
    assert run(config, never) is ExitCode.REFUSED
    assert len(capsys.readouterr().err.splitlines()) == 2


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(98, "cannot bind 127.0.0.1:1: Address already in use"), "cannot bind 127.0.0.1:1: Address already in"),
        (FileNotFoundError(2, "No such file or directory", "f.csv"), "[Errno 2] No such file or directory: 'f.csv'"),
        (NotReadyError("the control store may evict"), "the control store may evict"),
        (FeatureSourceError("feature file f.csv does not exist"), "feature file f.csv does not exist"),
        (SnapshotError("state.json is corrupt"), "state.json is corrupt"),
        (ArtifactError("lr v1: weights.npy does not match its digest"), "lr v1: weights.npy does not match its digest"),
    ],
)
def test_what_cannot_be_started_is_one_line(config, capsys, error, line):
    async def refuse(settings, counts):
        raise error

    assert run(config, refuse) is ExitCode.REFUSED
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"tessera: {line}")


def test_our_own_fault_is_a_traceback(config):
    with pytest.raises(AssertionError, match="not to be reached"):
        run(config, never)


def test_a_child_of_a_parent_that_is_gone_ends_at_once():
    with pytest.raises(SystemExit):
        die_with(os.getppid() + 1_000_000)


def test_a_child_dies_with_its_parent():
    child = (
        "import os, sys; from serving.worker import die_with; die_with(os.getppid()); "
        "print(os.getpid(), flush=True); sys.stdin.read()"
    )
    parent = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}], stdin=subprocess.PIPE)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert int(process.stdout.readline()) > 0
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        assert process.stdout.read() == ""  # the end of the pipe: nobody holds it any more
