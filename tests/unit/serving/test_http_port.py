import asyncio

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from serving.http_port import HttpServer


class Story:
    """A port with a quick answer and one that waits until it may go on."""

    def __init__(self) -> None:
        self.asked, self.go_on = asyncio.Event(), asyncio.Event()
        self.server = HttpServer(Starlette(routes=[Route("/quick", self.quick), Route("/slow", self.slow)]))

    async def quick(self, request):
        return PlainTextResponse("quick")

    async def slow(self, request):
        self.asked.set()
        await self.go_on.wait()
        return PlainTextResponse("slow")


async def test_it_serves_and_ends_after_what_runs():
    story = Story()
    port = story.server.add_port("127.0.0.1:0")
    await story.server.start()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        assert (await client.get("/quick")).text == "quick"
        running = asyncio.create_task(client.get("/slow"))
        await story.asked.wait()
        stopping = asyncio.create_task(story.server.stop(5))
        story.go_on.set()
        assert (await running).text == "slow"
        await stopping
        with pytest.raises(httpx.ConnectError):
            await client.get("/quick")


async def test_a_taken_port_is_named():
    first, second = Story().server, Story().server
    port = first.add_port("127.0.0.1:0")
    try:
        with pytest.raises(OSError, match=f"cannot bind 127.0.0.1:{port}: Address already in use"):
            second.add_port(f"127.0.0.1:{port}")
    finally:
        await first.stop(0)
        await second.stop(0)


async def test_an_end_without_grace_is_no_error(caplog):
    server = Story().server
    port = server.add_port("127.0.0.1:0")
    await server.start()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        await client.get("/quick")
        await server.stop(0)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
