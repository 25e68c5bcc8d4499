import asyncio
from contextlib import asynccontextmanager

import pytest

from apps.app import CacheLevel, PartyStatus
from serving.client import Case, Cases, Client, Party
from serving.transport import Code, RpcError, Transport, server
from tessera.v1 import inference_pb2 as wire

REPLY = wire.PredictReply(
    score=[0.25, 0.75],
    label="good",
    model="m",
    version="1",
    variant="m:1",
    complete=True,
    parties=[wire.PartyOutcome(party="shop", status=wire.PARTY_STATUS_OK, level=wire.CACHE_LEVEL_L2)],
    cache=wire.CACHE_LEVEL_NONE,
    attribution=b"opaque",
)


class Time:
    """Seconds that pass while the client pauses."""

    def __init__(self):
        self.now, self.pauses = 0.0, []

    def clock(self):
        return self.now

    async def pause(self, seconds):
        self.pauses.append(seconds)
        self.now += seconds


@asynccontextmanager
async def client_of(predict, batch=None, **options):
    """A client of a server that answers with these."""
    made = server(Transport.NATIVE)
    made.add_bytes_handler("/tessera.v1.Inference/Predict", predict)
    if batch is not None:
        made.add_bytes_handler("/tessera.v1.Inference/BatchPredict", batch)
    port = made.add_port("127.0.0.1:0")
    await made.start()
    try:
        async with Client(f"127.0.0.1:{port}", **options) as client:
            yield client
    finally:
        await made.stop(0)


async def test_a_case_goes_out_and_a_prediction_comes_back():
    seen = []

    def predict(raw, call):
        seen.append((wire.PredictRequest.FromString(raw), dict(call.metadata()).get("authorization")))
        return REPLY.SerializeToString()

    async with client_of(predict, token="secret") as client:
        case = Case("0001", {"a": 1.5}, {"city": "Bern"}, "case 7", {"limit": "5"})
        prediction = await client.predict(case, service="credit")
    [(request, authorization)] = seen
    assert request == wire.PredictRequest(
        service="credit",
        user_id="0001",
        case_id="case 7",
        numbers={"a": 1.5},
        texts={"city": "Bern"},
        parameters={"limit": "5"},
    )
    assert authorization == "Bearer secret"
    assert prediction.score == (0.25, 0.75)
    assert prediction.label == "good"
    assert prediction.complete
    assert prediction.parties == (Party("shop", PartyStatus.OK, CacheLevel.L2),)
    assert prediction.attribution == b"opaque"


async def test_many_cases_keep_their_order():
    def batch(raw, call):
        request = wire.BatchPredictRequest.FromString(raw)
        assert list(request.numbers["a"].values) == [1.0, 2.0]
        assert list(request.texts["city"].values) == ["Bern", "Basel"]
        return wire.BatchPredictReply(
            width=2, scores=[0.1, 0.9, 0.2, 0.8], statuses=bytes((0, 1)), model="m", version="1", labels=["x", "y"]
        ).SerializeToString()

    async with client_of(lambda raw, call: b"", batch) as client:
        cases = Cases(["u", "v"], {"a": [1.0, 2.0]}, {"city": ["Bern", "Basel"]})
        predictions = await client.predict_many(cases, model="m", version="1")
    assert predictions.scores == ((0.1, 0.9), (0.2, 0.8))
    assert predictions.statuses == (PartyStatus.OK, PartyStatus.NOT_FOUND)
    assert predictions.labels == ("x", "y")


def failing(times, error):
    """Fails so often, then answers."""
    left = [times]

    def predict(raw, call):
        if left[0]:
            left[0] -= 1
            raise error
        return REPLY.SerializeToString()

    return predict


async def test_what_is_unavailable_is_asked_again_with_growing_pauses():
    time = Time()
    unavailable = RpcError(Code.UNAVAILABLE, "party 'shop': unreachable")
    async with client_of(failing(4, unavailable), clock=time.clock, pause=time.pause) as client:
        assert (await client.predict(Case("u"))).score
    bounds = [(0.005, 0.01), (0.01, 0.02), (0.02, 0.04), (0.04, 0.08)]
    assert all(low <= pause <= high for pause, (low, high) in zip(time.pauses, bounds, strict=True))


async def test_a_server_that_says_when_is_believed():
    time = Time()
    busy = RpcError(Code.RESOURCE_EXHAUSTED, "service 's' is limited", (("grpc-retry-pushback-ms", "700"),))
    async with client_of(failing(2, busy), clock=time.clock, pause=time.pause) as client:
        await client.predict(Case("u"))
    assert time.pauses == [0.7, 0.7]


async def test_retries_end_with_the_time_for_the_call():
    time = Time()
    async with client_of(
        failing(1_000, RpcError(Code.UNAVAILABLE, "down")), clock=time.clock, pause=time.pause, timeout_s=1.5
    ) as client:
        with pytest.raises(RpcError, match="down"):
            await client.predict(Case("u"))
    assert 0.5 < time.now <= 1.5


@pytest.mark.parametrize(
    "error",
    [
        RpcError(Code.INVALID_ARGUMENT, "unknown feature"),
        RpcError(Code.RESOURCE_EXHAUSTED, "too large"),
        RpcError(Code.UNAVAILABLE, "do not come back", (("grpc-retry-pushback-ms", "-1"),)),
    ],
)
async def test_what_would_fail_again_is_not_asked_again(error):
    time = Time()
    async with client_of(failing(1, error), clock=time.clock, pause=time.pause) as client:
        with pytest.raises(RpcError) as caught:
            await client.predict(Case("u"))
        assert (caught.value.code, caught.value.details) == (error.code, error.details)
        assert (await client.predict(Case("u"))).score
    assert not time.pauses


async def test_a_server_that_comes_back_is_found():
    made = server(Transport.NATIVE)
    port = made.add_port("127.0.0.1:0")
    await made.stop(0)
    async with Client(f"127.0.0.1:{port}", timeout_s=20) as client:
        asking = asyncio.create_task(client.predict(Case("u")))
        await asyncio.sleep(0.05)
        back = server(Transport.NATIVE)
        back.add_bytes_handler("/tessera.v1.Inference/Predict", lambda raw, call: REPLY.SerializeToString())
        back.add_port(f"127.0.0.1:{port}")
        await back.start()
        assert (await asking).score
        await back.stop(0)
