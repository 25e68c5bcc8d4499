"""What every call over HTTP has back beside its answer."""

from __future__ import annotations

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serving.errors import LimitError
from serving.frontdoor.http_call import answering
from serving.telemetry.requests import RequestFigures
from serving.transport import Code


async def answer(request: Request) -> Response:
    match request.url.query:
        case "defect":
            raise ZeroDivisionError("a secret")
        case "limit":
            raise LimitError("too much", 0.5)
    return Response("fine")


def body(code: Code, text: str) -> object:
    return {"code": code.name, "text": text}


async def ask(what: str, **headers: str) -> httpx.Response:
    route = Route("/ask", answering(answer, RequestFigures().of("http", "/ask"), body))
    transport = httpx.ASGITransport(Starlette(routes=[route]))
    async with httpx.AsyncClient(transport=transport, base_url="http://node") as client:
        return await client.get(f"/ask?{what}", headers=headers)


@pytest.mark.parametrize(("what", "status"), [("", 200), ("limit", 429), ("defect", 500)])
async def test_a_callers_id_goes_back_whatever_comes_of_the_call(what: str, status: int) -> None:
    said = await ask(what, **{"x-request-id": "r-1"})
    assert (said.status_code, said.headers["x-request-id"]) == (status, "r-1")
    if what == "limit":
        assert said.headers["retry-after"] == "1"
    if what == "defect":
        assert said.json() == {"code": "INTERNAL", "text": "internal error, request id r-1"}


@pytest.mark.parametrize("sent", ["", "a b", "r" * 129])
async def test_an_id_of_no_use_does_not(sent: str) -> None:
    said = await ask("defect", **{"x-request-id": sent})
    assert "x-request-id" not in said.headers
    assert said.json()["text"] != f"internal error, request id {sent}"
