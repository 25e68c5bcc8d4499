import asyncio

import numpy as np
import pytest

from apps.app import PartyStatus
from serving.admission import Asker, make_admission
from serving.errors import ConflictError, InternalError, NotAllowedError, UnknownNameError
from serving.features.memory import MemoryFeatureSource
from serving.host import MAX_AGE_MS, HostSide
from serving.limits import make_limiter
from serving.pool import ModelId, ModelPool
from serving.settings import PeerSettings, Settings
from tests.unit.serving.peers.host_party import USERS, halves, partial

OK, NOT_FOUND, _, REJECTED, *_, INTERNAL = PartyStatus
MODEL = ModelId("m", "1")


@pytest.fixture
async def half(tmp_path):
    return (await asyncio.to_thread(halves, tmp_path))[1]


@pytest.fixture
def pool(half):
    pool = ModelPool(1 << 20)
    pool.put(half)
    return pool


@pytest.fixture
def side(pool):
    return HostSide(pool, {"default": MemoryFeatureSource(USERS)})


@pytest.fixture(params=["in time", "at once"])
def infer(request):
    """Both ways to ask a host's side."""

    async def asked(side, *about):
        return await side.infer(*about) if request.param == "in time" else side.infer_now(*about)

    return asked


async def test_a_batch_gives_the_same_bits_as_its_rows_alone(infer, side, half):
    users = ["u1", "u2", "nobody", "u1"]
    together = await infer(side, MODEL, half.artifact.binding_digest, users)
    alone = [await infer(side, MODEL, half.artifact.binding_digest, [user]) for user in users]
    assert together.values.tobytes() == np.concatenate([each.values for each in alone]).tobytes()
    assert together.values[:, 0].tolist() == [partial("u1"), partial("u2"), 0.0, partial("u1")]
    assert together.statuses == [OK, OK, NOT_FOUND, OK]


async def test_one_user_with_a_broken_row_does_not_spoil_the_others(infer, side, half, caplog):
    answer = await infer(side, MODEL, half.artifact.binding_digest, ["broken", "u1"])
    assert answer.statuses == [INTERNAL, OK]
    assert answer.values.tolist() == [[0.0], [partial("u1")]]
    assert "broken" not in caplog.text


async def test_nobody_is_known(infer, side, half):
    answer = await infer(side, MODEL, half.artifact.binding_digest, ["a", "b"])
    assert answer.statuses == [NOT_FOUND, NOT_FOUND]
    assert answer.values.tolist() == [[0.0], [0.0]]


async def test_another_binding_or_model_is_refused(infer, side):
    with pytest.raises(ConflictError):
        await infer(side, MODEL, "00" * 32, ["u1"])
    with pytest.raises(UnknownNameError):
        await infer(side, ModelId("m", "9"), "00" * 32, ["u1"])


async def test_a_source_named_for_the_model_comes_before_the_default(infer, pool, half):
    own = MemoryFeatureSource({"u9": {"x": 1.0, "y": 0.0}}, 3.0)
    side = HostSide(pool, {"default": MemoryFeatureSource(USERS), "m": own})
    answer = await infer(side, MODEL, half.artifact.binding_digest, ["u9", "u1"])
    assert answer.statuses == [OK, NOT_FOUND]
    assert answer.max_age_ms == 3_000


async def test_an_age_is_not_longer_than_the_wire_can_say(infer, pool, half):
    side = HostSide(pool, {"default": MemoryFeatureSource(USERS, 365 * 86_400.0)})
    assert (await infer(side, MODEL, half.artifact.binding_digest, ["u1"])).max_age_ms == MAX_AGE_MS


async def test_without_a_source_it_says_which_setting_is_missing(infer, pool, half):
    with pytest.raises(InternalError, match=r"set features\.m or default"):
        await infer(HostSide(pool, {}), MODEL, half.artifact.binding_digest, ["u1"])


async def limited(pool, folder, features, budget):
    """It answers the bank about so many users."""
    peers = {"bank": PeerSettings(budget=budget)}
    settings = Settings(party="shop", state_dir=str(folder), registry="", peers=peers)
    admission = await asyncio.to_thread(make_admission, settings, b"s" * 32, make_limiter(settings).parties)
    return HostSide(pool, {"default": features}, admission)


async def test_what_is_not_at_hand_is_not_counted(pool, half, tmp_path):
    class Elsewhere(MemoryFeatureSource):
        def at_hand(self, signature):
            return None

    side = await limited(pool, tmp_path, Elsewhere(USERS), 1)
    about = (MODEL, half.artifact.binding_digest)
    assert side.infer_now(*about, ["u1"], Asker("bank")) is None
    assert (await side.infer(*about, ["u2", "u1"], Asker("bank"))).statuses == [OK, REJECTED]


async def test_of_who_may_not_be_asked_about_the_rows_are_rejected(infer, pool, half, tmp_path):
    side = await limited(pool, tmp_path, MemoryFeatureSource(USERS), 2)
    answer = await infer(side, MODEL, half.artifact.binding_digest, ["u1", "nobody", "u2"], Asker("bank"))
    assert answer.statuses == [OK, NOT_FOUND, REJECTED]
    assert answer.values[:, 0].tolist() == [partial("u1"), 0.0, 0.0]


def test_only_the_guest_may_ask(side):
    side.check_guest(MODEL, "bank")
    for other in ("shop", "bakery", ""):
        with pytest.raises(NotAllowedError, match="is not the guest of model m/1"):
            side.check_guest(MODEL, other)
