"""Several versions under one service, over workers and restarts: who meets which, what a shadow costs the host."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from serving.transport import RpcError
from tessera.v1 import admin_pb2, federation_pb2
from tests.artifacts import make_bound_pair
from tests.nodes import PartyNode

pytestmark = pytest.mark.usefixtures("untraced")

CASE = {"a": 0.25, "b": -1.5}
USERS = [f"u{number}" for number in range(60)]
VERSIONS = ("1", "2", "3", "4")


class Parties:
    """`bank` with two workers asks `shop`, which lets it run shadows, within a budget."""

    def __init__(self, folder: Path) -> None:
        self.host = PartyNode(
            folder,
            "shop",
            "plaintext_caller = 'bank'\n"
            "peers.bank = {may_load = ['m'], purposes = ['infer', 'shadow'], budget = 120}\n"
            "features.default = {kind = 'file', path = 'users.csv'}",
        )
        rows = "".join(f"{user},{place / 10},0\n" for place, user in enumerate((*USERS, "late")))
        (self.host.folder / "users.csv").write_text("id,x,y\n" + rows)
        self.guest = PartyNode(folder, "bank", f"workers = 2\npeers.shop.address = '127.0.0.1:{self.host.party_port}'")
        for version in VERSIONS:
            make_bound_pair(
                self.guest.registry,
                self.host.registry,
                model="m",
                version=version,
                guest="bank",
                host="shop",
                guest_weights={"a": 0.5, "b": -0.25},
                host_weights={"x": 1.0, "y": 2.0},
                intercept=int(version) / 10,
            )

    def start(self) -> None:
        self.host.start()
        self.guest.start()

    def stop(self) -> None:
        self.guest.stop()
        self.host.stop()

    def met(self) -> dict[str, str]:
        """The version that answers each user."""
        return {user: self.guest.predict(service="s", user_id=user, numbers=CASE).version for user in USERS}

    def ready_versions(self) -> int:
        """At the guest, over its workers: each begins to answer by itself."""
        shown = httpx.get(f"http://{self.guest.address('http')}/metrics").text
        return len(re.findall(r'^tessera_model_state{[^}]*state="ready"[^}]*} 1.0$', shown, re.MULTILINE))

    def figures(self) -> dict[tuple[str, bool], admin_pb2.VariantFigures]:
        found = self.guest.admin("Figures", admin_pb2.FiguresRequest(service="s")).variants
        return {(one.variant, one.shadow): one for one in found}

    def budget(self) -> admin_pb2.PeerState:
        [bank] = self.host.admin("ListPeers", admin_pb2.ListPeersRequest()).peers
        return bank


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parties]:
    both = Parties(tmp_path_factory.mktemp("variants"))
    try:
        both.start()
        for version in VERSIONS:
            both.guest.load("m", version)
        variants = [
            admin_pb2.VariantWeight(model="m", version=version, weight=weight)
            for version, weight in (("1", 5_000), ("2", 3_000), ("3", 2_000))
        ]
        shadow = admin_pb2.VariantWeight(model="m", version="4", weight=10_000)
        request = admin_pb2.PublishOnlineRequest(service="s", variants=variants, shadows=[shadow])
        both.guest.admin("PublishOnline", request)
        yield both
    finally:
        both.stop()


def until(reached: object, timeout_s: float = 20) -> None:
    end = time.monotonic() + timeout_s
    while not reached():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.05)


def test_users_keep_their_version_and_a_shadow_spends_the_same_budget(parties: Parties) -> None:
    met = parties.met()
    assert set(met.values()) == {"1", "2", "3"}
    until(lambda: ("m:4", True) in (found := parties.figures()) and found["m:4", True].answers == len(USERS))
    figures = parties.figures()
    assert sum(one.answers for (_, shadow), one in figures.items() if not shadow) == len(USERS)
    assert figures["m:4", True].moved > 0
    # Every user was asked about for the version that answers and for the shadow.
    assert (parties.budget().spent, parties.budget().budget) == (120, 120)
    with pytest.raises(RpcError, match="query budget is spent"):
        parties.guest.predict(service="s", user_id="late", numbers=CASE)
    parties.guest.stop()
    parties.host.stop()
    parties.start()
    until(lambda: parties.ready_versions() == 2 * len(VERSIONS))
    assert parties.met() == met
    bank = parties.budget()
    assert (bank.spent, list(bank.purposes)) == (120, ["infer", "shadow"])
    [shop] = parties.guest.admin("ListPeers", admin_pb2.ListPeersRequest()).peers
    assert [(half.version, half.state) for half in shop.halves] == [
        (version, federation_pb2.HALF_STATE_READY) for version in VERSIONS
    ]


def test_the_log_level_and_limits_reach_all_workers_and_outlive_them(parties: Parties) -> None:
    closed = admin_pb2.Limit(per_s=0)
    parties.guest.admin("SetLimit", admin_pb2.SetLimitRequest(kind=admin_pb2.LIMIT_KIND_MODEL, name="m", limit=closed))
    parties.guest.admin("SetLogLevel", admin_pb2.SetLogLevelRequest(level="debug"))
    until(lambda: parties.guest.log.count("the log level is debug") == 2)
    parties.guest.stop()
    parties.guest.start()
    until(lambda: parties.guest.log.count("the log level is debug") == 4)
    for user in USERS[:10]:
        with pytest.raises(RpcError, match="model 'm' is closed"):
            parties.guest.predict(service="s", user_id=user, numbers=CASE)
