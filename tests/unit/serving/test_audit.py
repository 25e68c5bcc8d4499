import asyncio
import os
import stat

import msgspec
import pytest

from serving.audit import FILE, MAX_TEXT, AuditLog, Record
from serving.errors import ConflictError
from tests.clock import Clock


def records(folder):
    return [msgspec.json.decode(line, type=Record) for line in (folder / FILE).read_bytes().splitlines()]


async def test_a_change_has_its_asking_and_its_end(tmp_path):
    clock, state = Clock(), ["before"]
    async with AuditLog(tmp_path, clock).change("alice", "PublishOnline", "credit", lambda: state[0]):
        clock.tick(2)
        state[0] = "after"
    asked, done = await asyncio.to_thread(records, tmp_path)
    assert (asked.event.value, asked.who, asked.what, asked.subject) == ("asked", "alice", "PublishOnline", "credit")
    assert (asked.state, done.state, done.event.value) == ("before", "after", "done")
    assert asked.id == done.id
    assert done.time_s - asked.time_s == 2
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600


async def test_a_refusal_is_kept_with_its_reason(tmp_path):
    with pytest.raises(ConflictError):
        async with AuditLog(tmp_path).change("bob", "Unload", "m/1"):
            raise ConflictError("m/1 is needed by service 's'")
    _, refused = await asyncio.to_thread(records, tmp_path)
    assert (refused.event.value, refused.reason) == ("refused", "m/1 is needed by service 's'")


async def test_long_names_are_cut(tmp_path):
    name = "m" * 1_000_000
    with pytest.raises(ConflictError):
        async with AuditLog(tmp_path).change("bob", "Unload", name):
            raise ConflictError(f"{name} is not loaded")
    asked, refused = await asyncio.to_thread(records, tmp_path)
    assert asked.subject == refused.subject == refused.reason == "m" * MAX_TEXT


async def test_a_change_whose_caller_goes_away_has_an_end_with_what_came_of_it(tmp_path):
    entered, never, state = asyncio.Event(), asyncio.Event(), ["before"]

    async def change():
        async with AuditLog(tmp_path).change("bob", "Unload", "m/1", lambda: state[0]):
            entered.set()
            try:
                await never.wait()
            finally:
                state[0] = "after"

    running = asyncio.create_task(change())
    await entered.wait()
    running.cancel()
    await asyncio.wait({running})
    assert running.cancelled()
    asked, left = await asyncio.to_thread(records, tmp_path)
    assert (asked.event.value, asked.state) == ("asked", "before")
    assert (left.event.value, left.state) == ("left", "after")


async def test_lines_are_only_added(tmp_path):
    for number in range(3):
        async with AuditLog(tmp_path).change("x", "Load", str(number)):
            pass
    assert [record.subject for record in await asyncio.to_thread(records, tmp_path)] == list("001122")


async def test_what_cannot_be_written_down_is_not_done(tmp_path):
    done = []
    with pytest.raises(ConflictError, match=r"nothing is changed: audit.log cannot be written"):
        async with AuditLog(tmp_path / "none").change("x", "Load", "m"):
            done.append(1)
    assert not done


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a disk that is full")  # noqa: PTH110
async def test_a_full_disk_refuses(tmp_path):
    (tmp_path / FILE).symlink_to("/dev/full")
    with pytest.raises(ConflictError, match="No space left on device"):
        async with AuditLog(tmp_path).change("x", "Load", "m"):
            pass


async def test_an_end_that_cannot_be_written_changes_nothing(tmp_path, caplog):
    log = AuditLog(tmp_path / "folder")
    await asyncio.to_thread((tmp_path / "folder").mkdir)
    async with log.change("x", "Load", "m"):
        await asyncio.to_thread((tmp_path / "folder").rename, tmp_path / "moved")
    assert "the end of a change is not in audit.log" in caplog.text
