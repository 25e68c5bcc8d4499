"""Packets in JSON: who signed is who asks."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.protobuf import json_format
from starlette.applications import Starlette

from serving.control import WantedLimit
from serving.frontdoor.fate import unary_http
from serving.frontdoor.fate.unary_call import UnaryCall
from serving.peers.signing import AccessKey, sign
from serving.telemetry.requests import RequestFigures
from tessera.compat import fate_proxy_pb2 as wire
from tests.fate_models import GUEST
from tests.unit.serving.frontdoor.fate.test_unary_call import SECRET, linear, make_side, single

KEYS = {"key": AccessKey(GUEST, SECRET), "other": AccessKey("10001", SECRET)}
MAX_BYTES = 10_000


@asynccontextmanager
async def posting(
    root: Path, keys: Mapping[str, AccessKey], rules: Mapping[str, WantedLimit] | None = None
) -> AsyncIterator[Any]:
    figures = RequestFigures()
    route = unary_http.route(UnaryCall(await make_side(root, keys, rules=rules)), figures, MAX_BYTES)
    transport = httpx.ASGITransport(Starlette(routes=[route]))
    async with httpx.AsyncClient(transport=transport, base_url="http://host") as client:

        async def post(body: bytes | wire.Packet, **headers: str) -> tuple[wire.Packet, dict[str, Any]]:
            text = json_format.MessageToJson(body) if isinstance(body, wire.Packet) else body
            answer = await client.post("/unary", content=text, headers=headers)
            assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
            reply = json_format.Parse(answer.content, wire.Packet())
            return reply, json.loads(reply.body.value)

        yield post


def signed(key: str = "key") -> wire.Packet:
    packet = single("1", "u1")
    sign(packet, key, SECRET, time.time())
    return packet


async def test_a_signed_packet_is_answered_once(tmp_path: Path) -> None:
    async with posting(tmp_path, KEYS) as post:
        packet = signed()
        reply, said = await post(packet)
        assert said["data"]["heterologisticregression_0"]["score"] == pytest.approx(linear("u1"), abs=1e-12)
        assert reply.header == packet.header
        assert (await post(packet))[1]["retcode"] == 629


async def test_nobody_else_is_answered(tmp_path: Path) -> None:
    async with posting(tmp_path, KEYS) as post:
        stranger = single("1", "u1")
        stranger.header.src.partyId = "10001"
        sign(stranger, "other", SECRET, time.time())
        for packet, text in (
            (single("1", "u1"), "no valid signature"),
            (signed("other"), "another party's key"),
            (stranger, "known party"),
        ):
            said = (await post(packet))[1]
            assert (said["retcode"], text in said["retmsg"], said["data"]) == (629, True, {}), said
    async with posting(tmp_path, {}) as post:
        assert (await post(signed()))[1]["retcode"] == 629


async def test_strangers_use_up_nothing_of_what_parties_may_ask(tmp_path: Path) -> None:
    async with posting(tmp_path, KEYS, {"I_unaryCall": WantedLimit(per_s=0.001, burst=1)}) as post:
        for _ in range(3):
            assert (await post(single("1", "u1")))[1]["retcode"] == 629
        assert (await post(signed()))[1]["retcode"] == 0
        assert (await post(signed()))[1]["retcode"] == 124


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", 100),
        (b"{", 100),
        (b"\xff", 100),
        (b"{}", 629),
        (b'{"body": {"value": 7}}', 100),
        (b'{"header": 7}', 100),
        (b"[" * 9_000, 100),
        (b" " * (MAX_BYTES + 1), 124),
    ],
)
async def test_what_is_no_packet_gets_a_packet_with_a_code(tmp_path: Path, body: bytes, code: int) -> None:
    async with posting(tmp_path, KEYS) as post:
        assert (await post(body))[1]["retcode"] == code
