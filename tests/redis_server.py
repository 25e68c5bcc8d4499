"""Redis-protocol servers of tests, as processes."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import redis

from serving.cache.embedded import find_server

DURABLE = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}


@contextlib.contextmanager
def redis_server(folder: Path, **options: str) -> Iterator[str]:
    """A server of this folder until the end of the block; its URL. What it kept, the next one on the folder has."""
    process = launch(folder, **options)
    try:
        yield url_of(folder)
    finally:
        process.terminate()
        process.wait(10)


def url_of(folder: Path) -> str:
    return f"unix://{folder / 'server.sock'}"


def launch(folder: Path, **options: str) -> subprocess.Popen[bytes]:
    """Returns when it answers."""
    program = find_server()
    assert program is not None
    settings = {"port": "0", "unixsocket": str(folder / "server.sock"), "dir": str(folder), "save": "", **options}
    words = [word for name, value in settings.items() for word in (f"--{name}", value)]
    process = subprocess.Popen([program, *words], stdout=subprocess.DEVNULL)
    with redis.Redis.from_url(url_of(folder)) as client:
        while True:
            with contextlib.suppress(redis.ConnectionError):
                client.ping()
                return process
            assert process.poll() is None
