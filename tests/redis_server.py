"""Redis-protocol servers of tests, as processes."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
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


class LosesReplies:
    """Stands before the server of a folder, and ends connections instead of passing on what it answers to scripts."""

    def __init__(self, folder: Path) -> None:
        self._server = str(folder / "server.sock")
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(folder / "lossy.sock"))
        self._listening.listen()
        self.url = f"unix://{folder / 'lossy.sock'}"
        self.losing = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server:
            server.connect(self._server)
            while asked := client.recv(1 << 20):
                server.sendall(asked)
                answer = server.recv(1 << 20)
                if self.losing and b"EVALSHA" in asked:
                    self.losing -= 1
                    return
                client.sendall(answer)

    def close(self) -> None:
        self._listening.close()
