import asyncio
import math
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest

from loaders.signature import Missing, Signature, TensorSpec
from serving.features.file import CHECK_EVERY_S, FileFeatureSource
from serving.features.source import FeatureSourceError
from tests.clock import Clock

AGE = Signature((TensorSpec(name="age", dtype="float64", shape=(-1,), missing=Missing.IMPUTE),), ())


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "users.csv"
    path.write_text("id,age\n007,41\n")
    return path


@pytest.fixture
async def source(path, clock):
    made = FileFeatureSource(path, clock=clock)
    await made.open()
    yield made
    await made.close()


def rewrite(path, text):
    """Another content with another modification time, however coarse the file system's clock."""
    before = path.stat().st_mtime_ns
    path.write_text(text)
    os.utime(path, ns=(before + 10**9, before + 10**9))


async def age(source, user="007"):
    return (await source.lookup([user], AGE)).batch.numbers[0, 0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("user,age\n1,2\n", "has no column 'id' for the user id"),
        ("id,age\n1,2\n1,3\n", "column 'id' has empty or repeated ids"),
        ("id,age\n,2\n1,3\n", "column 'id' has empty or repeated ids"),
        ("", "cannot be read"),
        ("id,age\n1,2,3\n", "cannot be read"),
    ],
)
async def test_a_file_that_will_not_do_is_named_with_the_reason(tmp_path, text, said):
    path = tmp_path / "users.csv"
    path.write_text(text)
    with pytest.raises(FeatureSourceError, match=said) as raised:
        await FileFeatureSource(path).open()
    assert str(path) in str(raised.value)


async def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FeatureSourceError, match="does not exist; mend `features` in the settings"):
        await FileFeatureSource(tmp_path / "none.csv").open()


async def test_before_open_it_says_so():
    with pytest.raises(FeatureSourceError, match=r"users\.csv is not open"):
        await FileFeatureSource(Path("users.csv")).lookup(["1"], AGE)


async def test_a_column_that_is_not_numeric_matters_only_to_models_that_read_it(tmp_path):
    path = tmp_path / "users.csv"
    path.write_text("id,age,name\n1,2,Ann\n")
    source = FileFeatureSource(path)
    await source.open()
    assert await age(source, "1") == 2
    with pytest.raises(FeatureSourceError, match="column 'name' is not numeric"):
        source.check(Signature((TensorSpec(name="name", dtype="float64", shape=(-1,)),), ()))
    await source.close()


async def test_a_column_shows_its_type_late(tmp_path):
    path = tmp_path / "users.csv"
    rows = "".join(f"{number},1\n" for number in range(500))
    path.write_text(f"id,age\n{rows}x,1.5\n")
    source = FileFeatureSource(path)
    await source.open()
    assert await age(source, "x") == 1.5
    await source.close()


async def test_whole_numbers_are_ids_and_fractions_are_not(tmp_path):
    pl.DataFrame({"id": [7, 8], "age": [1.0, 2.0]}).write_parquet(tmp_path / "whole.parquet")
    source = FileFeatureSource(tmp_path / "whole.parquet")
    await source.open()
    assert await age(source, "8") == 2
    await source.close()
    pl.DataFrame({"id": [7.0, 8.0], "age": [1.0, 2.0]}).write_parquet(tmp_path / "fraction.parquet")
    with pytest.raises(FeatureSourceError, match="holds Float64, not ids"):
        await FileFeatureSource(tmp_path / "fraction.parquet").open()


async def test_a_changed_file_is_read_again(source, path):
    assert await age(source) == 41
    rewrite(path, "id,age\n007,42\n008,1\n")
    await source.reread()
    assert await age(source) == 42
    assert await age(source, "008") == 1


async def test_a_look_up_looks_at_the_file_once_a_second_and_does_not_wait(source, path, clock):
    assert await age(source) == 41
    rewrite(path, "id,age\n007,42\n")
    assert await age(source) == 41
    assert source._reading is None
    clock.tick(CHECK_EVERY_S)
    assert await age(source) == 41
    await source._reading
    assert await age(source) == 42


async def test_while_a_file_is_slow_to_be_read_look_ups_go_on_and_nothing_piles_up(source, path, clock):
    assert await age(source) == 41
    disk, go_on, tasks = ThreadPoolExecutor(1), threading.Event(), len(asyncio.all_tasks())
    asyncio.get_running_loop().set_default_executor(disk)
    disk.submit(go_on.wait)
    rewrite(path, "id,age\n007,42\n")
    for _ in range(50):
        clock.tick(CHECK_EVERY_S)
        assert await age(source) == 41
    assert len(asyncio.all_tasks()) == tasks + 1
    go_on.set()
    await source._reading
    assert await age(source) == 42


@pytest.mark.parametrize("text", ["id,height\n007,1\n", "id,age\n007,1\n007,2\n", "id,age\n007,old\n"])
async def test_a_new_file_that_will_not_do_leaves_the_old_rows(source, path, caplog, text):
    assert await age(source) == 41
    rewrite(path, text)
    await source.reread()
    await source.reread()
    assert await age(source) == 41
    assert caplog.text.count("the old rows stay") == 1
    rewrite(path, "id,age\n007,43\n")
    await source.reread()
    assert await age(source) == 43


async def test_a_file_that_is_gone_leaves_the_old_rows(source, path):
    path.unlink()
    await source.reread()
    assert await age(source) == 41
    assert math.isnan(await age(source, "none"))


async def test_the_old_rows_are_let_go_unless_somebody_reads_them(source, path):
    for text, borrowed in (("id,age\n007,42\n", False), ("id,age\n007,43\n", True)):
        old = source._content.users
        old.borrowers += borrowed
        rewrite(path, text)
        await source.reread()
        assert old.positions(["007"])[1].tolist() == [borrowed]
        assert source._content.users is not old


async def test_columns_that_nobody_has_asked_for_are_not_at_hand(source):
    assert source.at_hand(AGE) is None
    await source.lookup(["007"], AGE)
    assert source.at_hand(AGE) is not None
