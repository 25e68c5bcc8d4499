"""Import rules that name a single exception, which import-linter cannot say; the others are in pyproject.toml."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

RULES = {
    # Who imports, and what of our packages it may name; everything else of ours is forbidden.
    "training": re.compile(r"(training|loaders|tessera)(\.|$)|serving(\.transport(\.|$)|$)"),
    "serving/transport": re.compile(r"serving\.transport(\.|$)"),
    "apps": re.compile(r"(apps|loaders)(\.|$)"),
    "loaders/fate": re.compile(r"(loaders|tessera\.compat)(\.|$)"),
    "loaders": re.compile(r"(loaders|tessera\.compat)(\.|$)"),
}
OURS = re.compile(r"(serving|loaders|apps|training|bench|tests|tessera)(\.|$)")


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from serving import transport` names serving.transport
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("folder", RULES)
def test_folder_imports_only_what_it_may(folder: str) -> None:
    allowed = RULES[folder]
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in (ROOT / folder).rglob("*.py")
        for name in imported(path)
        if OURS.match(name) and not allowed.match(name)
    ]
    assert not wrong


def test_wire_messages_stay_at_the_edges() -> None:
    edges = re.compile(r"serving/(frontdoor|peers|commands)/|serving/client.py|training/channels/|loaders/fate/")
    wrong = [
        str(path.relative_to(ROOT))
        for package in ("serving", "loaders", "apps", "training")
        for path in (ROOT / package).rglob("*.py")
        if not edges.match(str(path.relative_to(ROOT))) and any(name.startswith("tessera.") for name in imported(path))
    ]
    assert not wrong


READ = "from serving.settings_file import load; load(Path('serving.toml'), {})"


@pytest.mark.parametrize(
    ("started", "unwanted"),
    [
        (
            f"import serving.commands.serve, serving.workers, serving.cache.embedded\n{READ}",
            {"numpy", "redis", "grpc", "google"},
        ),
        (
            "import serving.worker, serving.assembly",
            {"redis", "httpx", "rich", "polars", "onnxruntime", "sqlalchemy", "croniter", "opentelemetry"},
        ),
    ],
)
def test_a_node_starts_without_what_it_may_never_need(started: str, unwanted: set[str], tmp_path: Path) -> None:
    """Imports are most of the time that a start takes."""
    (tmp_path / "serving.toml").write_text("party = 'bank'\nstate_dir = 'state'\nregistry = 'registry'\n")
    code = f"import sys\nfrom pathlib import Path\n{started}\nprint(*sys.modules)"
    environ = {"PYTHONPATH": f"{ROOT}:{ROOT}/proto"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environ, cwd=tmp_path)
    assert not unwanted & set(done.stdout.split())
