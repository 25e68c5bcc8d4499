"""Responses of every kind: what a call says of one does not depend on how it was cut on its way."""

import asyncio

import pytest

from serving.transport import ChannelOptions, RpcError, frames
from serving.transport.exchange import Exchange
from serving.transport.frames import ErrorCode
from tests.integration.hostile.test_responses import MALFORMED, PAGES, RIGHT, WRONG
from tests.unit.serving.transport.test_unary import BLOCK, begun, connected, written

RESPONSES = {
    **{name: sent for name, (sent, _) in WRONG.items()},
    **MALFORMED,
    **RIGHT,
    **{f"page {number}": sent for number, (sent, _) in enumerate(PAGES)},
}
MAX_BYTES = 1000


async def outcome(sent, step, is_unary):
    """The reply or its failure, and whether the server hears that it broke a rule."""
    protocol, wire = connected()
    if is_unary:
        reply = begun(protocol, max_bytes=MAX_BYTES)[1]
    else:
        exchange = Exchange(ChannelOptions(max_receive_bytes=MAX_BYTES), None)
        exchange.begin(protocol.connection, BLOCK)
        exchange.send(b"x", end=True)
        reply = asyncio.ensure_future(exchange.only())
    written(protocol, wire)
    for start in range(0, len(sent), step):
        protocol.data_received(sent[start : start + step])
    resets = [frames.word(item[3]) for item in written(protocol, wire) if item[0] == frames.RST_STREAM]
    try:
        said = await asyncio.wait_for(reply, 5)
    except RpcError as error:
        said = error.code, error.details
    assert not (protocol.connection.streams or protocol.connection.closed_reason)
    return said, ErrorCode.PROTOCOL_ERROR in resets


@pytest.mark.parametrize("is_unary", [True, False], ids=["unary", "stub"])
@pytest.mark.parametrize("sent", RESPONSES.values(), ids=RESPONSES.keys())
async def test_it_makes_no_difference_how_a_response_is_cut(sent, is_unary):
    whole = await outcome(sent, len(sent), is_unary)
    assert [await outcome(sent, step, is_unary) for step in (1, 13)] == [whole] * 2
