import asyncio
import os

import pytest

from serving.telemetry.worker_files import STALE_S, Teller, Telling, Told, WorkerFile, nobody


class Worker:
    """Writes once when it is started, and whenever it is told to."""

    def __init__(self, folder, name, generation="1", topic="fate"):
        self.now = 1_000_000.0
        self.said = b"nothing"
        self._written = asyncio.Queue()
        self._again = asyncio.Event()
        teller = Teller(folder, name, generation)
        self.file = WorkerFile(topic, lambda: self.said, teller, lambda: self.now, self._pause)

    async def _pause(self, seconds):
        self._written.put_nowait(seconds)
        await self._again.wait()
        self._again.clear()

    async def start(self):
        await self.file.start()
        await self._written.get()

    async def write(self):
        self._again.set()
        await self._written.get()


@pytest.fixture
def one(tmp_path):
    return Worker(tmp_path, "here/0")


async def test_a_worker_hears_the_others_until_they_are_gone(tmp_path, one):
    other = Worker(tmp_path, "here/1.x")
    await one.start()
    assert await one.file.others() == []
    other.said = b"first"
    await other.start()
    assert await one.file.others() == [Told("here/1.x", "1", b"first")]
    other.said = b"second"
    await other.write()
    assert await one.file.others() == [Told("here/1.x", "1", b"second")]
    one.now += STALE_S + 1
    assert await one.file.others() == []
    one.now -= STALE_S + 1
    await other.file.stop()
    assert await one.file.others() == []
    await one.file.stop()
    assert not list(tmp_path.iterdir())


async def test_a_worker_and_its_successor_hear_each_other(tmp_path, one):
    successor = Worker(tmp_path, "here/0", "2")
    for each in (one, successor):
        await each.start()
    assert [told.generation for told in await one.file.others()] == ["2"]
    assert [told.generation for told in await successor.file.others()] == ["1"]
    for each in (one, successor):
        await each.file.stop()
    assert not list(tmp_path.iterdir())


async def test_things_are_told_apart(tmp_path, one):
    other = Worker(tmp_path, "here/1", topic="oip")
    await other.start()
    assert await one.file.others() == []
    await other.file.stop()


async def test_what_killed_workers_left_is_removed(tmp_path, one):
    left = [tmp_path / name for name in ("here%2F0@0.fate", "here%2F0@0.fate.draft", "here%2F0@0.of-before")]
    for path in left:
        path.write_bytes(b"")
        os.utime(path, (one.now - 3_600, one.now - 3_600))
    await one.start()
    assert not any(path.exists() for path in left)
    await one.file.stop()


async def test_a_folder_that_cannot_be_written_is_told_and_tried_again(tmp_path, caplog):
    (tmp_path / "file").write_bytes(b"")
    worker = Worker(tmp_path / "file", "here/0")
    await worker.start()
    await worker.write()
    assert caplog.text.count("figures cannot be shared with the other workers") == 2
    worker.file._task.cancel()


async def test_a_worker_that_is_alone_tells_nothing():
    telling = Telling(None)
    others = telling.tell("fate", lambda: b"")
    assert (others, list(await others()), telling.files) == (nobody, [], [])
