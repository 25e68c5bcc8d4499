import errno
import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from training.component import ModelPart, Table
from training.store import (
    TRANSITIONS,
    JobStore,
    Metric,
    State,
    Status,
    StoreError,
    read_metrics,
    read_status,
    settled_status,
)

STATUS = Status("job", "bank", "guest", "d1")


def test_values_come_back(tmp_path: Path) -> None:
    table = Table(("01", "2"), ("a",), np.array([[1.0], [np.nan]]))
    model = ModelPart("x", ("a",), {"w": np.array([1.5]), "b": np.array(2.0)}, {"link": "logit"})
    with JobStore(tmp_path / "job", STATUS) as store:
        store.save("read", "data", table)
        store.save("fit", "model", model)
        back, fitted = store.load("read", "data"), store.load("fit", "model")
        assert store.load("fit", "other") is None
    assert isinstance(back, Table) and back.ids == table.ids
    np.testing.assert_array_equal(back.features, table.features)
    assert isinstance(fitted, ModelPart) and (fitted.kind, fitted.attributes) == ("x", {"link": "logit"})
    assert {name: array.tolist() for name, array in fitted.arrays.items()} == {"w": [1.5], "b": 2.0}


def test_only_the_owner_reads_the_folder(tmp_path: Path) -> None:
    with JobStore(tmp_path / "job", STATUS) as store:
        assert store.folder.stat().st_mode & 0o077 == 0


def test_objects_are_not_stored(tmp_path: Path) -> None:
    with JobStore(tmp_path / "job", STATUS) as store, pytest.raises(ValueError, match="allow_pickle"):
        store.save("fit", "model", ModelPart("x", (), {"w": np.array([object()])}))


def test_states_and_metrics_are_on_disk(tmp_path: Path) -> None:
    with JobStore(tmp_path / "job", STATUS) as store:
        store.move(State.RUNNING)
        store.move_task("fit", State.RUNNING)
        store.move_task("fit", State.FAILED)
        store.move(State.FAILED, "why")
        store.add_metric(Metric("fit", "loss", 0.5, 1))
    status = read_status(tmp_path / "job")
    assert (status.state, status.reason, status.tasks) == (State.FAILED, "why", {"fit": State.FAILED})
    assert read_metrics(tmp_path / "job") == [Metric("fit", "loss", 0.5, 1)]


@pytest.mark.parametrize("before", State)
@pytest.mark.parametrize("after", State)
def test_only_the_table_decides(tmp_path: Path, before: State, after: State) -> None:
    with JobStore(tmp_path / "job", STATUS) as store:
        store.status = Status("job", "bank", "guest", "d1", before)
        if after in TRANSITIONS[before]:
            store.move(after)
            assert read_status(store.folder).state is after
        else:
            with pytest.raises(StoreError, match="cannot become"):
                store.move(after)


def test_a_failed_job_starts_anew_and_a_good_one_stays(tmp_path: Path) -> None:
    folder = tmp_path / "job"
    with JobStore(folder, STATUS) as store:
        store.save("read", "data", Table(("1",), (), np.empty((1, 0))))
        store.add_metric(Metric("fit", "loss", 0.5))
        store.move(State.STOPPED)
    with JobStore(folder, STATUS) as store:
        assert store.load("read", "data") is None and read_metrics(folder) == []
        store.move(State.RUNNING)
        store.move(State.SUCCEEDED)
    with pytest.raises(StoreError, match="give the job another id"), JobStore(folder, STATUS):
        pass
    assert read_status(folder).state is State.SUCCEEDED


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with (
        JobStore(tmp_path / "job", STATUS),
        pytest.raises(StoreError, match="runs already"),
        JobStore(tmp_path / "job", STATUS),
    ):
        pass


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not the folder of a job"):
        read_status(tmp_path)
    (tmp_path / "status.json").write_text("{")
    with pytest.raises(StoreError, match="cannot be read"):
        read_status(tmp_path)


def test_whoever_reads_sees_a_whole_status(tmp_path: Path) -> None:
    with JobStore(tmp_path / "job", STATUS) as store:
        store.move(State.RUNNING)
        done = threading.Event()

        def write() -> None:
            for number in range(100):
                store.move_task(f"task-{number}", State.RUNNING)
            done.set()

        writer = threading.Thread(target=write)
        writer.start()
        seen = [0]
        while not done.is_set():
            seen.append(len(read_status(store.folder).tasks))
        writer.join()
    assert seen == sorted(seen)
    assert len(read_status(tmp_path / "job").tasks) == 100


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with JobStore(tmp_path / "job", STATUS) as store:
        store.move(State.RUNNING)
        before = (store.folder / "status.json").read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(StoreError, match="job cannot be written: No space left on device"):
                store.move(State.SUCCEEDED)
        assert (store.folder / "status.json").read_bytes() == before
        assert store.status.state is State.RUNNING
        store.move(State.SUCCEEDED)


def test_a_place_where_no_folder_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be written: Not a directory"), JobStore(tmp_path / "file/job", STATUS):
        pass


def test_a_job_without_its_process_has_failed(tmp_path: Path) -> None:
    with JobStore(tmp_path / "job", STATUS) as store:
        store.move(State.RUNNING)
        assert settled_status(store.folder).state is State.RUNNING
    settled = settled_status(tmp_path / "job")
    assert (settled.state, settled.reason) == (State.FAILED, "its process ended without a word; run it again")
    with JobStore(tmp_path / "job", STATUS) as again:
        assert again.status.state is State.PENDING
        again.move(State.STOPPED, "by the operator")
    assert settled_status(tmp_path / "job").reason == "by the operator"


def test_a_metric_cut_short_is_left_out(tmp_path: Path) -> None:
    point = json.dumps({"task": "fit", "name": "loss", "value": 0.5})
    (tmp_path / "metrics.jsonl").write_text(point + "\n" + point[:20])
    assert read_metrics(tmp_path) == [Metric("fit", "loss", 0.5)]
    (tmp_path / "metrics.jsonl").write_text(point[:20] + "\n" + point + "\n")
    with pytest.raises(StoreError, match=r"metrics\.jsonl cannot be read"):
        read_metrics(tmp_path)


def test_the_end_settles_what_runs_and_nothing_comes_after(tmp_path: Path) -> None:
    with JobStore(tmp_path / "job", STATUS) as store:
        store.move(State.RUNNING)
        for task in ("read", "fit"):
            store.move_task(task, State.RUNNING)
        store.move_task("read", State.SUCCEEDED)
        store.end(State.STOPPED, State.FAILED, "party shop is lost")
        for task, state in (("fit", State.SUCCEEDED), ("judge", State.RUNNING)):
            with pytest.raises(StoreError, match="too late"):
                store.move_task(task, state)
    status = read_status(tmp_path / "job")
    assert (status.state, status.reason) == (State.FAILED, "party shop is lost")
    assert status.tasks == {"read": State.SUCCEEDED, "fit": State.STOPPED}
