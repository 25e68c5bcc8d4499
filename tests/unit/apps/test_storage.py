"""What counts as an app on disk, and its digest."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from apps import storage
from apps.storage import AppSourceError, LocalFiles, MissingAppError, read_app
from tests.app_sources import store, store_package

PACKAGE = {"__init__.py": "from . import inner\n", "inner/__init__.py": "", "table.csv": "a,b\n"}


def test_the_digest_of_a_file_is_what_sha256sum_says(tmp_path: Path) -> None:
    assert store(tmp_path, "1", "x = 1\n") == hashlib.sha256(b"x = 1\n").hexdigest()


def test_the_digest_of_a_package_is_of_all_that_it_holds(tmp_path: Path) -> None:
    digests = {store_package(tmp_path / "a", "1", PACKAGE)}
    for number, (path, content) in enumerate(PACKAGE.items()):
        digests.add(store_package(tmp_path / f"changed{number}", "1", {**PACKAGE, path: f"{content}\n"}))
        digests.add(store_package(tmp_path / f"more{number}", "1", {**PACKAGE, f"{path}.more": ""}))
    assert len(digests) == 1 + 2 * len(PACKAGE)
    assert store_package(tmp_path / "again", "1", dict(reversed(PACKAGE.items()))) in digests


def test_what_python_and_editors_leave_behind_does_not_count(tmp_path: Path) -> None:
    before = store_package(tmp_path, "1", PACKAGE)
    left = {"__pycache__/inner.cpython-311.pyc": "?", "inner/.inner.py.swp": "?"}
    assert store_package(tmp_path, "1", left) == before
    assert set(read_app(LocalFiles(tmp_path), "risk", "1").files) == set(PACKAGE)


def test_a_source_stays_what_was_read(tmp_path: Path) -> None:
    digest = store(tmp_path, "1", "x = 1\n")
    source = read_app(LocalFiles(tmp_path), "risk", "1")
    store(tmp_path, "1", "x = 2\n")
    assert (source.digest, source.files["__init__.py"]) == (digest, b"x = 1\n")


def test_what_is_missing_is_named_with_what_there_is(tmp_path: Path) -> None:
    store(tmp_path, "2024.1", "")
    store_package(tmp_path, "7", PACKAGE)
    with pytest.raises(MissingAppError, match=r"no app risk:1 in apps\.root; there is 2024\.1, 7$"):
        read_app(LocalFiles(tmp_path), "risk", "1")
    with pytest.raises(MissingAppError, match=r"no app other:1 in apps\.root$"):
        read_app(LocalFiles(tmp_path), "other", "1")


@pytest.mark.parametrize(("name", "version"), [("..", "1"), ("risk", ".."), ("Risk", "1"), ("risk", "a/b"), ("", "1")])
def test_names_lead_nowhere_else(tmp_path: Path, name: str, version: str) -> None:
    (tmp_path / "1.py").write_text("")
    with pytest.raises(AppSourceError, match="no name and version of an app"):
        read_app(LocalFiles(tmp_path / "root"), name, version)


def test_a_version_is_a_file_or_a_package(tmp_path: Path) -> None:
    store_package(tmp_path, "1", PACKAGE)
    with pytest.raises(AppSourceError, match="risk:1 is both a file and a package"):
        store(tmp_path, "1", "")
    with pytest.raises(AppSourceError, match=r"risk:2 is a folder without __init__\.py"):
        store_package(tmp_path, "2", {"inner.py": ""})


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.py").write_text("x = 1\n")
    root = tmp_path / "root"
    store_package(root, "1", PACKAGE)
    (root / "risk" / "1" / "out.py").symlink_to(tmp_path / "secret.py")
    with pytest.raises(AppSourceError, match=r"risk/1/out\.py is a link"):
        read_app(LocalFiles(root), "risk", "1")
    (root / "risk" / "2.py").symlink_to(tmp_path / "secret.py")
    with pytest.raises(AppSourceError, match=r"risk/2\.py is a link"):
        read_app(LocalFiles(root), "risk", "2")
    store_package(root, "3", PACKAGE)
    (root / "risk" / "3" / "more").symlink_to(root / "risk" / "1" / "inner")
    with pytest.raises(AppSourceError, match=r"risk/3/more/__init__\.py is a link"):
        read_app(LocalFiles(root), "risk", "3")


def test_a_root_that_is_a_link_is_the_operators_choice(tmp_path: Path) -> None:
    digest = store(tmp_path / "real", "1", "x = 1\n")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert read_app(LocalFiles(tmp_path / "link"), "risk", "1").digest == digest


def test_sizes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store_package(tmp_path, "1", PACKAGE)
    store(tmp_path, "2", "x = 1\n")
    monkeypatch.setattr(storage, "MAX_FILES", 2)
    with pytest.raises(AppSourceError, match="risk:1 is too large"):
        read_app(LocalFiles(tmp_path), "risk", "1")
    monkeypatch.setattr(storage, "MAX_BYTES", 5)
    for version in ("1", "2"):
        with pytest.raises(AppSourceError, match="is too large"):
            read_app(LocalFiles(tmp_path), "risk", version)
