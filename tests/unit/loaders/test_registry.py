"""Halves on disk: written in two phases, verified byte by byte."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
import rfc8785

from loaders.artifact import ArtifactError, HalfRef, Manifest
from loaders.registry import (
    bind,
    digest_of,
    find_half,
    half_path,
    newest_version,
    open_half,
    resolve_alias,
    set_alias,
    stored,
    write_half,
)
from tests.artifacts import linear_half, make_bound_pair

WEIGHTS = {"a": 0.5, "b": -0.25}


def write(root: Path, version: str = "1", weights: dict[str, float] = WEIGHTS) -> tuple[Path, HalfRef]:
    """A half that is not yet bound."""
    digest = write_half(root, *linear_half("m", version, "guest", "bank", weights, 0.5))
    return half_path(root, "m", version, "guest", "bank"), HalfRef("guest", "bank", digest)


@pytest.fixture
def half(tmp_path: Path) -> Path:
    path, own = write(tmp_path)
    bind(path, [own])
    return path


def refused(root: Path, text: str) -> None:
    with pytest.raises(ArtifactError, match=text):
        open_half(root, "m", "1", "bank")


def edit(half: Path, **changes: object) -> None:
    """Change the manifest and keep it canonical."""
    manifest = half / "manifest.json"
    manifest.write_bytes(rfc8785.dumps({**json.loads(manifest.read_bytes()), **changes}))


def test_a_bound_half_opens_with_its_digests(tmp_path: Path) -> None:
    pair = make_bound_pair(
        tmp_path / "bank",
        tmp_path / "shop",
        model="m",
        version="1",
        guest="bank",
        host="shop",
        guest_weights=WEIGHTS,
        host_weights={"x": 1.0},
        intercept=0.0,
    )
    guest, host = open_half(tmp_path / "bank", "m", "1", "bank"), open_half(tmp_path / "shop", "m", "1", "shop")
    assert guest.binding_digest == host.binding_digest == pair.binding_digest
    assert guest.half_digest != host.half_digest
    assert guest.manifest.role == "guest"
    assert set(guest.files) == {"weights.npy", "intercept.npy"}


def test_any_flipped_byte_is_refused(half: Path, tmp_path: Path) -> None:
    for name in ("manifest.json", "weights.npy", "intercept.npy"):
        intact = (half / name).read_bytes()
        for position in range(len(intact)):
            damaged = bytearray(intact)
            damaged[position] ^= 1 << (position % 8)
            (half / name).write_bytes(damaged)
            with pytest.raises(ArtifactError):
                open_half(tmp_path, "m", "1", "bank")
        (half / name).write_bytes(intact)
    assert open_half(tmp_path, "m", "1", "bank").half_digest


def test_a_flipped_byte_in_anothers_part_of_the_binding_changes_the_binding_digest(tmp_path: Path) -> None:
    path, own = write(tmp_path)
    bound = bind(path, [own, HalfRef("host", "shop", "00" * 32)])
    intact = (path / "manifest.json").read_bytes()
    assert open_half(tmp_path, "m", "1", "bank").binding_digest == bound
    (path / "manifest.json").write_bytes(intact.replace(b"00" * 32, b"00" * 31 + b"01"))
    assert open_half(tmp_path, "m", "1", "bank").binding_digest != bound


def test_keys_of_a_newer_minor_version_are_kept_and_count(tmp_path: Path) -> None:
    path, own = write(tmp_path)
    edit(path, schema="1.7", invented={"by": "a newer version"})
    digest = digest_of(json.loads((path / "manifest.json").read_bytes()))
    assert digest != own.half_digest
    bind(path, [HalfRef("guest", "bank", digest)])
    assert open_half(tmp_path, "m", "1", "bank").half_digest == digest
    assert json.loads((path / "manifest.json").read_bytes())["invented"] == {"by": "a newer version"}


@pytest.mark.parametrize("schema", ["2.0", "", "x"])
def test_another_major_schema_is_refused(half: Path, tmp_path: Path, schema: str) -> None:
    edit(half, schema=schema)
    refused(tmp_path, "schema")


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda half: (half / "extra.npy").write_bytes(b"x"), r"extra\.npy is not in the manifest"),
        (lambda half: (half / "weights.npy").unlink(), r"weights\.npy is missing"),
        (lambda half: (half / "manifest.json").unlink(), r"manifest\.json is missing"),
        (lambda half: (half / "manifest.json").write_bytes(b"{"), "not JSON"),
        (lambda half: (half / "manifest.json").write_bytes(b"[]"), "not a JSON object"),
        (lambda half: edit(half, files={"../../secret": {"sha256": "", "bytes": 0}}), "cannot be a file"),
        (lambda half: edit(half, party="shop"), "party 'shop'"),
        (lambda half: edit(half, model="n"), "of n/1"),
        (lambda half: edit(half, inputs=3), "inputs"),
    ],
)
def test_damage_is_named(half: Path, tmp_path: Path, damage, text: str) -> None:
    damage(half)
    refused(tmp_path, text)


@pytest.mark.parametrize(
    "manifest",
    [b'{"a":' * 100_000 + b"1" + b"}" * 100_000, b'{"schema":99999999999999999999}', b'{"schema":1e999}', b"\xff"],
    ids=["nested too deeply", "a number beyond 2^53", "an infinite number", "not UTF-8"],
)
def test_a_manifest_that_readers_trip_over_is_refused(half: Path, tmp_path: Path, manifest: bytes) -> None:
    (half / "manifest.json").write_bytes(manifest)
    refused(tmp_path, r"m/1/guest-bank/manifest\.json")


def test_what_is_no_plain_file_is_not_read(half: Path, tmp_path: Path) -> None:
    (half / "weights.npy").unlink()
    os.mkfifo(half / "weights.npy")
    refused(tmp_path, "plain files")


def test_files_may_lie_in_folders(tmp_path: Path) -> None:
    manifest, files = linear_half("m", "1", "guest", "bank", WEIGHTS, 0.5)
    digest = write_half(tmp_path, manifest, {**files, "parts/one/a.npy": b"a"})
    path = half_path(tmp_path, "m", "1", "guest", "bank")
    bind(path, [HalfRef("guest", "bank", digest)])
    assert "parts/one/a.npy" in open_half(tmp_path, "m", "1", "bank").files
    (path / "parts" / "one" / "b.npy").write_bytes(b"b")
    refused(tmp_path, r"parts/one/b\.npy is not in the manifest")


def test_a_half_is_on_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file and folder of it, and every folder that leads to it."""
    made_durable: list[Path] = []
    sync, rename = os.fsync, Path.rename

    def noted(descriptor: int) -> None:
        made_durable.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        sync(descriptor)

    def renamed(draft: Path, target: Path) -> Path:
        inside = {draft, *draft.rglob("*")}
        assert inside <= set(made_durable)
        assert len(inside) == 6
        return rename(draft, target)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(Path, "rename", renamed)
    manifest, _ = linear_half("m", "1", "guest", "bank", WEIGHTS)
    write_half(tmp_path, manifest, {"a.npy": b"a", "parts/one/b.npy": b"b"})
    assert {tmp_path / "m" / "1", tmp_path / "m", tmp_path} <= set(made_durable)


def test_a_link_instead_of_a_file_is_refused(half: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.npy"
    (half / "weights.npy").rename(outside)
    (half / "weights.npy").symlink_to(outside)
    refused(tmp_path, "is a link")


def test_a_half_that_leads_out_of_the_registry_is_refused(half: Path, tmp_path: Path) -> None:
    registry, outside = tmp_path / "registry", tmp_path / "outside"
    (registry / "m" / "1").mkdir(parents=True)
    half.rename(outside)
    (registry / "m" / "1" / "guest-bank").symlink_to(outside)
    refused(registry, "out of the registry")


def test_an_unbound_half_does_not_open(tmp_path: Path) -> None:
    write(tmp_path)
    refused(tmp_path, "not bound")


def test_a_binding_must_name_the_half(tmp_path: Path) -> None:
    path, own = write(tmp_path)
    with pytest.raises(ArtifactError, match="does not name this half"):
        bind(path, [HalfRef("guest", "bank", "00" * 32)])
    with pytest.raises(ArtifactError, match="twice"):
        bind(path, [own, HalfRef("guest", "bank", "00" * 32)])


def test_a_bound_half_never_changes(half: Path) -> None:
    manifest = json.loads((half / "manifest.json").read_bytes())
    own = msgspec.convert(manifest["binding"][0], HalfRef)
    assert bind(half, [own]) == bind(half, [own])
    with pytest.raises(ArtifactError, match="bound already"):
        bind(half, [own, HalfRef("host", "shop", "11" * 32)])


def test_the_order_of_a_binding_does_not_matter(tmp_path: Path) -> None:
    path, own = write(tmp_path)
    other = HalfRef("host", "shop", "11" * 32)
    assert bind(path, [other, own]) == bind(path, [own, other])


def test_writing_the_same_half_again_changes_nothing(half: Path, tmp_path: Path) -> None:
    before = (half / "manifest.json").read_bytes()
    write(tmp_path)
    assert (half / "manifest.json").read_bytes() == before
    with pytest.raises(ArtifactError, match="another half already"):
        write(tmp_path, weights={"a": 9.0})


def test_a_half_that_was_never_bound_makes_way(tmp_path: Path) -> None:
    """A job that failed while publishing can be run again."""
    write(tmp_path)
    path, own = write(tmp_path, weights={"a": 9.0})
    bind(path, [own])
    assert open_half(tmp_path, "m", "1", "bank").half_digest == own.half_digest
    assert [entry.name for entry in path.parent.iterdir()] == ["guest-bank"]


def test_a_process_killed_while_it_binds_spoils_nothing(tmp_path: Path) -> None:
    path, own = write(tmp_path)
    code = (
        "import os, sys; from pathlib import Path\n"
        "from loaders.artifact import HalfRef; from loaders.registry import bind\n"
        "Path.replace = lambda *_: os._exit(9)\n"
        "bind(Path(sys.argv[1]), [HalfRef(*sys.argv[2:])])"
    )
    killed = subprocess.run([sys.executable, "-c", code, path, own.role, own.party, own.half_digest], check=False)
    assert killed.returncode == 9
    refused(tmp_path, "not bound")
    bind(path, [own])
    assert open_half(tmp_path, "m", "1", "bank").half_digest == own.half_digest
    with pytest.raises(ArtifactError, match=r"there is guest-bank$"):
        find_half(tmp_path, "m", "1", "shop")


def test_writers_at_the_same_time_leave_one_whole_half(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        outcomes = [pool.submit(write, tmp_path) for _ in range(8)]
    assert {outcome.result()[1] for outcome in outcomes} == {write(tmp_path)[1]}
    path, own = write(tmp_path)
    bind(path, [own])
    assert open_half(tmp_path, "m", "1", "bank").half_digest == own.half_digest
    assert [entry.name for entry in path.parent.iterdir()] == ["guest-bank"]


@pytest.mark.parametrize("name", ["", "..", "../m", "a/b", ".hidden", "a b", "x" * 129, "m\n"])
def test_names_are_names(tmp_path: Path, name: str) -> None:
    for names in ((name, "1", "bank"), ("m", name, "bank"), ("m", "1", name)):
        with pytest.raises(ArtifactError):
            find_half(tmp_path, *names)


def test_files_are_named_like_files(tmp_path: Path) -> None:
    manifest, files = linear_half("m", "1", "guest", "bank", WEIGHTS)
    for name in ("../x", "/x", "manifest.json", ".x", "a//b"):
        with pytest.raises(ArtifactError, match="cannot be a file"):
            write_half(tmp_path, manifest, {**files, name: b""})
    assert not (tmp_path / "m").exists()


def test_a_party_finds_only_its_own_half(half: Path, tmp_path: Path) -> None:
    assert find_half(tmp_path, "m", "1", "bank") == half
    with pytest.raises(ArtifactError, match="there is guest-bank"):
        find_half(tmp_path, "m", "1", "shop")
    with pytest.raises(ArtifactError, match="no half of m/2"):
        find_half(tmp_path, "m", "2", "bank")


def test_two_halves_of_one_party_are_refused(half: Path, tmp_path: Path) -> None:
    (half.parent / "host-bank").mkdir()
    with pytest.raises(ArtifactError, match="two halves"):
        find_half(tmp_path, "m", "1", "bank")


def test_an_alias_means_a_version_that_is_there(half: Path, tmp_path: Path) -> None:
    set_alias(tmp_path, "m", "latest", "1")
    assert resolve_alias(tmp_path, "m", "latest") == "1"
    with pytest.raises(ArtifactError, match="no m/2"):
        set_alias(tmp_path, "m", "latest", "2")
    with pytest.raises(ArtifactError, match="no alias 'stable'"):
        resolve_alias(tmp_path, "m", "stable")


def test_a_manifest_survives_the_disk(half: Path, tmp_path: Path) -> None:
    manifest = open_half(tmp_path, "m", "1", "bank").manifest
    written, _ = linear_half("m", "1", "guest", "bank", WEIGHTS, 0.5)
    assert msgspec.structs.replace(manifest, files={}, binding=None) == written
    assert isinstance(manifest, Manifest)


def named(root: Path) -> tuple[Path, HalfRef]:
    """A half that the parties know by its name."""
    manifest, files = linear_half("m", "1", "guest", "bank", WEIGHTS, 0.5)
    write_half(root, msgspec.structs.replace(manifest, identity="ab" * 32), files)
    return half_path(root, "m", "1", "guest", "bank"), HalfRef("guest", "bank", "ab" * 32)


def test_a_half_that_parties_know_by_name_is_bound_by_it_and_sealed(tmp_path: Path) -> None:
    path, ref = named(tmp_path)
    other = HalfRef("host", "shop", "cd" * 32)
    digest = bind(path, [ref, other])
    artifact = open_half(tmp_path, "m", "1", "bank")
    assert artifact.binding_digest == digest
    assert artifact.manifest.sealed == artifact.half_digest != "ab" * 32
    assert bind(path, [other, ref]) == digest


@pytest.mark.parametrize("changes", [{"provenance": {"job": "another"}}, {"sealed": None}, {"identity": None}])
def test_a_sealed_half_does_not_change(tmp_path: Path, changes: dict[str, object]) -> None:
    path, ref = named(tmp_path)
    bind(path, [ref])
    document = {**json.loads((path / "manifest.json").read_bytes()), **changes}
    kept = {key: value for key, value in document.items() if value is not None}
    (path / "manifest.json").write_bytes(rfc8785.dumps(kept))
    refused(tmp_path, "has been changed")


def test_a_half_without_a_name_is_bound_by_its_digest_alone(tmp_path: Path, half: Path) -> None:
    edit(half, sealed="00" * 32)
    refused(tmp_path, "has been changed")


def test_aliases_are_no_version(half: Path, tmp_path: Path) -> None:
    set_alias(tmp_path, "m", "best", "1")
    assert newest_version(tmp_path, "m") == "1"
    assert (stored(tmp_path, "bank"), stored(tmp_path, "shop"), stored(tmp_path / "none", "bank")) == (
        [("m", "1")],
        [],
        [],
    )


def test_a_half_says_the_oldest_schema_that_knows_all_it_says(tmp_path: Path, half: Path) -> None:
    assert open_half(tmp_path, "m", "1", "bank").manifest.schema == "1.0"
    manifest, files = linear_half("m", "2", "guest", "bank", WEIGHTS, 0.5)
    manifest = msgspec.structs.replace(manifest, stand_ins={"shop": [0.125]})
    digest = write_half(tmp_path, manifest, files)
    bind(half_path(tmp_path, "m", "2", "guest", "bank"), [HalfRef("guest", "bank", digest)])
    read = open_half(tmp_path, "m", "2", "bank").manifest
    assert (read.schema, read.stand_ins) == ("1.1", {"shop": [0.125]})
