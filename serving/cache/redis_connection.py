"""One connection to a Redis-protocol server that many commands share at a time (RESP 2, https://redis.io/docs/reference/protocol-spec).

Commands of one turn of the event loop leave in one write; replies come back in order. redis-py opens a connection per
command in flight and costs more than the server does: bench/micro/redis_wire.py has both figures.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import deque
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import parse_qsl, unquote, urlsplit

import hiredis

from serving.transport.promise import Promise

CONNECT_S = 1.0
STALL_S = 1.0
"""How long past its own deadline a command may keep those behind it waiting before the connection is given up."""
TICK_S = 0.005
"""How often deadlines are looked at; a timer per command would cost more than the command."""
MAX_PENDING_BYTES = 16 << 20
"""Of commands without a reply."""
MAX_REPLY_BYTES = 64 << 20

_NOT_YET = object()


def packed(*words: str | bytes) -> bytes:
    """One command as it is sent."""
    command: tuple[Any, ...] = words
    sent: bytes = hiredis.pack_command(command)
    return sent


class BusyError(OSError):
    """So much waits for a reply already that the command was not sent."""


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """Where a server is and how to introduce oneself; `path` for a Unix socket."""

    host: str = "localhost"
    port: int = 6379
    path: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    database: int = 0
    tls: bool = False
    authority: str = ""
    certificate: str = ""
    key: str = ""

    @classmethod
    def of(cls, url: str) -> RedisAddress:
        """From a redis://, rediss:// or unix:// URL as redis-py reads it, with `ssl_ca_certs`, `ssl_certfile` and
        `ssl_keyfile` as query parameters. Raises ValueError."""
        parts = urlsplit(url)
        if parts.scheme not in {"redis", "rediss", "unix"}:
            raise ValueError("its scheme must be redis://, rediss:// or unix://")
        options = dict(reversed(parse_qsl(parts.query)))  # the first of several counts
        path, local = unquote(parts.path), parts.scheme == "unix"
        return cls(
            host="localhost" if local else unquote(parts.hostname or "localhost"),
            port=6379 if local else parts.port or 6379,
            path=path if local else "",
            username=unquote(parts.username or "") or options.get("username", ""),
            password=unquote(parts.password or "") or options.get("password", ""),
            database=int(options["db"]) if "db" in options else 0 if local else _database(path),
            tls=parts.scheme == "rediss",
            authority=options.get("ssl_ca_certs", ""),
            certificate=options.get("ssl_certfile", ""),
            key=options.get("ssl_keyfile", ""),
        )

    def introduction(self) -> list[bytes]:
        """The commands that come first."""
        commands: list[bytes] = []
        if self.password:
            who = (self.username, self.password) if self.username else (self.password,)
            commands.append(packed("AUTH", *who))
        if self.database:
            commands.append(packed("SELECT", str(self.database)))
        return commands

    def tls_context(self) -> ssl.SSLContext | None:
        """Reads files. Raises OSError for those that are missing or wrong."""
        if not self.tls:
            return None
        context = ssl.create_default_context(cafile=self.authority or None)
        if self.certificate:
            context.load_cert_chain(self.certificate, self.key or None)
        return context


def _database(path: str) -> int:
    """0 for a path that is no number."""
    with contextlib.suppress(ValueError):
        return int(path.replace("/", ""))
    return 0


@dataclass(slots=True)
class _Asked:
    """Commands sent as one, and what came back of them so far. `deadline_s` is loop time."""

    answer: Promise[list[Any]]
    expected: int
    size: int
    deadline_s: float
    replies: list[Any] = field(default_factory=list)


class _Stream(asyncio.Protocol):
    """One connection from before it is open to its end. What is sent before it is open waits for that."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(notEnoughData=_NOT_YET)
        self._pending: deque[_Asked] = deque()
        self._pending_bytes = 0
        self._unparsed_bytes = 0
        self._out: list[bytes] = []
        self._introduced = False
        self._flushing = False
        self._transport: asyncio.Transport | None = None
        self._tick: asyncio.TimerHandle | None = None
        self._last_tick_s = 0.0
        self.ended = False

    def send(self, commands: bytes, replies: int, timeout_s: float) -> Promise[list[Any]]:
        if self._pending_bytes + len(commands) > MAX_PENDING_BYTES:
            raise BusyError(f"{self._pending_bytes} bytes wait for replies already")
        asked = self._ask(commands, replies, timeout_s)
        self._pending.append(asked)
        self._out.append(commands)
        if self._introduced and not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)
        return asked.answer

    def introduce(self, commands: list[bytes]) -> Promise[list[Any]]:
        """Sends these before all others. Once connected."""
        first = self._ask(b"".join(commands), len(commands), CONNECT_S)
        self._pending.appendleft(first)
        if self._transport is not None:
            self._transport.write(b"".join(commands))
        return first.answer

    def start(self) -> None:
        """The others may go."""
        self._introduced = True
        self._flush()

    def end(self, reason: str) -> None:
        """Everything without a reply fails with ConnectionError."""
        if self.ended:
            return
        self.ended = True
        if self._transport is not None:
            self._transport.abort()
        if self._tick is not None:
            self._tick.cancel()
        self._out.clear()
        while self._pending:
            self._pending.popleft().answer.set_exception(ConnectionError(reason))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are none by class
        if self.ended:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.end(str(exc) if exc else "the server closed the connection")

    def data_received(self, data: bytes) -> None:
        self._unparsed_bytes += len(data)
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not _NOT_YET:
                self._unparsed_bytes = 0
                self._match(reply)
        except (hiredis.ProtocolError, IndexError):
            self.end("the server sent what is no reply")
        if self._unparsed_bytes > MAX_REPLY_BYTES:
            self.end("the server sent a reply without end")

    def _match(self, reply: object) -> None:
        """Raises IndexError for a reply to nothing."""
        asked = self._pending[0]
        asked.replies.append(reply)
        if len(asked.replies) == asked.expected:
            self._pending.popleft()
            self._pending_bytes -= asked.size
            asked.answer.set_result(asked.replies)

    def _ask(self, commands: bytes, replies: int, timeout_s: float) -> _Asked:
        if self._tick is None:
            self._last_tick_s = self._loop.time()
            self._tick = self._loop.call_later(TICK_S, self._look_at_deadlines)
        self._pending_bytes += len(commands)
        return _Asked(Promise(), replies, len(commands), self._loop.time() + timeout_s)

    def _flush(self) -> None:
        self._flushing = False
        if self._out and self._transport is not None:
            self._transport.write(b"".join(self._out))
            self._out.clear()

    def _look_at_deadlines(self) -> None:
        """Those that were over at the tick before: since then the loop has read what had arrived, however late it is
        itself."""
        self._tick = None
        over_s, self._last_tick_s = self._last_tick_s, self._loop.time()
        if self._pending and self._pending[0].deadline_s + STALL_S <= over_s:
            self.end("the server does not answer any more")
            return
        for asked in [one for one in self._pending if one.deadline_s <= over_s]:
            asked.answer.set_exception(TimeoutError("no answer in time"))
        if self._pending:
            self._tick = self._loop.call_later(TICK_S, self._look_at_deadlines)


class RedisConnection:
    """Opens itself when it is first used, and again after it broke. Belongs to one event loop."""

    def __init__(self, address: RedisAddress) -> None:
        self._address = address
        self._stream: _Stream | None = None
        self._opening: asyncio.Task[None] | None = None

    def send(self, commands: bytes, replies: int, timeout_s: float) -> Promise[list[Any]]:
        """Packed commands that get `replies` replies, which are the answer, errors of the server among them as
        hiredis.ReplyError. It fails with TimeoutError or ConnectionError. Raises BusyError. An answer that is
        cancelled is thrown away when it comes."""
        stream = self._stream
        if stream is None or stream.ended:
            stream = self._stream = _Stream()
            self._opening = asyncio.create_task(self._open(stream))
        return stream.send(commands, replies, timeout_s)

    def drop(self, reason: str) -> None:
        """What has no reply yet fails; the next command opens another connection."""
        if self._stream is not None:
            self._stream.end(reason)

    async def close(self) -> None:
        """What has no reply yet fails."""
        self.drop("the connection is closed")
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait({self._opening})

    async def _open(self, stream: _Stream) -> None:
        try:
            async with asyncio.timeout(CONNECT_S):
                await self._connect(stream)
                if first := self._address.introduction():
                    for reply in await stream.introduce(first):
                        if isinstance(reply, hiredis.ReplyError):
                            raise ConnectionError(f"the server refuses us: {reply}")
            stream.start()
        except (OSError, ValueError) as error:  # of the system, of TLS, of a timeout
            stream.end(str(error) or f"no connection within {CONNECT_S:g} s")

    async def _connect(self, stream: _Stream) -> None:
        loop, address = asyncio.get_running_loop(), self._address
        if address.path:
            await loop.create_unix_connection(lambda: stream, address.path)
            return
        context = await asyncio.to_thread(address.tls_context)
        await loop.create_connection(lambda: stream, address.host, address.port, ssl=context)
