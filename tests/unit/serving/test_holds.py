from __future__ import annotations

import asyncio
import logging

import msgspec
import pytest

from serving import bindings
from serving.control import Hold, MemoryControlStore
from serving.errors import ConflictError, LimitError, PeerUnavailableError
from serving.holds import HOLD_TTL_S, RETRY_S, Holder, Holds, HoldUpkeep, HostHolds
from serving.pool import ModelId
from serving.wanted import Wanted
from tests.clock import Clock
from tests.unit.serving.test_pool import handle

V1 = ModelId("m", "1")
HOLDER = Holder("s", 1, "one")


def hold(party: str = "bank", service: str = "s", expires_s: float = 600.0, publish: str = "") -> Hold:
    return Hold(party=party, service=service, model="m", version="1", revision=1, expires_s=expires_s, publish=publish)


@pytest.fixture
def clock() -> Clock:
    return Clock(0.0)


@pytest.fixture
def wanted() -> Wanted:
    store = MemoryControlStore()
    store.compare_and_set(0, bindings.with_model(store.read(), V1))
    return Wanted(store)


@pytest.fixture
def holds(wanted: Wanted, clock: Clock) -> Holds:
    return Holds(wanted, clock)


async def test_a_hold_is_one_per_caller_service_and_version(holds: Holds) -> None:
    await holds.grant(hold())
    await holds.grant(hold(expires_s=800.0))
    await holds.grant(hold(service="other"))
    await holds.grant(hold(party="shop"))
    assert [(one.party, one.service, one.expires_s) for one in holds.of(V1)] == [
        ("bank", "s", 800.0),
        ("bank", "other", 600.0),
        ("shop", "s", 600.0),
    ]


async def test_a_hold_counts_until_it_expires(holds: Holds, clock: Clock) -> None:
    await holds.grant(hold())
    clock.now = 599.0
    assert holds.of(V1)
    clock.now = 600.0
    assert not holds.of(V1)


async def test_what_is_not_wanted_cannot_be_held(holds: Holds) -> None:
    with pytest.raises(ConflictError, match="m/2 is not loaded"):
        await holds.grant(msgspec.structs.replace(hold(), version="2"))


async def test_release_drops_only_that_hold_and_may_be_repeated(holds: Holds, wanted: Wanted) -> None:
    await holds.grant(hold())
    await holds.grant(hold(party="shop"))
    await holds.release(hold())
    revision = wanted.state.revision
    await holds.release(hold())
    assert [one.party for one in holds.of(V1)] == ["shop"]
    assert wanted.state.revision == revision


def publishes(holds: Holds) -> list[str]:
    return [one.publish for one in holds.of(V1)]


async def test_what_one_publish_holds_another_one_does_not_release(holds: Holds) -> None:
    for publish in ("", "one", "other"):
        await holds.grant(hold(publish=publish))
    await holds.release(hold(publish="one"))
    assert publishes(holds) == ["", "other"]
    assert holds.has(hold(publish="other"))
    assert not holds.has(hold(publish="one"))


async def test_a_hold_takes_the_place_of_an_earlier_publishs(holds: Holds, wanted: Wanted) -> None:
    await holds.grant(hold(publish="one"))
    await holds.grant(hold(publish="one", service="t"))
    revision = wanted.state.revision
    await holds.grant(hold(publish="other"), "one")
    assert [(one.service, one.publish) for one in holds.of(V1)] == [("t", "one"), ("s", "other")]
    assert wanted.state.revision == revision + 1, "there is no moment without a hold"
    await holds.grant(hold(publish="other"), "one")
    assert len(holds.of(V1)) == 2


async def test_a_hold_that_expires_beside_one_that_lasts_alarms_nobody(
    holds: Holds, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    await holds.grant(hold(publish="one"))
    await holds.grant(hold(publish="other", expires_s=900.0))
    clock.now = 700.0
    await holds.sweep()
    assert ([one.publish for one in holds.granted], holds.expired, caplog.text) == (["other"], 0, "")


async def test_a_party_holds_no_more_than_it_may(holds: Holds, wanted: Wanted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.holds.MAX_HOLDS", 2)
    for service in ("s", "t", "s"):
        await holds.grant(hold(service=service))
    with pytest.raises(LimitError, match="party 'bank' has 2 holds here already"):
        await holds.grant(hold(service="u"))
    await holds.grant(hold(party="shop"))
    assert [(one.party, one.service) for one in wanted.state.holds] == [("bank", "t"), ("bank", "s"), ("shop", "s")]


async def test_expired_holds_are_dropped_with_a_warning(
    holds: Holds, wanted: Wanted, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    await holds.grant(hold())
    await holds.grant(hold(party="shop", expires_s=900.0))
    await holds.sweep()
    assert caplog.text == ""
    clock.now = 700.0
    await holds.sweep()
    assert [one.party for one in wanted.state.holds] == ["shop"]
    assert "the hold of party bank on m/1 for its service s has expired" in caplog.text
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


class Host:
    """A host that says no when told to, and remembers who holds what."""

    def __init__(self, refusal: str = "") -> None:
        self.refusal = refusal
        self.held: dict[tuple[str, str, ModelId], tuple[str, int, int]] = {}

    async def hold(
        self, holder: Holder, model: ModelId, binding_digest: str, ttl_s: int, replaces: str | None = None
    ) -> None:
        if self.refusal:
            raise PeerUnavailableError(self.refusal)
        if replaces is not None:
            self.held.pop((holder.service, replaces, model), None)
        self.held[holder.service, holder.publish, model] = (binding_digest, holder.revision, ttl_s)

    async def release(self, holder: Holder, model: ModelId) -> None:
        if self.refusal:
            raise PeerUnavailableError(self.refusal)
        del self.held[holder.service, holder.publish, model]


async def test_a_guest_takes_and_releases_holds_at_every_host() -> None:
    shop, telco = Host(), Host()
    taken = HostHolds({"shop": shop, "telco": telco})
    await taken.take(Holder("s", 3, "one"), [handle(V1)])
    assert shop.held == telco.held == {("s", "one", V1): ("ab", 3, HOLD_TTL_S)}
    await taken.renew(Holder("s", 4, "other"), [handle(V1)], "one")
    assert shop.held == telco.held == {("s", "other", V1): ("ab", 4, HOLD_TTL_S)}
    await taken.release(Holder("s", 4, "other"), [handle(V1)])
    assert shop.held == telco.held == {}


async def test_every_party_that_refuses_is_named() -> None:
    with pytest.raises(ConflictError) as refused:
        await HostHolds({"shop": Host("party 'shop': another digest")}).take(HOLDER, [handle(V1)])
    assert str(refused.value) == (
        "not ready at every party: m/1 at party 'shop': another digest; "
        "m/1 at party 'telco': it has no address in this node's settings (peers.telco.address)"
    )


async def test_a_release_that_fails_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    await HostHolds({"shop": Host("party 'shop': down")}).release(HOLDER, [handle(V1)])
    assert "the hold on m/1 for service s stays until it expires: party 'shop': down" in caplog.text


async def test_what_is_lacking_is_known_by_service_until_it_is_held_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    telco = Host("party 'telco': m/1 is not loaded")
    taken = HostHolds({"shop": Host(), "telco": telco})
    for _ in range(2):
        await taken.renew(HOLDER, [handle(V1)])
    text = "m/1 at party 'telco': m/1 is not loaded"
    assert (taken.lacking, taken.refused) == ({"s": (text,)}, 2)
    assert caplog.messages == [f"a hold could not be renewed, it will expire: {text}"]
    taken.forget_others(["s"])
    assert taken.lacking
    taken.forget_others(["t"])
    assert not taken.lacking
    await taken.renew(HOLDER, [handle(V1)])
    telco.refusal = ""
    await taken.renew(HOLDER, [handle(V1)])
    assert not taken.lacking


async def test_upkeep_runs_at_once_and_at_every_third_even_after_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    passes: list[int] = []
    pauses: asyncio.Queue[float] = asyncio.Queue()
    go = asyncio.Semaphore(0)

    async def one_pass() -> bool:
        passes.append(len(passes))
        if len(passes) == 1:
            raise OSError(28, "No space left on device")
        return len(passes) == 3

    async def pause(seconds: float) -> None:
        pauses.put_nowait(seconds)
        await go.acquire()

    upkeep = HoldUpkeep(one_pass, pause)
    await upkeep.stop()
    upkeep.start()
    for expected in (1, 2, 3):
        assert await pauses.get() == (RETRY_S if expected == 3 else HOLD_TTL_S / 3)
        assert len(passes) == expected
        go.release()
    assert "No space left on device" in caplog.text
    await upkeep.stop()
    assert len(passes) <= 4


async def test_what_expires_is_counted_where_it_is_swept(wanted: Wanted, clock: Clock) -> None:
    here, there = Holds(wanted, clock), Holds(wanted, clock)
    await here.grant(hold())
    await here.grant(hold(service="other", expires_s=900.0))
    await here.sweep()
    assert here.expired == 0
    clock.now = 600.0
    await asyncio.gather(here.sweep(), there.sweep())
    assert (here.expired + there.expired, [one.service for one in here.granted]) == (1, ["other"])
