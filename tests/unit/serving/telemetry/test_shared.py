import asyncio
import os

import pytest

from serving.telemetry.exposition import Exposition, counter, gauge, histogram
from serving.telemetry.histogram import Histogram
from serving.telemetry.shared import STALE_S, SharedExposition, merged


def exposition(count):
    took = Histogram()
    took.observe(0.003)

    def reading():
        yield counter("tessera_things", "Things.", [({"kind": "a"}, float(count))])
        yield gauge("tessera_level", "Level.", [({}, count / 2)])
        yield histogram("tessera_took_seconds", "Time.", [({}, took)])

    return Exposition((reading,))


def lines(text):
    return text.decode().splitlines()


def test_samples_of_all_have_the_name_of_theirs():
    shown = lines(merged({"here/1": exposition(4).text(), "here/0": exposition(3).text()}))
    assert shown.count("# TYPE tessera_things_total counter") == 1
    assert 'tessera_things_total{kind="a",replica="here/0"} 3.0' in shown
    assert 'tessera_things_total{kind="a",replica="here/1"} 4.0' in shown
    assert 'tessera_level{replica="here/1"} 2.0' in shown
    assert 'tessera_took_seconds_bucket{le="0.005",replica="here/0"} 1.0' in shown
    assert 'tessera_took_seconds_count{replica="here/1"} 1.0' in shown


@pytest.fixture
def expositions():
    return exposition(1), exposition(2)  # they look at the process when they are made


async def test_a_worker_shows_the_others_until_they_are_gone(tmp_path, expositions):
    now = [1_000_000.0]
    written = asyncio.Queue()

    async def pause(seconds):
        written.put_nowait(seconds)
        await asyncio.get_running_loop().create_future()

    one, other = (
        SharedExposition(own, tmp_path, name, "1", lambda: now[0], pause)
        for name, own in zip(("here/0", "here/1"), expositions, strict=True)
    )
    assert 'tessera_things_total{kind="a",replica="here/0"} 1.0' in lines(await one.text())
    await other.start()
    await written.get()
    seen = lines(await one.text())
    assert 'tessera_things_total{kind="a",replica="here/1"} 2.0' in seen
    now[0] += STALE_S + 1
    assert not [line for line in lines(await one.text()) if "here/1" in line]
    now[0] -= STALE_S + 1
    await other.stop()
    assert not [line for line in lines(await one.text()) if "here/1" in line]
    assert not list(tmp_path.iterdir())


async def test_a_worker_and_its_successor_are_one_line_that_of_the_successor(tmp_path, expositions):
    now = [1_000_000.0]

    async def pause(_):
        await asyncio.get_running_loop().create_future()

    old, new = (
        SharedExposition(own, tmp_path, "here/0", generation, lambda: now[0], pause)
        for generation, own in zip(("1", "2"), expositions, strict=True)
    )
    for one in (old, new):
        await one.start()
    while len(list(tmp_path.glob("*.prom"))) < 2:
        await asyncio.sleep(0)
    for one in (old, new):
        assert [line for line in lines(await one.text()) if line.startswith("tessera_things_total")] == [
            'tessera_things_total{kind="a",replica="here/0"} 2.0'
        ]
    await old.stop()
    assert 'tessera_things_total{kind="a",replica="here/0"} 2.0' in lines(await new.text())
    await new.stop()
    assert not list(tmp_path.iterdir())


async def test_what_killed_workers_left_is_removed(tmp_path, expositions):
    now = [1_000_000.0]
    left = [tmp_path / name for name in ("here%2F0@0.prom", "here%2F0@0.prom.draft")]
    for path in left:
        path.write_bytes(b"")
        os.utime(path, (now[0] - 3_600, now[0] - 3_600))

    async def pause(_):
        await asyncio.get_running_loop().create_future()

    one = SharedExposition(expositions[0], tmp_path, "here/0", "1", lambda: now[0], pause)
    await one.start()
    while any(path.exists() for path in left):
        await asyncio.sleep(0)
    await one.stop()
