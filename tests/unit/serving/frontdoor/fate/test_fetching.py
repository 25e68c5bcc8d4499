"""Models come from allowed places only, and never without bound."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx  # noqa: F401 - a node has it before it serves
import pytest

from loaders.fate.names import FateName
from serving.errors import ConflictError, InvalidRequestError, NotAllowedError
from serving.fate_settings import FateSettings
from serving.frontdoor.fate.fetching import ModelSources
from tests.fate_models import Recipe, as_json, as_transfer_reply, as_zip, make

PARTS = make(1, Recipe("lr")).parts["guest:9999"]
NAME = FateName("guest#9999#m", "1")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "exports"
    folder.mkdir()
    (folder / "model.zip").write_bytes(as_zip(PARTS))
    (folder / "model.cache").write_bytes(as_json(PARTS))
    (tmp_path / "secret").write_bytes(as_zip(PARTS))
    (folder / "link").symlink_to(tmp_path / "secret")
    return folder


class Flow:
    """Answers one POST with bytes as they are."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/v1/model/transfer"
        self.answer = b""
        self.asked: list[bytes] = []


@pytest.fixture
async def flow() -> AsyncIterator[Flow]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
        )
        flow.asked.append(await reader.readexactly(length))
        writer.write(flow.answer)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    flow = Flow(server.sockets[0].getsockname()[1])
    async with server:
        yield flow


def http(body: bytes, status: str = "200 OK", more: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n{more}\r\n".encode() + body


async def test_files_are_read_under_their_root(root: Path) -> None:
    sources = ModelSources(FateSettings(models_root=str(root)))
    assert await sources.parts("FILE", "model.zip", NAME) == PARTS
    assert await sources.parts("FILE", str(root / "model.zip"), NAME) == PARTS
    assert await sources.parts("CACHE", "model.cache", NAME) == PARTS


@pytest.mark.parametrize("place", ["", ".", "../secret", "link", "/etc/passwd", "none.zip"])
async def test_nothing_else_is_read(root: Path, place: str) -> None:
    with pytest.raises(NotAllowedError, match="names no file"):
        await ModelSources(FateSettings(models_root=str(root))).parts("FILE", place, NAME)


async def test_without_a_root_or_an_address_nothing_is_loaded(root: Path) -> None:
    sources = ModelSources(FateSettings())
    with pytest.raises(NotAllowedError, match="models_root is not set"):
        await sources.parts("FILE", str(root / "model.zip"), NAME)
    for url in ("", "http://127.0.0.1:1/v1/model/transfer"):
        with pytest.raises(NotAllowedError, match="transfer_urls"):
            await sources.parts("", url, NAME)
    with pytest.raises(InvalidRequestError, match="'S3' is none of"):
        await sources.parts("S3", "x", NAME)


async def test_what_is_no_export_or_too_large_is_refused(root: Path) -> None:
    (root / "bad.zip").write_bytes(b"PK")
    sources = ModelSources(FateSettings(models_root=str(root)))
    with pytest.raises(ConflictError, match="is no export of guest#9999#m 1"):
        await sources.parts("FILE", "bad.zip", NAME)
    small = ModelSources(FateSettings(models_root=str(root), max_model_bytes=10))
    with pytest.raises(ConflictError, match="more than 10 bytes"):
        await small.parts("FILE", "model.zip", NAME)


async def test_flow_is_asked_by_table_and_namespace(flow: Flow) -> None:
    flow.answer = http(as_transfer_reply(PARTS))
    sources = ModelSources(FateSettings(transfer_urls=(flow.url,)))
    for place in ("", flow.url, flow.url.replace(":", "%3A").replace("/", "%2F")):
        assert await sources.parts("FATEFLOW", place, NAME) == PARTS
    assert flow.asked == [b'{"name":"1","namespace":"guest#9999#m"}'] * 3


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (http(b"", "500 Oops"), "HTTP status 500"),
        (http(b"", "302 Found", "location: http://127.0.0.1:1/\r\n"), "HTTP status 302"),
        (http(b'{"retcode": 3, "retmsg": "no"}'), "refused with 3: no"),
        (http(b"<html>"), "is no export"),
        (http(bytes(3_000)), "more than 2000 bytes"),
        (b"nonsense\r\n\r\n", "does not answer: RemoteProtocolError"),
    ],
)
async def test_what_flow_says_otherwise_is_told(flow: Flow, answer: bytes, text: str) -> None:
    flow.answer = answer
    sources = ModelSources(FateSettings(transfer_urls=(flow.url,), max_model_bytes=2_000))
    with pytest.raises(ConflictError, match=text):
        await sources.parts("", "", NAME)


async def test_a_flow_that_is_silent_is_not_waited_for() -> None:
    gone = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # to the end of the connection
        writer.close()
        gone.set()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        sources = ModelSources(FateSettings(transfer_urls=(url,), fetch_timeout_s=0.1))
        with pytest.raises(ConflictError, match="does not answer"):
            await sources.parts("", "", NAME)
        await gone.wait()
