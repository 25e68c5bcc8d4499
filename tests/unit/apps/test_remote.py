"""Apps behind a URL: read within bounds, kept once they are allowed, from nowhere else."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from apps import storage
from apps.remote import RemoteApps
from apps.storage import AppSource, AppSourceError, MissingAppError
from loaders.artifact import ArtifactError
from loaders.content import ContentStore
from loaders.remote_folder import RemoteFolder
from tests.app_sources import store, store_package, times
from tests.web import shown

PACKAGE = {"__init__.py": "from . import inner\n", "inner/__init__.py": "", "table.csv": "a,b\n"}
LEFT = {"__pycache__/inner.cpython-311.pyc": "?", "inner/.inner.py.swp": "?"}


class Place:
    """Apps at a URL, what is kept of them here, and which are in use. `fill` puts what was stored into the place."""

    def __init__(self, folder: Path, url: str) -> None:
        self.stored, self.local, self.url = folder / "stored", folder / "local", url
        self.used: set[tuple[str, str]] = set()

    def fill(self) -> None:
        if self.url.startswith("memory:"):
            fsspec.filesystem("memory").put(f"{self.stored}/", self.url.removeprefix("memory:/") + "/", recursive=True)

    def apps(self, max_bytes: int = 1 << 20) -> RemoteApps:
        content = ContentStore(self.local / "artifacts", max_bytes)
        return RemoteApps(RemoteFolder(self.url), self.local / "apps", content, lambda: self.used)

    def loaded(self, version: str, digest: str = "", max_bytes: int = 1 << 20) -> AppSource:
        """As a node loads it: read, and kept if it is allowed, as all are here."""
        apps = self.apps(max_bytes)
        source = apps.read("risk", version, digest)
        apps.keep(source)
        return source

    def contents(self) -> set[str]:
        return {path.name for path in (self.local / "artifacts").glob("[!.]*")}

    def kept(self) -> set[str]:
        return {path.parts[-2] for path in (self.local / "apps").glob("*/*/[!.]*")}

    def files(self) -> list[Path]:
        return [path for path in (self.local / "apps").rglob("*") if path.is_file()]


@pytest.fixture(params=["memory", "file", "http"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    (tmp_path / "stored").mkdir()
    if request.param == "http":
        with shown(tmp_path / "stored") as url:
            yield Place(tmp_path, url)
    elif request.param == "file":
        yield Place(tmp_path, f"file://{tmp_path / 'stored'}")
    else:
        yield Place(tmp_path, f"memory://{tmp_path.name}")
        fsspec.filesystem("memory").rm(f"/{tmp_path.name}", recursive=True)


def test_a_file_and_a_package_are_what_they_are_in_a_folder(place: Place) -> None:
    single = store(place.stored, "1", times(2.0))
    package = store_package(place.stored, "2024.1", {**PACKAGE, **LEFT})
    place.fill()
    one, several = place.apps().read("risk", "1", ""), place.apps().read("risk", "2024.1", "")
    assert (one.digest, one.single, one.files) == (single, True, {"__init__.py": times(2.0).encode()})
    assert (several.digest, several.single) == (package, False)
    assert several.files == {path: text.encode() for path, text in PACKAGE.items()}
    assert place.kept() == place.contents() == set()


def test_what_is_missing_is_named_with_what_there_is(place: Place) -> None:
    store(place.stored, "2", "")
    store_package(place.stored, "7", PACKAGE)
    place.fill()
    with pytest.raises(MissingAppError, match=r"no app risk:1 in apps\.root; there is 2, 7$"):
        place.apps().read("risk", "1", "")
    with pytest.raises(MissingAppError, match=r"no app other:1 in apps\.root$"):
        place.apps().read("other", "1", "")


def test_names_lead_nowhere_else(place: Place) -> None:
    store(place.stored, "1", "")
    place.fill()
    for name, version in (("..", "1"), ("risk", "../1"), ("risk/..", "1"), ("Risk", "1")):
        for digest in ("", "0" * 64):
            with pytest.raises(AppSourceError, match="no name and version of an app"):
                place.apps().read(name, version, digest)


def test_what_lies_elsewhere_stays(tmp_path: Path) -> None:
    place = Place(tmp_path, f"file://{tmp_path / 'stored'}")
    elsewhere = place.local / "apps" / ".." / "mine" / "0"
    elsewhere.mkdir(parents=True)
    with pytest.raises(AppSourceError):
        place.apps().read("..", "mine", "0")
    assert elsewhere.is_dir()


def test_sizes_are_bounded(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    store_package(place.stored, "1", PACKAGE)
    store(place.stored, "2", "x = 1\n")
    place.fill()
    for what, most in (("MAX_FILES", 3), ("MAX_BYTES", 5)):
        with monkeypatch.context() as bound:
            bound.setattr(storage, what, most)
            with pytest.raises(AppSourceError, match="risk:1 is too large"):
                place.apps().read("risk", "1", "")
    monkeypatch.setattr(storage, "MAX_BYTES", 5)
    with pytest.raises(AppSourceError, match="risk:2 is too large"):
        place.apps().read("risk", "2", "")


def test_what_is_kept_needs_no_url_and_each_content_is_there_once(tmp_path: Path) -> None:
    place = Place(tmp_path, f"file://{tmp_path / 'stored'}")
    store(place.stored, "1", times(2.0))
    store(place.stored, "2", times(2.0))
    store_package(place.stored, "3", PACKAGE)
    sources = [place.loaded(version) for version in "123"]
    assert place.contents() == {hashlib.sha256(raw).hexdigest() for one in sources for raw in one.files.values()}
    place.stored.rename(tmp_path / "gone")
    assert [place.apps().read("risk", one.version, one.digest) for one in sources] == sources
    with pytest.raises(MissingAppError):
        place.apps().read("risk", "1", "0" * 64)
    with pytest.raises(MissingAppError):  # whoever asks for any wants what is there now
        place.apps().read("risk", "1", "")


def test_a_load_without_a_digest_sees_what_is_there_now(tmp_path: Path) -> None:
    place = Place(tmp_path, f"file://{tmp_path / 'stored'}")
    before = store(place.stored, "1", times(2.0))
    place.loaded("1")
    after = store(place.stored, "1", times(3.0))
    assert place.loaded("1").digest == after
    assert place.apps().read("risk", "1", before).digest == before
    assert place.apps().read("risk", "1", after).digest == after


@pytest.mark.parametrize("damage", [b"", b"x = 1\n"])
def test_what_is_damaged_here_is_brought_again(tmp_path: Path, damage: bytes) -> None:
    place = Place(tmp_path, f"file://{tmp_path / 'stored'}")
    digest = store(place.stored, "1", times(2.0))
    place.loaded("1")
    [path] = place.files()
    path.write_bytes(damage)
    assert place.loaded("1", digest).files["__init__.py"] == times(2.0).encode()
    [path] = place.files()
    assert path.read_bytes() == times(2.0).encode()


def test_links_out_of_the_place_are_not_followed(tmp_path: Path) -> None:
    place = Place(tmp_path, f"file://{tmp_path / 'stored'}")
    (tmp_path / "secret.py").write_text("x = 1\n")
    (place.stored / "risk").mkdir(parents=True)
    (place.stored / "risk" / "1.py").symlink_to(tmp_path / "secret.py")
    with pytest.raises(ArtifactError, match=r"1\.py leads out of its storage"):
        place.apps().read("risk", "1", "")


def test_the_oldest_of_what_nobody_uses_makes_room(tmp_path: Path) -> None:
    place = Place(tmp_path, f"file://{tmp_path / 'stored'}")
    for version in "1234":
        store(place.stored, version, version * 1_000)
    for version in ("1", "2", "3", "1"):
        place.loaded(version, hashlib.sha256(version.encode() * 1_000).hexdigest(), max_bytes=3_500)
    place.loaded("4", max_bytes=3_500)
    assert place.kept() == {"1", "3", "4"}
    place.used = {("risk", "1"), ("risk", "3"), ("risk", "4")}
    with pytest.raises(ArtifactError, match=r"artifacts\.max_bytes = 3500; what is loaded holds 3000"):
        place.loaded("2", max_bytes=3_500)
    assert place.kept() == {"1", "3", "4"}
