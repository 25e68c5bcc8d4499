"""Real serving nodes of two parties, as processes, for the suites that need them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx
import msgspec
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

from serving import ports_file
from serving.transport import Channel, ChannelCredentials, ChannelOptions, RpcError, Transport, channel
from tessera.v1 import admin_pb2, admin_pb2_grpc, inference_pb2, inference_pb2_grpc

ROOT = Path(__file__).resolve().parents[1]
T = TypeVar("T")


def free_port() -> int:
    """Below those that the kernel gives to clients: a node that starts later must still find it free."""
    while True:
        port = secrets.choice(range(20_000, 32_000))
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class PartyNode:
    """One party's node: its folder, its settings, its supervisor process. `settings` is TOML beyond the usual.
    `single`: callers, other parties and operators all come to the party port."""

    def __init__(self, folder: Path, party: str, settings: str = "", party_port: int = 0, single: bool = False) -> None:
        self.credentials: ChannelCredentials | None = None
        """With which the test calls."""
        self.token = ""
        self.party = party
        self.folder = folder / party
        self.registry = self.folder / "registry"
        self.registry.mkdir(parents=True)
        self.party_port = party_port or free_port()
        self.config = self.folder / "serving.toml"
        self.single = single
        self.write(settings)
        self.process: subprocess.Popen[bytes] | None = None

    def write(self, settings: str) -> None:
        single = f"single = '127.0.0.1:{self.party_port}'\n" if self.single else ""
        self.config.write_text(
            f"party = '{self.party}'\nstate_dir = 'state'\nregistry = 'registry'\n{settings}\n"
            f"[ports]\nservice = '127.0.0.1:0'\nparty = '127.0.0.1:{self.party_port}'\nadmin = '127.0.0.1:0'\n"
            f"http = '127.0.0.1:0'\n{single}"
        )

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def launch(self) -> None:
        command = [sys.executable, "-P", "-m", "serving", "serve", "--config", str(self.config)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/proto"}
            )

    def start(self, timeout_s: float = 30) -> None:
        self.launch()
        self.wait_until_serving(timeout_s)

    def wait_until_serving(self, timeout_s: float = 30) -> None:
        end = time.monotonic() + timeout_s
        while not self.serving():
            assert self.process is not None
            assert self.process.poll() is None, f"ended with {self.process.returncode}: {self.log}"
            assert time.monotonic() < end, self.log
            time.sleep(0.02)

    def stop(self) -> int:
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=30)
        self.process = None
        return code

    def worker(self) -> psutil.Process:
        assert self.process is not None
        children = psutil.Process(self.process.pid).children()
        return next(child for child in children if "--worker" in child.cmdline())

    def cache_server(self) -> psutil.Process:
        assert self.process is not None
        children = psutil.Process(self.process.pid).children()
        return next(child for child in children if "--worker" not in child.cmdline())

    def address(self, port: str) -> str:
        return ports_file.read(self.folder / "state")[port]

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.token}"),) if self.token else ()

    def call(self, port: str, ask: Callable[[Channel], Awaitable[T]]) -> T:
        """One exchange with a port of the node, from the test's own loop."""

        address = self.address(port)

        async def run() -> T:
            link = channel(Transport.NATIVE, address, ChannelOptions(credentials=self.credentials))
            try:
                return await ask(link)
            finally:
                await link.close()

        return asyncio.run(run())

    def admin(self, method: str, request: msgspec.Raw | object, timeout_s: float = 20) -> object:
        return self.call(
            "admin",
            lambda link: getattr(admin_pb2_grpc.AdminStub(link.stub_channel), method)(
                request, timeout=timeout_s, metadata=self.metadata
            ),
        )

    def load(self, model: str, version: str) -> admin_pb2.PublishLoadReply:
        return self.admin("PublishLoad", admin_pb2.PublishLoadRequest(model=model, version=version))

    def online(self, service: str, model: str, version: str, revision: int = 0, **app: str) -> object:
        variants = [admin_pb2.VariantWeight(model=model, version=version, weight=10_000)]
        request = admin_pb2.PublishOnlineRequest(service=service, revision=revision, variants=variants, **app)
        return self.admin("PublishOnline", request)

    def predict(self, timeout_s: float = 5, **fields: object) -> inference_pb2.PredictReply:
        request = inference_pb2.PredictRequest(**fields)
        return self.call(
            "service",
            lambda link: inference_pb2_grpc.InferenceStub(link.stub_channel).Predict(
                request, timeout=timeout_s, metadata=self.metadata
            ),
        )

    def batch(self, timeout_s: float = 5, **fields: object) -> inference_pb2.BatchPredictReply:
        request = inference_pb2.BatchPredictRequest(**fields)
        return self.call(
            "service",
            lambda link: inference_pb2_grpc.InferenceStub(link.stub_channel).BatchPredict(
                request, timeout=timeout_s, metadata=self.metadata
            ),
        )

    def http(self, method: str, path: str, **options: Any) -> httpx.Response:
        with httpx.Client(base_url=f"http://{self.address('http')}", trust_env=False) as client:
            return client.request(method, path, **options)

    def serving(self) -> bool:
        """Whether its health check says so."""

        async def check(link: Channel) -> int:
            stub = health_pb2_grpc.HealthStub(link.stub_channel)
            return (await stub.Check(health_pb2.HealthCheckRequest(), timeout=1)).status

        try:
            return self.call("service", check) == health_pb2.HealthCheckResponse.SERVING
        except (RpcError, KeyError):
            return False


def worker_pids(node: PartyNode) -> set[int]:
    """Of the workers that run now."""
    assert node.process is not None
    found = set()
    for child in psutil.Process(node.process.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended since
            if "--worker" in child.cmdline():
                found.add(child.pid)
    return found
