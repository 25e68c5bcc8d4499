"""An app's source becomes a class under a module of its own, and goes again."""

from __future__ import annotations

import gc
import sys
import traceback
import weakref
from pathlib import Path

import msgspec
import numpy as np
import pytest

from apps.app import App, AppError, Request, Result
from apps.importing import ImportedApp
from apps.storage import LocalFiles, read_app
from tests.app_sources import store, store_package, times

REQUEST = Request("s", "", "", "", ("u",))


def imported(root: Path, version: str = "1") -> ImportedApp:
    return ImportedApp(read_app(LocalFiles(root), "risk", version))


def answer(kind: type[App], score: float = 0.25, **request: object) -> float:
    made = kind(kind.Parameters())
    asked = msgspec.structs.replace(REQUEST, **request)
    return float(made.postprocess(asked, Result(np.array([[score]]))).scores[0, 0])


def modules() -> list[str]:
    return [name for name in sys.modules if name.startswith("tessera_app_")]


def test_versions_stand_side_by_side(tmp_path: Path) -> None:
    for version in ("2", "3"):
        store(tmp_path, version, times(float(version)))
    two, three = imported(tmp_path, "2"), imported(tmp_path, "3")
    assert (answer(two.kind), answer(three.kind)) == (0.5, 0.75)
    assert (two.kind.name, three.kind.name) == ("risk:2", "risk:3")
    two.forget()
    three.forget()


def test_what_is_forgotten_leaves_the_interpreter_and_can_come_again(tmp_path: Path) -> None:
    store(tmp_path, "1", times(2.0))
    finders = list(sys.meta_path)
    app = imported(tmp_path)
    kind = weakref.ref(app.kind)
    kept = app.kind(app.kind.Parameters())
    app.forget()
    app.forget()
    assert (modules(), sys.meta_path) == ([], finders)
    assert kept.postprocess(REQUEST, Result(np.array([[1.0]]))).scores.tolist() == [[2.0]]
    del app, kept
    gc.collect()
    assert kind() is None
    again = imported(tmp_path)
    assert answer(again.kind) == 0.5
    again.forget()


def test_a_package_imports_its_own_modules_also_late_and_reads_its_own_files(tmp_path: Path) -> None:
    late = times(2.0).replace(
        "        return Result(",
        "        from .inner import deep\n        assert deep.HERE\n        return Result(",
    )
    files = {
        "__init__.py": "import pkgutil\n\nfrom .app import Times\n\n"
        "assert pkgutil.get_data(__name__, 'inner/table.csv') == b'a,b'\n",
        "app.py": late,
        "inner/__init__.py": "",
        "inner/deep.py": "HERE = True\n",
        "inner/table.csv": "a,b",
    }
    store_package(tmp_path, "1", files)
    app = imported(tmp_path)
    assert answer(app.kind) == 0.5
    assert len(modules()) == 4
    app.forget()
    assert modules() == []


def test_what_runs_is_what_was_read(tmp_path: Path) -> None:
    store_package(tmp_path, "1", {"__init__.py": "from .app import Times\n", "app.py": times(2.0)})
    source = read_app(LocalFiles(tmp_path), "risk", "1")
    (tmp_path / "risk" / "1" / "app.py").write_text(times(3.0))
    app = ImportedApp(source)
    assert answer(app.kind) == 0.5
    app.forget()


def test_a_traceback_shows_the_line_of_the_app(tmp_path: Path) -> None:
    store(tmp_path, "1", times(2.0))
    app = imported(tmp_path)
    with pytest.raises(ZeroDivisionError) as failed:
        answer(app.kind, parameters={"fail": "1"})
    shown = "".join(traceback.format_exception(failed.value))
    assert "<app risk:1>/__init__.py" in shown
    assert 'raise ZeroDivisionError("a secret of the app")' in shown
    app.forget()


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("x = = 1\n", "app risk:1 cannot be imported: SyntaxError"),
        ("import nothing_of_this_name\n", "cannot be imported: ModuleNotFoundError"),
        ("raise SystemExit(3)\n", "cannot be imported: SystemExit: 3"),
        ("from . import other\n", "cannot be imported: ImportError"),
        ("from apps.passthrough import PassThrough\n", "exactly one class that implements App, it holds none"),
        (times(2.0) + "\nclass More(Times): pass\n", "it holds More, Times"),
        (times(2.0, name="other"), "app risk:1 calls itself 'other'; its name must be 'risk'"),
        (times(2.0).replace("def preprocess", "def prepare"), "app risk:1 lacks preprocess"),
        (times(2.0).replace("    Parameters:", "    Other:"), "app risk:1 needs Parameters"),
        (times(2.0).replace("    examples =", "    other ="), "app risk:1 has no examples"),
        (times(2.0, example=9.0), r"app 'risk:1' makes \[\[1\.0\]\] of its own example"),
        (times(2.0).replace("* 2.0", "/ nothing"), "app 'risk:1' fails its own example .*nothing"),
    ],
)
def test_what_is_no_app_leaves_nothing_behind(tmp_path: Path, source: str, text: str) -> None:
    store(tmp_path, "1", source)
    finders = list(sys.meta_path)
    with pytest.raises(AppError, match=text):
        imported(tmp_path)
    assert (modules(), sys.meta_path) == ([], finders)


def test_the_example_of_the_documentation_is_an_app(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "apps.md").read_text()
    store(tmp_path, "1", page.partition("```python\n")[2].partition("```")[0], name="ceiling")
    app = ImportedApp(read_app(LocalFiles(tmp_path), "ceiling", "1"))
    assert answer(app.kind, 0.95) == 0.9
    app.forget()
