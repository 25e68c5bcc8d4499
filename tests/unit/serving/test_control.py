from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
import rfc8785

from serving.control import Binding, FileControlStore, SnapshotError, State, WantedLimit, WantedModel
from serving.errors import ConflictError
from tests.contract.test_control_store import FULL


def edit(folder: Path, change: Any, name: str = "state.json") -> None:
    """Rewrite the snapshot as another version of us would."""
    document = json.loads((folder / name).read_text())["state"]
    change(document)
    checksum = hashlib.sha256(rfc8785.dumps(document)).hexdigest()
    (folder / name).write_bytes(rfc8785.dumps({"sha256": checksum, "state": document}))


def document(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "state.json").read_text())["state"]


def test_a_state_survives_a_restart(tmp_path: Path) -> None:
    stored = FileControlStore(tmp_path).compare_and_set(0, FULL)
    again = FileControlStore(tmp_path)
    assert again.read() == stored
    assert again.compare_and_set(1, FULL).revision == 2


def test_every_change_is_on_disk(tmp_path: Path) -> None:
    FileControlStore(tmp_path).compare_and_set(0, FULL)
    store = FileControlStore(tmp_path)
    for state in (FULL, State(default_service="a"), State(default_service="a"), FULL, State()):
        stored = store.compare_and_set(store.read().revision, state)
        assert FileControlStore(tmp_path).read() == store.read() == stored


def test_a_change_is_synced_before_it_takes_the_place_of_the_old_and_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[str, bool]] = []

    def record(descriptor: int) -> None:
        synced.append((Path(f"/proc/self/fd/{descriptor}").readlink().name, (tmp_path / "state.json").exists()))

    store = FileControlStore(tmp_path)
    monkeypatch.setattr(os, "fsync", record)
    store.compare_and_set(0, FULL)
    assert synced == [("state.draft", False), (tmp_path.name, True)]


def test_the_state_before_is_kept_beside_it(tmp_path: Path) -> None:
    store = FileControlStore(tmp_path)
    store.compare_and_set(0, FULL)
    store.compare_and_set(1, State())
    (tmp_path / "state.previous.json").replace(tmp_path / "state.json")
    assert FileControlStore(tmp_path).read().services == FULL.services


def test_any_changed_byte_is_noticed(tmp_path: Path) -> None:
    FileControlStore(tmp_path).compare_and_set(0, FULL)
    path = tmp_path / "state.json"
    intact = path.read_bytes()
    for position in range(len(intact)):
        path.write_bytes(intact[:position] + bytes([intact[position] ^ 1]) + intact[position + 1 :])
        with pytest.raises(SnapshotError, match=r"state\.json is corrupt.*state\.previous\.json"):
            FileControlStore(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"{}", b'{"state": 1, "sha256": "00"}', b"\xff\xfe", b'{"state": {"a": 1e999}, "sha256": ""}'],
)
def test_what_is_not_a_snapshot_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state.json").write_bytes(content)
    with pytest.raises(SnapshotError, match=r"state\.json is corrupt"):
        FileControlStore(tmp_path)


def test_a_snapshot_cut_short_is_refused(tmp_path: Path) -> None:
    FileControlStore(tmp_path).compare_and_set(0, FULL)
    path = tmp_path / "state.json"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(SnapshotError, match="corrupt"):
        FileControlStore(tmp_path)


def test_another_major_version_is_refused(tmp_path: Path) -> None:
    FileControlStore(tmp_path).compare_and_set(0, FULL)
    edit(tmp_path, lambda state: state.update(schema="2.0"))
    with pytest.raises(SnapshotError, match=r"has schema 2\.0, this version reads 1\.1"):
        FileControlStore(tmp_path)


def test_a_field_of_the_wrong_type_is_named(tmp_path: Path) -> None:
    FileControlStore(tmp_path).compare_and_set(0, FULL)
    edit(tmp_path, lambda state: state["services"]["credit"].update(revision="two"))
    with pytest.raises(SnapshotError, match=r"\$\.services\[\.\.\.\]\.revision"):
        FileControlStore(tmp_path)


def test_what_a_newer_minor_version_wrote_is_kept(tmp_path: Path) -> None:
    FileControlStore(tmp_path).compare_and_set(0, FULL)

    def newer(state: dict[str, Any]) -> None:
        state.update(schema="1.2", quotas={"bank": 5})
        state["limits"]["service"]["credit"]["per_day"] = 1_000
        state["limits"]["tenant"] = {"x": {"per_s": 1.0, "owner": "anna"}}
        state["services"]["credit"]["shadow"] = "m:2"
        state["services"]["credit"]["current"]["variants"][0]["label"] = "champion"
        state["models"][0]["pinned"] = True

    edit(tmp_path, newer)
    store = FileControlStore(tmp_path)
    added = WantedModel(model="a", version="1", epoch=9)
    state = store.read()
    changed = State(
        schema=state.schema,
        models=(added, *state.models),
        services=state.services,
        default_service="other",
        limits={**state.limits, "service": {"credit": WantedLimit(per_s=7.0)}},
    )
    store.compare_and_set(1, changed)
    kept = document(tmp_path)
    assert (kept["schema"], kept["quotas"], kept["default_service"]) == ("1.2", {"bank": 5}, "other")
    limit = {"per_s": 7.0, "burst": None, "concurrent": None, "across_nodes": False, "per_day": 1_000}
    assert kept["limits"]["service"] == {"credit": limit}
    assert kept["limits"]["tenant"] == {"x": {"per_s": 1.0, "owner": "anna"}}
    assert kept["services"]["credit"]["shadow"] == "m:2"
    assert kept["services"]["credit"]["current"]["variants"][0]["label"] == "champion"
    assert [model.get("pinned") for model in kept["models"]] == [None, True]
    assert kept["holds"] == []
    assert FileControlStore(tmp_path).read().models == changed.models


def test_what_is_unknown_of_a_binding_goes_where_the_binding_goes(tmp_path: Path) -> None:
    FileControlStore(tmp_path).compare_and_set(0, FULL)
    edit(tmp_path, lambda state: state["services"]["credit"]["current"].update(quota=5))
    edit(tmp_path, lambda state: state["services"]["credit"].update(previous=None, owner="anna"))
    store = FileControlStore(tmp_path)

    def bound(current: Binding, previous: Binding) -> dict[str, Any]:
        state = store.read()
        service = msgspec.structs.replace(state.services["credit"], current=current, previous=previous)
        store.compare_and_set(state.revision, State(services={"credit": service}))
        return document(tmp_path)["services"]["credit"]

    old = store.read().services["credit"].current
    new = msgspec.structs.replace(old, app_parameters="")
    published = bound(new, old)
    assert ("quota" in published["current"], published["previous"]["quota"]) == (False, 5)
    back = bound(old, new)
    assert (back["current"]["quota"], "quota" in back["previous"]) == (5, False)
    assert back["owner"] == "anna"


def test_a_removed_service_takes_its_unknown_keys_along(tmp_path: Path) -> None:
    FileControlStore(tmp_path).compare_and_set(0, FULL)
    edit(tmp_path, lambda state: state["services"]["credit"].update(shadow="m:2"))
    FileControlStore(tmp_path).compare_and_set(1, State())
    assert document(tmp_path)["services"] == {}


def test_a_key_that_an_older_version_left_out_is_filled(tmp_path: Path) -> None:
    FileControlStore(tmp_path).compare_and_set(0, FULL)
    edit(tmp_path, lambda state: state.pop("holds"))
    store = FileControlStore(tmp_path)
    assert store.read().holds == ()
    store.compare_and_set(1, store.read())
    assert document(tmp_path)["holds"] == []


OLDEST = {
    "schema": "1.0",
    "revision": 7,
    "models": [{"model": "m", "version": "1", "epoch": 3}],
    "services": {
        "credit": {
            "revision": 2,
            "epoch": 7,
            "salt": "00" * 16,
            "current": {
                "variants": [{"model": "m", "version": "1", "weight": 10_000, "ranges": [[0, 10_000]]}],
                "app": "passthrough",
            },
        }
    },
    "default_service": "credit",
}
"""Before there were holds, shadows, rollback, unmanaged hosts, flow rules, limits and log levels."""


def test_the_oldest_form_is_read_and_written_on(tmp_path: Path) -> None:
    store = written(tmp_path, OLDEST)
    state = store.read()
    assert (state.revision, state.default_service, state.holds, state.log_level) == (7, "credit", (), "")
    assert (state.schema, state.limits) == ("1.1", {})
    credit = state.services["credit"]
    assert (credit.revision, credit.previous, credit.current.shadows, credit.current.unmanaged) == (2, None, (), ())
    stored = store.compare_and_set(7, msgspec.structs.replace(state, log_level="debug"))
    assert FileControlStore(tmp_path).read() == stored
    assert stored.services == state.services


def written(folder: Path, state: dict[str, Any]) -> FileControlStore:
    checksum = hashlib.sha256(rfc8785.dumps(state)).hexdigest()
    (folder / "state.json").write_bytes(rfc8785.dumps({"sha256": checksum, "state": state}))
    return FileControlStore(folder)


RULES = {"I_inference": 0.0, "M_1_guest#9999#m": 20.5}


def test_flow_rules_of_the_version_before_are_limits(tmp_path: Path) -> None:
    state = written(tmp_path, {**OLDEST, "flow_rules": RULES}).read()
    assert state.limits == {"resource": {name: WantedLimit(per_s=per_s) for name, per_s in RULES.items()}}
    store = FileControlStore(tmp_path)
    cleared = {"resource": {"I_inference": WantedLimit(per_s=1.0)}}
    stored = store.compare_and_set(7, msgspec.structs.replace(state, limits=cleared))
    assert "flow_rules" not in document(tmp_path)
    assert document(tmp_path)["schema"] == "1.1"
    assert FileControlStore(tmp_path).read() == stored
    assert stored.limits == cleared


def test_flow_rules_that_the_version_before_adds_while_it_is_replaced_are_kept(tmp_path: Path) -> None:
    limits = {"resource": {"I_inference": {"per_s": 5.0}, "I_other": {"per_s": 6.0}}, "service": {"s": {"per_s": 7.0}}}
    store = written(tmp_path, {**OLDEST, "schema": "1.1", "limits": limits, "flow_rules": {"I_inference": 2.0}})
    state = store.read()
    assert {name: limit.per_s for name, limit in state.limits["resource"].items()} == {"I_inference": 2.0, "I_other": 6}
    assert state.limits["service"]["s"].per_s == 7.0


def test_flow_rules_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match=r"Expected `float`"):
        written(tmp_path, {**OLDEST, "flow_rules": {"I_inference": "many"}})


def test_a_full_disk_refuses_the_change_and_loses_nothing(tmp_path: Path) -> None:
    store = FileControlStore(tmp_path)
    acknowledged = store.compare_and_set(0, FULL)
    (tmp_path / "state.draft").symlink_to("/dev/full")  # every write to it fails as on a full disk
    with pytest.raises(OSError) as refused:
        store.compare_and_set(1, State())
    assert refused.value.errno == errno.ENOSPC
    assert store.read() == acknowledged
    assert FileControlStore(tmp_path).read() == acknowledged
    assert not (tmp_path / "state.draft").exists()
    assert store.compare_and_set(1, State()).revision == 2


def test_a_folder_that_is_gone_refuses_the_change(tmp_path: Path) -> None:
    store = FileControlStore(tmp_path / "state")
    (tmp_path / "state").rmdir()
    with pytest.raises(FileNotFoundError):
        store.compare_and_set(0, FULL)
    assert store.read() == State()


def test_a_draft_of_a_killed_process_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "state.draft").write_bytes(b'{"sha')
    store = FileControlStore(tmp_path)
    assert store.read() == State()
    assert FileControlStore(tmp_path).compare_and_set(0, FULL).revision == 1


def test_a_stale_writer_leaves_the_file_alone(tmp_path: Path) -> None:
    store = FileControlStore(tmp_path)
    store.compare_and_set(0, FULL)
    before = (tmp_path / "state.json").read_bytes()
    with pytest.raises(ConflictError):
        store.compare_and_set(0, State())
    assert (tmp_path / "state.json").read_bytes() == before
