import signal

import pytest

from serving.workers import Again, Ended, GiveUp, InUseError, Wish, after, exclusive, for_workers

ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}


def ended(code, lived_s=1.0, listened=True, wish=Wish.RUN):
    return Ended(code, lived_s, listened, wish)


@pytest.mark.parametrize(
    ("end", "failures", "step"),
    [
        pytest.param(ended(2, listened=False), 0, GiveUp(2), id="a start that is refused is final"),
        pytest.param(ended(-11, listened=False), 0, GiveUp(1), id="a crash before the ports were open is final"),
        pytest.param(ended(-9), 0, Again(0.1, 1), id="a crash is followed by a restart"),
        pytest.param(ended(2), 0, Again(0.1, 1), id="a refused restart is tried again"),
        pytest.param(ended(0), 0, Again(0.1, 1), id="an end that nobody asked for is a failure"),
        pytest.param(ended(-9), 3, Again(0.8, 4), id="pauses double"),
        pytest.param(ended(-9), 5000, Again(30.0, 5001), id="pauses are bounded"),
        pytest.param(ended(-9, lived_s=60.0), 9, Again(0.1, 1), id="a steady life forgives"),
        pytest.param(ended(0, wish=Wish.STOP), 0, GiveUp(0), id="a clean stop"),
        pytest.param(ended(-signal.SIGTERM, wish=Wish.STOP), 0, GiveUp(0), id="a stop before the handlers were set"),
        pytest.param(ended(-signal.SIGKILL, wish=Wish.STOP), 0, GiveUp(1), id="a stop that had to kill"),
        pytest.param(ended(0, wish=Wish.RESTART), 4, Again(0.0, 0), id="a wanted restart needs no pause"),
    ],
)
def test_what_follows_the_end_of_a_worker(end, failures, step):
    assert after(end, failures) == step


def test_one_supervisor_per_state_folder(tmp_path):
    with exclusive(tmp_path / "state"), pytest.raises(InUseError, match=r"process \d+ already runs a node on"):
        exclusive(tmp_path / "state").__enter__()
    with exclusive(tmp_path / "state"):
        pass


@pytest.mark.parametrize(
    ("said", "now"),
    [
        (None, "glibc.malloc.hugetlb=1"),
        ("glibc.malloc.check=1", "glibc.malloc.check=1:glibc.malloc.hugetlb=1"),
        ("glibc.malloc.hugetlb=0", "glibc.malloc.hugetlb=0"),
    ],
)
def test_workers_ask_for_huge_pages_unless_the_operator_says_something(said, now):
    given = {"A": "b"} | ({} if said is None else {"GLIBC_TUNABLES": said})
    assert for_workers(given) == {"A": "b", **ONE_THREAD, "GLIBC_TUNABLES": now}


def test_products_and_files_of_features_take_one_thread_unless_the_operator_says_something():
    for name in ONE_THREAD:
        assert for_workers({name: "4"})[name] == "4"
