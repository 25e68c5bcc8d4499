"""Halves from a registry behind a URL: brought once, verified, within bounds, from nowhere else."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from loaders.artifact import MANIFEST, ArtifactError, HalfRef, MissingHalfError
from loaders.content import ContentStore
from loaders.registry import bind, half_path, write_half
from loaders.remote import RemoteRegistry
from loaders.remote_folder import RemoteFolder, location_problem
from tests.artifacts import linear_half


def publish(root: Path, version: str, weight: float = 0.5, padding: bytes = b"", party: str = "bank") -> Path:
    """A bound half of model m without hosts; `padding` is a file that takes room."""
    half, files = linear_half("m", version, "guest", party, {"x": weight})
    digest = write_half(root, half, {**files, "padding.bin": padding} if padding else files)
    path = half_path(root, "m", version, "guest", party)
    bind(path, [HalfRef("guest", party, digest)])
    return path


class Place:
    """A registry at a URL, its local side, and what is in use. `fill` puts what was published into the place."""

    def __init__(self, folder: Path, protocol: str) -> None:
        self.published, self.local = folder / "published", folder / "local"
        self.published.mkdir()
        self.used: set[tuple[str, str]] = set()
        self.files = fsspec.filesystem(protocol)
        self.root = f"/{folder.name}" if protocol == "memory" else str(self.published)
        self.url = f"{protocol}://{self.root}"
        self.protocol = protocol

    def fill(self) -> None:
        if self.protocol == "memory":
            self.clear()
            self.files.put(f"{self.published}/", f"{self.root}/", recursive=True)

    def clear(self) -> None:
        if self.files.exists(self.root):
            self.files.rm(self.root, recursive=True)

    def registry(self, max_bytes: int = 1 << 20) -> RemoteRegistry:
        content = ContentStore(self.local / "artifacts", max_bytes)
        return RemoteRegistry(RemoteFolder(self.url), self.local / "registry", content, lambda: self.used)

    def contents(self) -> set[str]:
        return {path.name for path in (self.local / "artifacts").glob("[!.]*")}

    def halves(self) -> set[str]:
        return {path.parts[-3] for path in (self.local / "registry").glob(f"*/*/[!.]*/{MANIFEST}")}


@pytest.fixture(params=["memory", "file"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path, request.param)
    yield made
    made.clear()


def test_a_half_is_brought_verified_and_then_local(place: Place) -> None:
    original = publish(place.published, "1")
    place.fill()
    registry = place.registry()
    registry.check("m", "1", "bank")
    artifact = registry.open("m", "1", "bank")
    assert artifact.path == place.local / "registry" / "m" / "1" / "guest-bank"
    weights = (artifact.path / "weights.npy").read_bytes()
    assert weights == (original / "weights.npy").read_bytes()
    assert place.contents() == {hashlib.sha256(weights).hexdigest()}
    place.clear()
    registry.check("m", "1", "bank")
    assert registry.open("m", "1", "bank").binding_digest == artifact.binding_digest


def test_what_versions_share_is_kept_once(place: Place) -> None:
    for version in ("1", "2"):
        publish(place.published, version)
    publish(place.published, "3", weight=0.75)
    place.fill()
    registry = place.registry()
    one, two, three = (registry.open("m", version, "bank").path / "weights.npy" for version in "123")
    assert one.samefile(two)
    assert not one.samefile(three)
    assert len(place.contents()) == 2


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]), lambda raw: raw + b"0", lambda raw: b""]
)
def test_what_is_not_as_the_manifest_says_is_refused_and_nothing_is_kept(place: Place, damage) -> None:
    path = publish(place.published, "1") / "weights.npy"
    intact = path.read_bytes()
    path.write_bytes(damage(intact))
    place.fill()
    registry = place.registry()
    with pytest.raises(ArtifactError, match=r"m/1/guest-bank/weights\.npy is corrupt"):
        registry.open("m", "1", "bank")
    assert (place.contents(), place.halves()) == (set(), set())
    path.write_bytes(intact)
    place.fill()
    assert registry.open("m", "1", "bank").manifest.version == "1"


def test_a_manifest_that_was_changed_is_refused(place: Place) -> None:
    path = publish(place.published, "1") / MANIFEST
    path.write_bytes(path.read_bytes().replace(b"sigmoid", b"exp"))
    place.fill()
    with pytest.raises(ArtifactError, match=r"manifest\.json has been changed"):
        place.registry().open("m", "1", "bank")


@pytest.mark.parametrize("damage", [b"", b"x" * 136])
def test_what_is_damaged_here_is_brought_again(place: Place, damage: bytes) -> None:
    publish(place.published, "1")
    place.fill()
    registry = place.registry()
    path = registry.open("m", "1", "bank").path / "weights.npy"
    intact = path.read_bytes()
    path.write_bytes(damage)
    assert (registry.open("m", "1", "bank").path / "weights.npy").read_bytes() == intact


def test_what_is_not_there_is_named_with_what_there_is(place: Place) -> None:
    publish(place.published, "1", party="shop")
    place.fill()
    registry = place.registry()
    for call in (registry.check, registry.open):
        with pytest.raises(
            MissingHalfError, match="no half of m/1 for party 'bank' in the registry; there is guest-shop"
        ):
            call("m", "1", "bank")
        with pytest.raises(MissingHalfError, match="no half of m/9 for party 'bank'"):
            call("m", "9", "bank")


@pytest.mark.parametrize(("model", "version"), [("..", "1"), ("m", "../../etc"), ("m/1", "1"), ("*", "1")])
def test_names_lead_nowhere_else(place: Place, model: str, version: str) -> None:
    publish(place.published, "1")
    place.fill()
    with pytest.raises(ArtifactError, match="is not a name"):
        place.registry().open(model, version, "bank")


def test_links_out_of_the_place_are_not_followed(tmp_path: Path) -> None:
    place = Place(tmp_path, "file")
    path = publish(place.published, "1") / "weights.npy"
    path.rename(tmp_path / "weights.npy")
    path.symlink_to(tmp_path / "weights.npy")
    with pytest.raises(ArtifactError, match=r"weights\.npy leads out of its storage"):
        place.registry().open("m", "1", "bank")
    assert place.contents() == set()


def test_the_oldest_of_what_nobody_uses_makes_room(place: Place) -> None:
    for number in "1234":
        publish(place.published, number, padding=number.encode() * 1_000)
    place.fill()
    registry = place.registry(max_bytes=3_500)
    for version in "123":
        registry.open("m", version, "bank")
    registry.open("m", "1", "bank")
    registry.open("m", "4", "bank")
    assert place.halves() == {"1", "3", "4"}
    assert sum(path.stat().st_size for path in (place.local / "artifacts").glob("[!.]*")) <= 3_500
    place.used = {("m", "1"), ("m", "3")}
    registry.open("m", "2", "bank")
    assert place.halves() == {"1", "2", "3"}


def test_when_that_is_not_enough_the_refusal_says_so_and_what_is_used_stays(place: Place) -> None:
    for number in "12":
        publish(place.published, number, padding=number.encode() * 1_000)
    place.fill()
    registry = place.registry(max_bytes=1_500)
    registry.open("m", "1", "bank")
    place.used = {("m", "1")}
    with pytest.raises(ArtifactError, match=r"artifacts\.max_bytes = 1500; what is loaded holds \d+"):
        registry.open("m", "2", "bank")
    assert place.halves() == {"1"}


def test_halves_that_came_otherwise_make_no_room(place: Place) -> None:
    publish(place.published, "1", padding=b"1" * 1_000)
    place.fill()
    publish(place.local / "registry", "7", padding=b"7" * 1_000)
    with pytest.raises(ArtifactError, match="does not fit"):
        place.registry(max_bytes=500).open("m", "1", "bank")
    assert place.halves() == {"7"}
    assert place.registry().open("m", "7", "bank").manifest.version == "7"


def test_a_manifest_is_bounded(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(place.published, "1")
    place.fill()
    monkeypatch.setattr("loaders.remote.MAX_MANIFEST_BYTES", 100)
    with pytest.raises(ArtifactError, match=r"manifest\.json has more than 100 bytes"):
        place.registry().open("m", "1", "bank")


def test_a_protocol_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(protocol: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "filesystem", absent)
    with pytest.raises(ArtifactError, match=r"needs the extra 'storage'.*Install s3fs"):
        RemoteFolder("s3://bucket/models")


@pytest.mark.parametrize(
    ("url", "allowed", "problem"),
    [
        ("/srv/models", (), ""),
        ("file:///srv/models", ("file",), ""),
        ("s3://bucket/models", ("file", "s3"), ""),
        ("s3://bucket/models", ("file",), "has protocol 's3'; artifacts.protocols allows file"),
        ("http://169.254.169.254/models", ("file",), "has protocol 'http'"),
        ("file:///srv/models", (), "artifacts.protocols allows none"),
        ("simplecache::s3://bucket", ("s3", "simplecache"), "is a chain of protocols"),
        ("file://a::s3://bucket", ("file", "s3"), "is a chain of protocols"),
    ],
)
def test_where_a_registry_may_be(url: str, allowed: tuple[str, ...], problem: str) -> None:
    found = location_problem(url, allowed)
    assert problem in found
    assert bool(problem) == bool(found)
