import pytest
from redis.asyncio import Redis

from loaders.signature import Missing, Signature, TensorSpec
from serving.cache.embedded import EmbeddedRedis
from serving.features.redis import RedisFeatureSource
from serving.features.source import FeatureSourceError

X = Signature((TensorSpec(name="x", dtype="float64", shape=(-1,), missing=Missing.IMPUTE),), ())


@pytest.fixture
async def server(tmp_path):
    made = EmbeddedRedis(tmp_path, 64 << 20)
    await made.start()
    async with Redis.from_url(made.url) as client:
        await client.hset("f:u", mapping={"x": "2.5"})
        await client.hset("f:other", mapping={"y": "1"})
        await client.set("f:odd", "not a hash")
        await client.hset("f:word", mapping={"x": "many"})
    yield made
    await made.stop()


@pytest.fixture
async def source(server):
    made = RedisFeatureSource(server.url, "f:", timeout_s=0.2)
    await made.open()
    yield made
    await made.close()


async def test_a_user_without_the_feature_is_there_all_the_same(source):
    rows = await source.lookup(["u", "other", "nobody"], X)
    assert rows.found.tolist() == [True, True, False]


@pytest.mark.parametrize("user", ["odd", "word"])
async def test_what_is_no_number_is_said_and_names_nobody(source, user):
    with pytest.raises(FeatureSourceError) as caught:
        await source.lookup([user], X)
    assert user not in str(caught.value)


async def test_a_server_that_is_not_there_is_named(tmp_path):
    source = RedisFeatureSource(f"unix://{tmp_path}/none.sock", "f:")
    with pytest.raises(FeatureSourceError, match="feature server on a socket does not answer: ConnectionError"):
        await source.open()
    await source.close()
