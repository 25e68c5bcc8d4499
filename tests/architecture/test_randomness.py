"""Keys, masks, noise and shuffles never come from a seeded generator."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROTOCOLS = sorted([*(ROOT / "training" / "privacy").rglob("*.py"), *(ROOT / "training" / "components").rglob("*.py")])
FORBIDDEN = ("random", "numpy.random")


def generators(tree: ast.AST) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name in FORBIDDEN]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [node.module] if node.module in FORBIDDEN else []
            found += ["numpy.random" for alias in node.names if (node.module, alias.name) == ("numpy", "random")]
        elif isinstance(node, ast.Attribute) and node.attr == "random" and isinstance(node.value, ast.Name):
            found += ["numpy.random"] if node.value.id in {"np", "numpy"} else []
    return found


@pytest.mark.parametrize("path", PROTOCOLS, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_the_system_generator(path: Path) -> None:
    assert not generators(ast.parse(path.read_text()))


@pytest.mark.parametrize(
    "source",
    [
        "import random",
        "import numpy.random",
        "from numpy import random",
        "from numpy.random import default_rng",
        "import numpy as np\nnp.random.default_rng(1)",
    ],
)
def test_the_check_finds_them(source: str) -> None:
    assert generators(ast.parse(source))
