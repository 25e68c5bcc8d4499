"""What stands between two parties of a test, and fails as networks do.

python -m tests.proxy PORT      (to PORT, from the one it prints; stopped by SIGSTOP nothing passes, and nobody is told)
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys

from tests.nodes import ROOT


class Proxy:
    """Forwards bytes to a port; can cut all connections, refuse new ones, or fall silent."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._accepting: set[asyncio.Task[None]] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.port = 0
        self.forwarded_bytes = 0
        self.connections = 0
        self.cut_after_bytes: int | None = None
        self.cut = asyncio.Event()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def kill(self) -> None:
        """As when the process of a proxy dies: connections are reset and nobody listens."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def freeze(self, new_ones_too: bool = False) -> None:
        """Connections stay open, but nothing passes any more."""
        self._flowing.clear()
        if not new_ones_too:
            self._flowing = asyncio.Event()
            self._flowing.set()

    def thaw(self) -> None:
        """After freezing new ones too: what was held back passes."""
        self._flowing.set()

    async def stop(self) -> None:
        self.kill()
        await asyncio.gather(*self._accepting, return_exceptions=True)
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        await asyncio.sleep(0)  # lets the aborted transports close their sockets

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._accepting.add(asyncio.current_task())
        self._writers.add(writer)
        onward = await asyncio.open_connection("127.0.0.1", self._target)
        if writer not in self._writers:  # killed meanwhile
            onward[1].close()
            return
        self._writers.add(onward[1])
        for source, sink in ((reader, onward[1]), (onward[0], writer)):
            pump = asyncio.create_task(self._pump(source, sink, self._flowing))
            self._pumps.add(pump)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, flowing: asyncio.Event) -> None:
        with contextlib.suppress(OSError):
            while block := await source.read(1 << 16):
                await flowing.wait()
                self.forwarded_bytes += len(block)
                if self.cut_after_bytes is not None and self.forwarded_bytes >= self.cut_after_bytes:
                    self.cut_after_bytes = None
                    self.kill()
                    self.cut.set()
                    return
                sink.write(block)
                await sink.drain()
        sink.close()


def proxy_process(target: int) -> tuple[subprocess.Popen[bytes], int]:
    """One by itself, and its port."""
    process = subprocess.Popen([sys.executable, "-m", "tests.proxy", str(target)], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout as said:
        return process, int(said.readline())


async def forward(target: int) -> None:
    proxy = Proxy(target)
    await proxy.start()
    print(proxy.port, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(forward(int(sys.argv[1])))
