"""A guest of two hosts in the event loop of a test, with a service of each kind, and its callers over every door."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from bench.harness.population import GUEST, SERVICE, guest_columns, guest_numbers, user
from serving.transport import Channel, Transport, channel
from tessera.v1 import admin_pb2, admin_pb2_grpc, inference_pb2_grpc
from tessera.v1 import inference_pb2 as wire
from tests.artifacts import make_bound_pair, make_onnx
from tests.assembled import Parties, parties

FEATURES = dict(zip(guest_columns(), guest_numbers(), strict=True))
TOGETHER = 4
ONE, LOCAL, NARROW, SHADOWED = "one", "local", "narrow", "shadowed"
MEAN, STALE, CHOSEN = "mean", "stale", "chosen"
"""Services of model `one`, which has one host, whose policy is not to fail."""
SETTINGS = (
    f"[limits.services.{NARROW}]\nper_s = 0\n"
    f"[fallbacks.{MEAN}]\npolicy = 'partial'\n"
    f"[fallbacks.{STALE}]\npolicy = 'stale'\n"
    f"[fallbacks.{CHOSEN}]\npolicy = 'default'\nscore = 0.5\n"
)


GZIP = "content-encoding: gzip\r\naccept-encoding: gzip\r\n"


class Http:
    """One connection to the HTTP port."""

    @classmethod
    async def to(cls, address: str) -> Http:
        made = cls()
        host, _, port = address.rpartition(":")
        made._reader, made._writer = await asyncio.open_connection(host, int(port))
        return made

    async def ask(self, verb: str, path: str, body: object = None, squeezed: bool = False) -> int:
        """The status."""
        raw = b"" if body is None else json.dumps(body).encode()
        raw, more = (gzip.compress(raw), GZIP) if squeezed else (raw, "")
        head = f"{verb} {path} HTTP/1.1\r\nhost: x\r\n{more}content-length: {len(raw)}\r\n\r\n"
        self._writer.write(head.encode() + raw)
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
        await self._reader.readexactly(int(head.partition("content-length:")[2].split()[0]))
        return int(head.split()[1])

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


@dataclass(frozen=True, slots=True)
class Ground:
    """A guest of two hosts, and its callers. `digest` of the binding of model `one`."""

    parties: Parties
    service: Channel
    operator: Channel
    host: Channel
    http: Http
    digest: bytes
    fresh: Iterator[int]

    @property
    def inference(self) -> inference_pb2_grpc.InferenceStub:
        return inference_pb2_grpc.InferenceStub(self.service.stub_channel)

    @property
    def admin(self) -> admin_pb2_grpc.AdminStub:
        return admin_pb2_grpc.AdminStub(self.operator.stub_channel)

    def new_user(self) -> str:
        return user(next(self.fresh))

    def new_users(self) -> list[str]:
        return [self.new_user() for _ in range(TOGETHER)]

    async def predict(
        self, service: str = SERVICE, user_id: str = "", timeout_s: float = 5, **more: Any
    ) -> wire.PredictReply:
        """Of a new user, unless one is named."""
        request = wire.PredictRequest(
            service=service, user_id=user_id or self.new_user(), **{"numbers": FEATURES, **more}
        )
        return await self.inference.Predict(request, timeout=timeout_s)


@asynccontextmanager
async def making(folder: Path, settings: str, transport: Transport) -> AsyncIterator[Ground]:
    """`settings` of the guest, as TOML tables."""
    async with AsyncExitStack() as stack:
        environ = {"TESSERA_TRANSPORT": transport.value}
        running = await stack.enter_async_context(
            parties(folder, hosts=2, users=20_000, guest=SETTINGS + settings, environ=environ)
        )
        links = []
        for node, port in ((running.guest, "service"), (running.guest, "admin"), (running.hosts[0], "party")):
            links.append(channel(Transport.NATIVE, node.address(port)))
            stack.push_async_callback(links[-1].close)
        http = await Http.to(running.guest.address("http"))
        stack.push_async_callback(http.close)
        digest = await asyncio.to_thread(_make_models, folder)
        await _publish(admin_pb2_grpc.AdminStub(links[1].stub_channel))
        yield Ground(running, *links, http, digest, count(1_000))


def _make_models(folder: Path) -> bytes:
    """The digest of the binding of version 1."""
    guest, host = folder / GUEST / "registry", folder / "host0" / "registry"
    make_onnx(guest, model=LOCAL, version="1", party=GUEST)
    weights = {f"h0_{place}": 0.1 for place in range(10)}
    own = dict.fromkeys(guest_columns(), 0.1)
    for version in "21":
        pair = make_bound_pair(
            guest, host, model=ONE, version=version, guest=GUEST, host="host0", guest_weights=own,
            host_weights=weights, intercept=0.1, stand_ins={"host0": [0.0]},
        )  # fmt: skip
    return bytes.fromhex(pair.binding_digest)


async def _publish(stub: admin_pb2_grpc.AdminStub) -> None:
    for model, version in ((ONE, "1"), (ONE, "2"), (LOCAL, "1")):
        await stub.PublishLoad(admin_pb2.PublishLoadRequest(model=model, version=version), timeout=20)
    for service in (ONE, LOCAL, NARROW, SHADOWED, MEAN, STALE, CHOSEN):
        model = LOCAL if service == LOCAL else ONE
        request = admin_pb2.PublishOnlineRequest(
            service=service,
            variants=[admin_pb2.VariantWeight(model=model, version="1", weight=10_000)],
            shadows=[admin_pb2.VariantWeight(model=ONE, version="2", weight=10_000)] if service == SHADOWED else [],
        )
        await stub.PublishOnline(request, timeout=20)
