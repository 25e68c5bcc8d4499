import asyncio

import pytest
from starlette.applications import Starlette
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from loaders.signature import Missing, Signature, TensorSpec
from serving.features.http import HttpFeatureSource
from serving.features.source import FeatureSourceError
from serving.http_port import HttpServer

X = Signature((TensorSpec(name="x", dtype="float64", shape=(-1,), missing=Missing.IMPUTE),), ())


class Service:
    """Answers what it is told to."""

    def __init__(self) -> None:
        self.answer, self.status = b'{"users": {"u": {"x": 2}}}', 200
        self.pieces = 0
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.server = HttpServer(Starlette(routes=[Route("/", self.reply, methods=["POST"])]))

    async def reply(self, request):
        await self.go_on.wait()
        return StreamingResponse(self._dripping(), self.status) if self.pieces else Response(self.answer, self.status)

    async def _dripping(self):
        """Spaces before the answer, which JSON allows."""
        for _ in range(self.pieces):
            yield b" "
            await asyncio.sleep(0.1)
        yield self.answer


@pytest.fixture
async def service():
    made = Service()
    made.port = made.server.add_port("127.0.0.1:0")
    await made.server.start()
    yield made
    made.go_on.set()
    await made.server.stop(1)


@pytest.fixture
async def source(service):
    made = HttpFeatureSource(f"http://127.0.0.1:{service.port}/", timeout_s=0.3)
    yield made
    await made.close()


async def test_the_shorter_age_counts(service, source):
    service.answer = b'{"users": {"u": {"x": 2}}, "max_age_s": 7}'
    assert (await source.lookup(["u"], X)).max_age_s == 7
    bounded = HttpFeatureSource(f"http://127.0.0.1:{service.port}/", max_age_s=5, timeout_s=5)
    assert (await bounded.lookup(["u"], X)).max_age_s == 5
    await bounded.close()


@pytest.mark.parametrize(
    ("status", "answer", "said"),
    [
        (500, b"", "answers with HTTP status 500"),
        (302, b"", "answers with HTTP status 302"),
        (200, b"", "its reply cannot be used"),
        (200, b'{"users": []}', "its reply cannot be used"),
        (200, b'{"users": {"u": {"x": [1]}}}', "its reply cannot be used"),
        (200, b'{"users": {"\xff": {"x": 1}}}', "its reply cannot be used"),
        (200, b'{"more": ' + b"[" * 100_000, "its reply cannot be used"),
        (200, b'{"users": {"u-17": {"x": "many"}}}', "feature 'x' of some user is not a number"),
    ],
)
async def test_a_wrong_reply_is_said_and_names_nobody(service, source, status, answer, said):
    service.status, service.answer = status, answer
    with pytest.raises(FeatureSourceError, match=said) as caught:
        await source.lookup(["u-17"], X)
    assert "u-17" not in str(caught.value)


async def test_a_service_that_drips_costs_no_more_either(service, source):
    service.pieces = 10
    with pytest.raises(FeatureSourceError, match="does not answer: TimeoutError"):
        await source.lookup(["u"], X)


async def test_a_service_that_is_not_there_is_named():
    source = HttpFeatureSource("http://127.0.0.1:1/", timeout_s=5)
    with pytest.raises(FeatureSourceError, match=r"feature service 127.0.0.1 does not answer: ConnectError"):
        await source.lookup(["u"], X)
    await source.close()
