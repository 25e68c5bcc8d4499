"""What is in the console's files, and what must not be."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from serving.frontdoor.console import door

FOLDER = Path(door.__file__).parent


def test_nothing_runs_that_stands_in_the_page() -> None:
    page = (FOLDER / "index.html").read_text()
    assert re.findall(r"<script[^>]*>(.*?)</script>", page, re.DOTALL) == [""]
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", page)


@pytest.mark.parametrize(
    "forbidden",
    [
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment",
        r"\beval\b|new Function|import\(",
        r"localStorage|sessionStorage|indexedDB|document\.cookie|\bcaches\.|history\.(push|replace)State",
        r"https?://(?!www\.w3\.org/2000/svg\")",
        r"\.cssText|setAttribute\(\"style\"",
    ],
)
def test_data_becomes_text_and_the_token_is_kept_nowhere(forbidden: str) -> None:
    assert not re.search(forbidden, (FOLDER / "console.js").read_text())


def test_every_element_that_the_script_looks_for_is_there() -> None:
    page, script = ((FOLDER / name).read_text() for name in ("index.html", "console.js"))
    asked = set(re.findall(r'byId\("([\w-]+)"\)', script))
    assert asked
    assert asked <= set(re.findall(r'id="([\w-]+)"', page))


def test_every_file_is_served() -> None:
    assert {path.name for path in FOLDER.iterdir() if path.suffix in {".html", ".css", ".js"}} == set(
        door.FILES.values()
    )
