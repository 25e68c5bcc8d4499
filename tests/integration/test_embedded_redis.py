"""The node's own cache server as a real process."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from serving.cache import embedded
from serving.cache.embedded import EmbeddedRedis, StateInUseError, find_server

MAX_BYTES = 64 << 20

OWNER = """
import asyncio, sys
from pathlib import Path
from serving.cache.embedded import EmbeddedRedis

async def main():
    server = EmbeddedRedis(Path(sys.argv[1]), 64 << 20)
    await server.start()
    print(server.url, flush=True)
    await asyncio.sleep(3600)

asyncio.run(main())
"""


@pytest.fixture
async def started(tmp_path):
    """Starts servers on folders; ends them all."""
    servers = []

    async def start(folder=tmp_path):
        server = EmbeddedRedis(folder, MAX_BYTES)
        await server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        await server.stop()


async def ask(server, *command):
    client = Redis.from_url(server.url, driver_info=None)
    try:
        return await client.execute_command(*command)
    finally:
        await client.aclose()


async def until(what, timeout_s=20):
    """The first true value of `await what()`."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if value := await what():
            return value
        await asyncio.sleep(0.01)
    raise AssertionError(f"nothing came of {what}")


def process_of(server):
    return psutil.Process(server._process.pid)


async def test_entries_survive_stop_and_start(started):
    first = await started()
    await ask(first, "SET", "a", "1", "PX", 60_000)
    await first.stop()
    second = await started()
    assert await ask(second, "GET", "a") == b"1"
    assert 0 < await ask(second, "PTTL", "a") <= 60_000


async def test_it_is_a_bounded_cache_and_takes_no_port(started, tmp_path):
    server = await started()
    settings = await ask(server, "CONFIG", "GET", "*")
    settings = dict(zip(settings[::2], settings[1::2], strict=True)) if isinstance(settings, list) else settings
    assert settings[b"maxmemory"] == str(MAX_BYTES).encode()
    assert settings[b"maxmemory-policy"] == b"volatile-lru"
    assert [each for each in process_of(server).net_connections("inet") if each.status == psutil.CONN_LISTEN] == []
    assert (tmp_path / embedded.SOCKET).stat().st_mode & 0o777 == 0o600


async def test_the_snapshot_is_for_its_owner_only(started, tmp_path):
    server = await started()
    await ask(server, "SET", "a", "1", "PX", 60_000)
    await server.stop()
    assert (tmp_path / embedded.SNAPSHOT).stat().st_mode & 0o077 == 0


async def test_a_long_path_gets_its_socket_elsewhere(started, tmp_path):
    deep = tmp_path / ("d" * 120)
    server = await started(deep)
    await ask(server, "SET", "a", "1", "PX", 60_000)
    folder = server._folder
    assert folder.stat().st_mode & 0o777 == 0o700
    await server.stop()
    assert not folder.exists()
    assert (deep / embedded.SNAPSHOT).exists()


async def test_a_second_node_on_the_folder_gets_a_clear_error(started, tmp_path, monkeypatch):
    first = await started()
    monkeypatch.setattr(embedded, "LOCK_S", 0.1)
    with pytest.raises(StateInUseError, match=f"another node's cache server runs on {tmp_path}; stop it"):
        await EmbeddedRedis(tmp_path, MAX_BYTES).start()
    assert await ask(first, "PING")


async def test_the_folder_is_free_again_after_stop(started):
    await (await started()).stop()
    assert (await started()).url


async def test_a_server_that_dies_is_started_again(started, monkeypatch):
    monkeypatch.setattr(embedded, "PAUSE_S", 0.05)
    server = await started()
    first = process_of(server)
    first.kill()

    async def another():
        process = server._process
        return process is not None and process.pid != first.pid

    await until(another)
    assert await until(lambda: _answers(server))


async def _answers(server):
    try:
        return await ask(server, "PING")
    except (ConnectionError, OSError, RedisError):
        return False


async def test_a_snapshot_that_cannot_be_read_is_put_aside(started, tmp_path, caplog):
    (tmp_path / embedded.SNAPSHOT).write_bytes(b"REDIS0011 and then rubbish")
    server = await started()
    assert await ask(server, "PING")
    assert (tmp_path / "cache.refused").exists()
    assert "cache.rdb" in caplog.text


async def test_without_a_program_there_is_no_url(tmp_path, caplog):
    server = EmbeddedRedis(tmp_path, MAX_BYTES, lambda: None)
    await server.start()
    assert server.url == ""
    assert "L3 is off" in caplog.text
    await server.stop()


async def test_a_program_that_does_not_start_is_said_and_lived_without(tmp_path, caplog):
    server = EmbeddedRedis(tmp_path, MAX_BYTES, lambda: "/bin/false")
    await server.start()
    assert server.url == ""
    assert "the cache server does not start" in caplog.text
    await server.stop()
    usable = EmbeddedRedis(tmp_path, MAX_BYTES)
    await usable.start()
    assert usable.url
    await usable.stop()


def test_only_the_main_thread_starts_it(tmp_path):
    raised = []

    def start():
        try:
            asyncio.run(EmbeddedRedis(tmp_path, MAX_BYTES).start())
        except RuntimeError as error:
            raised.append(str(error))

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert raised == ["the cache server would end with this thread; start it from the main thread"]


def test_the_wheel_brings_the_program():
    assert os.access(find_server(), os.X_OK)


async def test_a_killed_owner_takes_the_server_along_and_the_entries_stay(started, tmp_path):
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        url = (await asyncio.to_thread(owner.stdout.readline)).strip()
        [server] = psutil.Process(owner.pid).children()
        client = Redis.from_url(url, driver_info=None)
        await client.set("a", "1", px=60_000)
        await client.aclose()
    finally:
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        owner.stdout.close()
    await asyncio.to_thread(psutil.wait_procs, [server], 10)
    assert not server.is_running()
    again = await started()
    assert await ask(again, "GET", "a") == b"1"
