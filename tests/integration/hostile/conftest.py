"""Hostile peers meet servers on both event loops, without TLS and with it."""

import asyncio

import pytest
import uvloop

from tests.integration.http2_peer import Wire, over, tls_wire


def pytest_asyncio_loop_factories(config, item):
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def tls(tmp_path_factory):
    return tls_wire(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(autouse=True, params=["usual", pytest.param("swapped", marks=pytest.mark.soak)])
async def wire(request, tls):
    """TLS on uvloop and none on asyncio; the other way round takes its time."""
    on_uvloop = isinstance(asyncio.get_running_loop(), uvloop.Loop)
    with over(tls if on_uvloop is (request.param == "usual") else Wire()):
        yield
