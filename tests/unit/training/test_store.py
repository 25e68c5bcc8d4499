from pathlib import Path

import numpy as np
import pytest

from training.component import ModelPart, Table
from training.store import TRANSITIONS, JobStore, Metric, State, Status, StoreError, read_metrics, read_status

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
