import subprocess
import sys
from pathlib import Path

import pytest

from training import catalog, components
from training.component import Component


@pytest.mark.parametrize("module", catalog.modules())
def test_every_file_holds_one_component(module: str) -> None:
    found = catalog.component(module)
    assert issubclass(found, Component)
    assert found.__module__ == f"training.components.{module}"
    assert found.optional_inputs <= found.inputs.keys()


def test_the_nearest_match_is_offered() -> None:
    with pytest.raises(catalog.CatalogError, match=r"unknown module 'hetero_rl'; did you mean hetero_lr\?"):
        catalog.component("hetero_rl")
    with pytest.raises(catalog.CatalogError, match=r"known: .*psi"):
        catalog.component("zzz")


def test_listing_imports_nothing() -> None:
    code = "import sys; from training import catalog as c; c.modules(); print('training.components.psi' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(("count", "module"), [(0, "nothing_here"), (2, "two_here")])
def test_a_file_must_hold_one_component(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, module: str
) -> None:
    classes = [f"class C{number}(Component):\n    pass\n" for number in range(count)]
    (tmp_path / f"{module}.py").write_text("from training.component import Component\n" + "".join(classes))
    monkeypatch.setattr(components, "__path__", [*components.__path__, str(tmp_path)])
    with pytest.raises(catalog.CatalogError, match=rf"{module}\.py must hold exactly one component, not {count}"):
        catalog.component(module)


def test_two_components_of_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "psi").mkdir()
    (tmp_path / "psi" / "__init__.py").touch()
    monkeypatch.setattr(components, "__path__", [*components.__path__, str(tmp_path)])
    with pytest.raises(catalog.CatalogError, match="there are two components 'psi'"):
        catalog.modules()
