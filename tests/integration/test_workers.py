"""Several workers on one port: real processes, replaced, killed and stopped while clients call."""

import asyncio
import collections
import contextlib
import signal

import psutil
import pytest

from serving import ports_file
from serving.transport import Code, RpcError, Transport, channel
from tests.integration.test_supervisor import Serving, until

ECHO = "/test.Echo/Echo"
WHO = "/test.Echo/Who"
TAKE = "/test.Limit/Take"
ENTER = "/test.Limit/Enter"
LIMITS = "services.s = {per_s = 0.001, burst = 10, concurrent = 4}\n"


@pytest.fixture
def three(tmp_path):
    running = Serving(tmp_path, top="workers = 3\n", limits=LIMITS)
    running.address = until(lambda: ports_file.read(running.state_dir).get("service"))
    yield running
    if running.process.poll() is None:
        running.process.terminate()
    running.process.communicate(timeout=20)


def workers(running):
    return {child.pid for child in psutil.Process(running.process.pid).children()}


async def who(running, calls=40):
    """How many calls each worker answered, each call over a connection of its own."""
    seen = collections.Counter()
    for _ in range(calls):
        link = channel(Transport.NATIVE, running.address)
        seen[int(await link.unary(WHO, b"", 5))] += 1
        await link.close()
    return seen


async def all_answer(running):
    async with asyncio.timeout(20):
        while len(seen := await who(running)) < 3:
            pass
    return seen


async def test_all_workers_answer_on_one_port(three):
    assert set(await all_answer(three)) == workers(three)


async def test_replacing_the_workers_refuses_nobody(three):
    before = set(await all_answer(three))
    stop = asyncio.Event()
    answered = 0

    async def with_new_connections():
        nonlocal answered
        while not stop.is_set():
            link = channel(Transport.NATIVE, three.address)
            assert await link.unary(ECHO, b"x", 5) == b"x"
            await link.close()
            answered += 1

    async def on_one_connection():
        nonlocal answered
        link = channel(Transport.NATIVE, three.address)
        while not stop.is_set():
            assert await link.unary(ECHO, b"y", 5) == b"y"
            answered += 1
            await asyncio.sleep(0)
        await link.close()

    callers = [asyncio.create_task(caller()) for caller in (*[with_new_connections] * 2, *[on_one_connection] * 4)]
    three.process.send_signal(signal.SIGHUP)
    async with asyncio.timeout(40):
        while workers(three) & before or len(workers(three)) != 3:
            await asyncio.sleep(0.02)
            for caller in callers:
                if caller.done():
                    caller.result()
    stop.set()
    await asyncio.gather(*callers)
    assert answered > 50
    assert not set(await all_answer(three)) & before


async def test_a_killed_worker_is_replaced_while_the_others_serve(three):
    before = await all_answer(three)
    killed = next(iter(before))
    psutil.Process(killed).kill()
    answers = 0
    async with asyncio.timeout(20):
        while len(workers(three) - set(before)) < 1:
            with contextlib.suppress(RpcError):
                await who(three, 1)
                answers += 1
    after = await all_answer(three)
    assert set(before) - {killed} < set(after)
    assert killed not in after


async def test_what_comes_before_the_successor_of_a_killed_worker_is_ready_goes_to_the_others(three):
    before = await all_answer(three)
    killed = next(iter(before))
    (three.state_dir / "hold").touch()  # the next worker never becomes ready
    psutil.Process(killed).kill()
    async with asyncio.timeout(20):
        while (three.state_dir / "hold").exists():
            await asyncio.sleep(0.02)
    assert set(await who(three, 100)) == set(before) - {killed}
    waiting = workers(three) - set(before)
    three.process.send_signal(signal.SIGHUP)
    async with asyncio.timeout(40):
        while workers(three) & (waiting | set(before)) or len(workers(three)) != 3:
            await asyncio.sleep(0.02)
    assert set(await all_answer(three)) == workers(three)


async def let_in(running, method, calls=20):
    """How many of these calls each worker let in, each call over a connection of its own."""
    seen = collections.Counter()
    for _ in range(calls):
        link = channel(Transport.NATIVE, running.address)
        if pid := await link.unary(method, b"", 5):
            seen[int(pid)] += 1
        await link.close()
    return seen


async def test_workers_keep_to_a_limit_together_whoever_is_killed_or_replaced(three):
    before = set(await all_answer(three))
    taken = await let_in(three, TAKE, 6) + await let_in(three, TAKE)
    entered = await let_in(three, ENTER)
    assert (taken.total(), entered.total()) == (10, 4)

    killed = next(iter(entered))
    psutil.Process(killed).kill()
    async with asyncio.timeout(20):
        while len(workers(three) - before) < 1:
            await asyncio.sleep(0.02)
    await all_answer(three)
    again = await let_in(three, ENTER)
    assert (again.total(), (await let_in(three, TAKE)).total()) == (entered[killed], 0)

    old = workers(three)
    three.process.send_signal(signal.SIGHUP)
    async with asyncio.timeout(40):
        while workers(three) & old or len(workers(three)) != 3:
            await asyncio.sleep(0.02)
    await all_answer(three)
    assert ((await let_in(three, ENTER)).total(), (await let_in(three, TAKE)).total()) == (4, 0)


async def test_sigterm_drains_all(three):
    await all_answer(three)
    links = [channel(Transport.NATIVE, three.address) for _ in range(6)]
    await asyncio.gather(*(link.unary(ECHO, b"x", 5) for link in links))
    running = [asyncio.create_task(link.unary("/test.Echo/Slow", b"slow", 10)) for link in links]
    await asyncio.sleep(0.1)
    three.process.terminate()
    assert await asyncio.gather(*running) == [b"slow"] * 6
    for link in links:
        with pytest.raises(RpcError) as refused:
            await link.unary(ECHO, b"x", 5)
        assert refused.value.code is Code.UNAVAILABLE
        await link.close()
    assert await asyncio.to_thread(three.process.wait, 20) == 0
    assert not (three.state_dir / ports_file.NAME).exists()


def test_moved_ports_are_followed(tmp_path):
    running = Serving(tmp_path)
    try:
        first = running.worker()
        old = ports_file.read(running.state_dir)["service"]
        running.config.write_text(running.config.read_text().replace("'127.0.0.1:0'", "'localhost:0'", 1))
        running.process.send_signal(signal.SIGHUP)
        until(lambda: not first.is_running())
        assert until(lambda: ports_file.read(running.state_dir).get("service")) != old
    finally:
        running.process.terminate()
        running.process.communicate(timeout=20)


def test_a_second_sighup_gives_up_a_replacement_that_comes_to_no_end(tmp_path):
    running = Serving(tmp_path)
    try:
        first = running.worker()
        hold = running.state_dir / "hold"
        hold.touch()
        running.process.send_signal(signal.SIGHUP)
        second = running.next_worker(first)
        until(lambda: not hold.exists())
        running.process.send_signal(signal.SIGHUP)
        for gone in (first, second):
            until(lambda gone=gone: not gone.is_running())
        until(lambda: workers(running))
        assert psutil.Process(running.process.pid).is_running()
    finally:
        running.process.terminate()
        _, said = running.process.communicate(timeout=20)
    assert "is given up and begins anew" in said
    assert running.process.returncode == 0


def test_a_worker_that_ends_while_it_is_replaced_leaves_one_in_its_slot(tmp_path):
    running = Serving(tmp_path)
    try:
        first = running.worker()
        running.address = ports_file.read(running.state_dir)["service"]
        (running.state_dir / "hold").touch()
        running.process.send_signal(signal.SIGHUP)
        second = running.next_worker(first)
        until(lambda: not (running.state_dir / "hold").exists())
        first.kill()
        third = until(lambda: workers(running) - {first.pid, second.pid}).pop()
        (running.state_dir / "go").touch()
        until(lambda: workers(running) == {second.pid})
        until(lambda: set(asyncio.run(who(running, 3))) == {second.pid})
        assert not psutil.pid_exists(third)
    finally:
        running.process.terminate()
        running.process.communicate(timeout=20)
    assert running.process.returncode == 0
