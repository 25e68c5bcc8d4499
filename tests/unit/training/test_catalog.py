import subprocess
import sys

import pytest

from training import catalog
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
