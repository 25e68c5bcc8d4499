import subprocess
import sys

import pytest
from click.testing import CliRunner

from serving.cli import main

HEAVY = ("grpc", "numpy", "polars", "sklearn", "tenseal", "onnxruntime", "rich", "redis", "google.protobuf")


def test_help_lists_every_command_without_loading_what_is_heavy():
    code = (
        "import sys\nsys.argv = ['tessera', '--help']\nfrom serving.cli import main\n"
        "try:\n    main()\nfinally:\n    print('loaded:', *sorted(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    commands, _, loaded = done.stdout.partition("loaded:")
    for command in ("serve", "model", "service", "predict", "train"):
        assert f"\n  {command} " in commands
    assert not set(HEAVY) & set(loaded.split())


def test_an_unknown_command_is_an_error():
    result = CliRunner().invoke(main, ["frobnicate"])
    assert result.exit_code == 2
    assert "No such command 'frobnicate'" in result.stderr


@pytest.fixture
def plugged(tmp_path, monkeypatch):
    """Installs a command `late` with this source, as another distribution would."""

    def install(source):
        (tmp_path / "latecomer.py").write_text(source)
        metadata = tmp_path / "latecomer-1.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: latecomer\nVersion: 1\n")
        (metadata / "entry_points.txt").write_text("[tessera.commands]\nlate = latecomer:late\n")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "latecomer", raising=False)

    return install


AT_IMPORT = "import click, tenseal\n@click.command()\ndef late(): ...\n"
AT_RUN = "import click\n@click.command()\ndef late():\n    import tenseal.sealapi\n"


@pytest.mark.parametrize("source", [AT_IMPORT, AT_RUN], ids=["at import", "at run"])
def test_a_command_that_needs_an_extra_says_which(plugged, monkeypatch, source):
    plugged(source)
    for name in [name for name in sys.modules if name.partition(".")[0] == "tenseal"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tenseal", None)
    result = CliRunner().invoke(main, ["late"])
    assert result.exit_code == 1
    assert result.stderr == "Error: this needs the extra 'train': pip install 'tessera-federated[train]'\n"


def test_a_missing_module_of_our_own_is_not_hidden(plugged):
    plugged("import click, no_such_module\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        CliRunner().invoke(main, ["late"], catch_exceptions=False)
