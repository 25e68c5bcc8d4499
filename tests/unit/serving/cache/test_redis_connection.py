"""One shared connection against servers that say what each test wants."""

import asyncio
import contextlib
import ssl

import hiredis
import pytest
import uvloop
from redis.asyncio.connection import SSLConnection, parse_url

from serving.cache import redis_connection
from serving.cache.redis import RedisTier
from serving.cache.redis_connection import BusyError, RedisAddress, RedisConnection, packed
from serving.cache.tier import MISS
from serving.certificates import make_authority, make_certificate

PING = packed("PING")


class Script:
    """A server that reads commands and answers each with `reply(command)`; None: nothing, not even later."""

    def __init__(self, reply):
        self.reply = reply
        self.seen = []
        self.connections = 0
        self.open = set()

    async def __call__(self, reader, writer):
        self.connections += 1
        self.open.add(writer)
        parser = hiredis.Reader()
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                parser.feed(data)
                while (command := parser.gets()) is not False:
                    self.seen.append(command)
                    if (answer := self.reply(command)) is not None:
                        writer.write(answer)
        self.open.discard(writer)
        writer.close()

    def hang_up(self):
        for writer in list(self.open):
            writer.transport.abort()


@contextlib.asynccontextmanager
async def serving(reply, **options):
    script = Script(reply)
    server = await asyncio.start_server(script, "127.0.0.1", 0, **options)
    address = RedisAddress(host="127.0.0.1", port=server.sockets[0].getsockname()[1])
    try:
        yield script, address
    finally:
        server.close()
        script.hang_up()
        await server.wait_closed()


@contextlib.asynccontextmanager
async def connected(address):
    connection = RedisConnection(address)
    yield connection
    await connection.close()


def echo(command):
    return b"$%d\r\n%s\r\n" % (len(command[-1]), command[-1])


async def test_replies_reach_those_who_asked_in_any_number_at_once():
    async with serving(echo) as (script, address), connected(address) as connection:
        answers = [connection.send(packed("GET", b"%d" % number), 1, 5.0) for number in range(1_000)]
        assert await asyncio.gather(*answers) == [[b"%d" % number] for number in range(1_000)]
        assert script.connections == 1


async def test_several_commands_may_share_one_answer():
    async with serving(echo) as (_, address), connected(address) as connection:
        both = connection.send(packed("GET", b"a") + packed("GET", b"b"), 2, 5.0)
        assert await both == [b"a", b"b"]


async def test_an_error_of_the_server_is_a_reply_like_another():
    async with serving(lambda _: b"-OOM no room\r\n") as (_, address), connected(address) as connection:
        [refusal] = await connection.send(PING, 1, 5.0)
        assert isinstance(refusal, hiredis.ReplyError)


async def test_who_gives_up_leaves_the_order_as_it_is():
    async with serving(echo) as (_, address), connected(address) as connection:
        gone, here = (connection.send(packed("GET", key), 1, 5.0) for key in (b"gone", b"here"))
        gone.cancel()
        assert await here == [b"here"]


async def test_introductions_come_before_everything_else():
    async with serving(lambda _: b"+OK\r\n") as (script, address):
        known = RedisAddress(port=address.port, host=address.host, username="u", password="p", database=3)
        async with connected(known) as connection:
            await connection.send(PING, 1, 5.0)
        assert script.seen == [[b"AUTH", b"u", b"p"], [b"SELECT", b"3"], [b"PING"]]


async def test_a_refused_introduction_sends_nothing_more():
    async with serving(lambda _: b"-WRONGPASS no\r\n") as (script, address):
        known = RedisAddress(port=address.port, host=address.host, password="p")
        async with connected(known) as connection:
            with pytest.raises(ConnectionError, match="WRONGPASS"):
                await connection.send(PING, 1, 5.0)
        assert script.seen == [[b"AUTH", b"p"]]


@pytest.mark.parametrize("garbage", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff\x00\x01", b"*-7\r\n", b"$-9\r\n"])
async def test_garbage_ends_the_connection_and_the_next_command_opens_another(garbage):
    answers = iter([garbage])
    async with serving(lambda command: next(answers, echo(command))) as (script, address):
        async with connected(address) as connection:
            with pytest.raises(ConnectionError, match="no reply"):
                await connection.send(PING, 1, 5.0)
            assert await connection.send(PING, 1, 5.0) == [b"PING"]
        assert script.connections == 2


async def test_a_reply_to_nothing_ends_the_connection():
    async with serving(lambda _: b"+OK\r\n+OK\r\n") as (script, address), connected(address) as connection:
        await connection.send(PING, 1, 5.0)
        await connection.send(PING, 1, 5.0)
        assert script.connections == 2


async def test_a_reply_without_end_ends_the_connection(monkeypatch):
    monkeypatch.setattr(redis_connection, "MAX_REPLY_BYTES", 1_000)
    async with serving(lambda _: b"$5000\r\n" + bytes(2_000)) as (_, address), connected(address) as connection:
        with pytest.raises(ConnectionError, match="without end"):
            await connection.send(PING, 1, 5.0)


async def test_a_hang_up_fails_all_that_wait():
    async with serving(lambda _: None) as (script, address), connected(address) as connection:
        waiting = [connection.send(PING, 1, 5.0) for _ in range(10)]
        while len(script.seen) < 10:
            await asyncio.sleep(0)
        script.hang_up()
        failed = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(error, ConnectionError) for error in failed)


async def test_a_late_reply_goes_to_nobody_and_the_next_one_where_it_belongs():
    slow = []
    async with serving(lambda command: slow.append(command) if not slow else b"+late\r\n" + echo(command)) as (
        script,
        address,
    ):
        async with connected(address) as connection:
            with pytest.raises(TimeoutError):
                await connection.send(PING, 1, 0.01)
            assert await connection.send(packed("GET", b"a"), 1, 5.0) == [b"a"]
        assert script.connections == 1


async def test_a_connection_that_stalls_is_given_up(monkeypatch):
    monkeypatch.setattr(redis_connection, "STALL_S", 0.05)
    async with serving(lambda _: None) as (_, address), connected(address) as connection:
        with pytest.raises(TimeoutError):
            await connection.send(PING, 1, 0.01)
        with pytest.raises(ConnectionError, match="does not answer any more"):
            await connection.send(PING, 1, 60.0)


async def test_what_waits_for_replies_is_bounded(monkeypatch):
    monkeypatch.setattr(redis_connection, "MAX_PENDING_BYTES", 10 * len(PING))
    async with serving(echo) as (_, address), connected(address) as connection:
        waiting = [connection.send(PING, 1, 5.0) for _ in range(10)]
        with pytest.raises(BusyError):
            connection.send(PING, 1, 5.0)
        await asyncio.gather(*waiting)
        assert await connection.send(PING, 1, 5.0) == [b"PING"]


async def test_closing_fails_what_waits():
    async with serving(lambda _: None) as (_, address):
        connection = RedisConnection(address)
        waiting = connection.send(PING, 1, 5.0)
        await connection.close()
        with pytest.raises(ConnectionError, match="closed"):
            await waiting


@pytest.fixture
def tls(tmp_path):
    """The server's side, and the authority's file."""
    make_authority(tmp_path, "test")
    certificate, key = make_certificate(tmp_path, "server", ["127.0.0.1"])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context, tmp_path / "ca.pem"


async def test_tls_and_whom_it_trusts(tls):
    context, authority = tls
    async with serving(echo, ssl=context) as (_, address):
        url = f"rediss://127.0.0.1:{address.port}"
        async with connected(RedisAddress.of(f"{url}?ssl_ca_certs={authority}")) as connection:
            assert await connection.send(PING, 1, 5.0) == [b"PING"]
        async with connected(RedisAddress.of(url)) as connection:
            with pytest.raises(ConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
                await connection.send(PING, 1, 5.0)


async def test_a_reply_of_the_wrong_shape_is_a_miss_and_ends_the_connection():
    async with serving(lambda _: b"+what\r\n") as (script, address):
        tier = RedisTier(f"redis://127.0.0.1:{address.port}", 5.0)
        assert await tier.get_many([b"a"]) == [MISS]
        assert await tier.get_many([b"a", b"b"]) == [MISS, MISS]
        await tier.close()
        assert (script.connections, tier.counts.errors, tier.counts.misses) == (2, 2, 3)


def test_it_runs_on_the_loop_that_servers_run_on():
    async def story():
        async with serving(echo) as (_, address), connected(address) as connection:
            return await connection.send(PING, 1, 5.0)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(story()) == [b"PING"]


def test_addresses():
    assert RedisAddress.of("unix:///tmp/s?db=2") == RedisAddress(path="/tmp/s", database=2)
    secured = RedisAddress.of("rediss://u:p@h:7/1?ssl_ca_certs=ca.pem")
    assert secured == RedisAddress("h", 7, "", "u", "p", 1, tls=True, authority="ca.pem")
    assert "secret" not in repr(RedisAddress(password="secret"))
    with pytest.raises(ValueError, match="scheme"):
        RedisAddress.of("http://h")


@pytest.mark.parametrize(
    "url",
    [
        "redis://",
        "redis://h",
        "redis://[::1]:7/",
        "redis://h:7/2",
        "redis://h/nothing",
        "redis://h/1?db=3&db=4",
        "redis://:p%40ss%2520@h",
        "redis://us%65r:p@H.example:6380/0",
        "redis://h?username=u&password=p%2520q",
        "rediss://h?ssl_ca_certs=a%20b&ssl_certfile=c&ssl_keyfile=k",
        "unix:///tmp/a%20b.sock",
        "unix://u:p@/tmp/s?db=2",
        "unix:///tmp/s?password=p",
    ],
)
def test_addresses_are_what_redis_py_reads(url):
    found = dict(parse_url(url))
    names = {"username": "username", "password": "password", "database": "db", "host": "host", "port": "port"}
    names |= {"path": "path", "authority": "ssl_ca_certs", "certificate": "ssl_certfile", "key": "ssl_keyfile"}
    known = {field: found[name] for field, name in names.items() if name in found}
    assert RedisAddress.of(url) == RedisAddress(**known, tls=found.get("connection_class") is SSLConnection)


@pytest.mark.parametrize(("url", "wrong"), [("redis://h?db=one", "one"), ("redis://h:seven", "seven")])
def test_wrong_addresses_are_refused(url, wrong):
    with pytest.raises(ValueError, match=wrong):
        RedisAddress.of(url)
