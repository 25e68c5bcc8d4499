"""A supervisor and its worker as real processes."""

import asyncio
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from serving import ports_file
from serving.transport import RpcError, Transport, channel

pytestmark = pytest.mark.usefixtures("transport")

ROOT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-m", "tests.integration.small_node")
SERVE = (sys.executable, "-m", "serving", "serve")


def until(what, timeout_s=20):
    """The first true value of `what()`."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if value := what():
            return value
        time.sleep(0.01)
    raise AssertionError(f"nothing came of {what}")


OTHER_PORTS = "".join(f"{name} = '127.0.0.1:0'\n" for name in ("party", "admin", "http"))
"""The default ones may be another test's."""


class Serving:
    """A supervisor started on a folder."""

    def __init__(self, folder, ports="service = '127.0.0.1:0'", drain_s=10, command=COMMAND, top="", limits="") -> None:
        self.state_dir = folder / "state"
        self.config = folder / "node.toml"
        self.config.write_text(
            f"{top}party = 'bank'\nstate_dir = 'state'\nregistry = 'registry'\n[cache]\nembedded = false\n"
            f"[ports]\n{ports}\n{OTHER_PORTS}[limits]\ndrain_s = {drain_s}\n{limits}"
        )
        self.process = subprocess.Popen(
            [*command, "--config", str(self.config)], cwd=ROOT, stderr=subprocess.PIPE, text=True
        )

    def worker(self):
        """The one worker, once it listens."""
        until(lambda: ports_file.read(self.state_dir))
        return until(lambda: psutil.Process(self.process.pid).children())[0]

    def next_worker(self, old):
        return until(lambda: [child for child in psutil.Process(self.process.pid).children() if child.pid != old.pid])[
            0
        ]

    def ended(self):
        """Exit code and what it said."""
        _, said = self.process.communicate(timeout=20)
        return self.process.returncode, said


@pytest.fixture
def serving(tmp_path):
    started = []

    def start(**options):
        started.append(Serving(tmp_path, **options))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.terminate()
            one.process.communicate(timeout=20)
        one.process.stderr.close()


async def is_serving(address):
    link = channel(Transport.NATIVE, address)
    try:
        stub = health_pb2_grpc.HealthStub(link.stub_channel)
        reply = await stub.Check(health_pb2.HealthCheckRequest(), timeout=1)
        return reply.status == health_pb2.HealthCheckResponse.SERVING
    except RpcError:
        return False
    finally:
        await link.close()


def serves(running):
    """Whether the node answers where it says that it is."""
    address = ports_file.read(running.state_dir).get("service")
    return address is not None and asyncio.run(is_serving(address))


def test_sigterm_ends_both_cleanly(serving):
    running = serving()
    worker = running.worker()
    until(lambda: serves(running))
    running.process.send_signal(signal.SIGTERM)
    code, said = running.ended()
    assert code == 0, said
    assert not worker.is_running()
    assert ports_file.read(running.state_dir) == {}


def test_a_killed_worker_is_replaced(serving):
    running = serving()
    first = running.worker()
    first.kill()
    second = running.next_worker(first)
    until(lambda: serves(running))
    assert second.is_running()
    running.process.terminate()
    code, said = running.ended()
    assert code == 0
    assert "worker ended with code -9, the next one starts in 0.1 s" in said


def test_a_worker_that_stops_by_itself_is_replaced(serving):
    running = serving()
    first = running.worker()
    until(lambda: serves(running))
    first.terminate()
    running.next_worker(first)
    until(lambda: serves(running))
    running.process.terminate()
    assert "worker ended with code 0, the next one starts in 0.1 s" in running.ended()[1]


@pytest.mark.soak
def test_a_worker_that_hangs_is_killed(serving):
    running = serving(drain_s=0)
    worker = running.worker()
    until(lambda: serves(running))
    worker.suspend()
    running.process.terminate()
    code, said = running.ended()
    assert code == 1
    assert f"worker {worker.pid} did not stop in time" in said
    assert not worker.is_running()


def test_a_killed_supervisor_takes_its_worker_along(serving):
    running = serving()
    worker = running.worker()
    running.process.kill()
    running.process.wait(10)
    worker.wait(10)
    assert not worker.is_running()


def test_sighup_starts_a_worker_with_the_new_settings(serving):
    running = serving()
    first = running.worker()
    until(lambda: serves(running))
    running.config.write_text(running.config.read_text().replace("drain_s = 10", "drain_s = 1.25"))
    running.process.send_signal(signal.SIGHUP)
    running.next_worker(first)
    until(lambda: not first.is_running())
    until(lambda: serves(running))
    running.process.terminate()
    assert "draining for up to 1.25 s" in running.ended()[1]


def test_sigterm_in_the_middle_of_a_replacement_cuts_no_call(serving):
    running = serving()
    running.worker()
    address = ports_file.read(running.state_dir)["service"]

    async def call():
        link = channel(Transport.NATIVE, address)
        try:
            asked = asyncio.ensure_future(link.unary("/test.Echo/For", b"2.5", 10))
            await asyncio.sleep(0.1)
            await asyncio.to_thread(replaced_and_stopped)
            return await asked
        finally:
            await link.close()

    def replaced_and_stopped():
        running.process.send_signal(signal.SIGHUP)
        assert any("draining" in line for line in running.process.stderr)
        running.process.terminate()

    assert asyncio.run(call()) == b"2.5"
    assert running.ended()[0] == 0


def test_sighup_with_wrong_settings_changes_nothing(serving):
    running = serving()
    first = running.worker()
    until(lambda: serves(running))
    good = running.config.read_text()
    running.config.write_text("colour = 1\n" + good)
    running.process.send_signal(signal.SIGHUP)
    line = until(lambda: next((line for line in running.process.stderr if "settings are wrong" in line), None))
    assert "colour: is not a setting" in line
    assert serves(running)
    assert running.worker() == first


@pytest.mark.parametrize(
    ("now", "key"), [("party = 'shop'", "party"), ("party = 'bank'\nstate_dir = 'elsewhere'", "state_dir")]
)
def test_sighup_makes_no_other_node_of_it(serving, now, key):
    running = serving()
    first = running.worker()
    until(lambda: serves(running))
    rest = running.config.read_text().removeprefix("party = 'bank'\n")
    rest = rest.removeprefix("state_dir = 'state'\n") if key == "state_dir" else rest
    running.config.write_text(f"{now}\n{rest}")
    running.process.send_signal(signal.SIGHUP)
    line = until(lambda: next((line for line in running.process.stderr if "settings are wrong" in line), None))
    assert f"{key}: changes when the node is stopped and started, not before" in line
    assert serves(running)
    assert running.worker() == first


def test_sighup_neither_begins_nor_ends_a_cache_server(serving):
    running = serving()
    first = running.worker()
    until(lambda: serves(running))
    running.config.write_text(running.config.read_text().replace("embedded = false", "embedded = true"))
    running.process.send_signal(signal.SIGHUP)
    line = until(lambda: next((line for line in running.process.stderr if "settings are wrong" in line), None))
    assert "cache.url, cache.embedded: a server of the node's own begins and ends with it" in line
    assert serves(running)
    assert running.worker() == first


def test_wrong_settings_end_it_with_one_line(serving):
    running = serving(ports="servce = '127.0.0.1:0'", command=SERVE)
    assert running.ended() == (
        2,
        f"tessera: {running.config}: ports.servce: is not a setting; did you mean ports.service?\n",
    )


def test_a_port_in_use_ends_it_with_one_line(serving):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        code, said = serving(ports=f"service = '{address}'", command=SERVE).ended()
    assert code == 2
    assert [line for line in said.splitlines() if "INFO" not in line] == [
        f"tessera: cannot bind {address}: Address already in use"
    ]


def test_two_nodes_cannot_share_a_state_folder(serving):
    running = serving()
    running.worker()
    second = serving(command=SERVE)
    code, said = second.ended()
    assert code == 2
    assert said.startswith(f"tessera: process {running.process.pid} already runs a node on {running.state_dir};")
