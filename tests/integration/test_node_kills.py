"""SIGKILL of a node around every change that a call can make: what was acknowledged is there, and it starts."""

from __future__ import annotations

import hashlib
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from serving.pool import ModelId
from serving.transport import RpcError
from tessera.compat import open_inference_pb2 as oip
from tessera.compat import open_inference_pb2_grpc as oip_grpc
from tessera.v1 import admin_pb2 as wire
from tessera.v1 import federation_pb2 as federation
from tessera.v1 import federation_pb2_grpc
from tests.app_sources import store, times
from tests.dying import arm
from tests.forking import ForkServer, fork_server
from tests.nodes import PartyNode
from tests.unit.serving.halves import publish

V1, V2, HALF = ModelId("m", "1"), ModelId("m", "2"), ModelId("h", "1")
BEFORE, AFTER = False, True
POINTS = {
    "open state.draft": BEFORE,
    "sync state.draft": BEFORE,
    "rename state.draft": BEFORE,
    "sync state": AFTER,
    "": AFTER,
}
"""Before it is written; written; safe under its other name; in place, the folder not yet safe; acknowledged."""
WINDOW_S = 31_536_000
LEDGER = f"shop-{int(time.time() // WINDOW_S) * WINDOW_S}.ledger"
COUNTED = {f"written {LEDGER}": AFTER, "": AFTER, f"write {LEDGER}": BEFORE}
ACKNOWLEDGED = {"": AFTER}
"""Of what SQLite writes; its steps are none of Python's."""
TOKEN = "anna"
SETTINGS = f"""
plaintext_caller = 'shop'
[cache]
embedded = false
[principals.anna]
role = 'operator'
token_sha256 = '{hashlib.sha256(TOKEN.encode()).hexdigest()}'
[features.default]
path = 'users.csv'
[peers.shop]
may_load = ['*']
budget = 1000
budget_window_s = {WINDOW_S}
"""


class DyingNode(PartyNode):
    """A worker without its supervisor, which would make the pauses between starts longer and longer. Guest of model
    `m`, and host of `h`, of which party `shop` is the guest."""

    def __init__(self, forks: ForkServer, folder: Path) -> None:
        digest = store(folder / "apps", "1", times(2.0))
        super().__init__(folder, "bank", f"{SETTINGS}[apps]\nroot = '{folder / 'apps'}'\nallowed = ['{digest}']\n")
        (self.folder / "users.csv").write_text("id,x\nu0,0.5\n")
        for model in (V1, V2):
            publish({"bank": self.registry}, model)
        self.digest = bytes.fromhex(publish({"bank": self.registry, "shop": folder / "shop"}, HALF, guest="shop"))
        self.token = TOKEN
        self._forks = forks

    def launch(self) -> None:
        self.process = self._forks.start(str(self.config), output=self.folder / "log")

    def died(self) -> None:
        assert self.process is not None
        assert self.process.wait(20) == -signal.SIGKILL
        (self.folder / "state" / "ports.json").unlink()  # its supervisor would

    def federation(self, method: str, request: object) -> Any:
        """As the other party."""
        stub = federation_pb2_grpc.FederationStub
        return self.call("party", lambda link: getattr(stub(link.stub_channel), method)(request, timeout=20))

    def logs_info(self) -> bool:
        stub, request = oip_grpc.GRPCInferenceServiceStub, oip.LogSettingsRequest()
        reply = self.call("service", lambda link: stub(link.stub_channel).LogSettings(request, metadata=self.metadata))
        return bool(reply.settings["log_info"].bool_param)


@pytest.fixture(scope="module")
def forks() -> Iterator[ForkServer]:
    with fork_server("tests.integration.dying_node") as server:
        yield server


@pytest.fixture
def bank(forks: ForkServer, tmp_path: Path) -> Iterator[DyingNode]:
    """Started; version 1 online."""
    node = DyingNode(forks, tmp_path)
    try:
        node.start()
        node.load("m", "1")
        node.online("s", "m", "1")
        yield node
    finally:
        node.stop()


@dataclass(frozen=True)
class Seen:
    """What people see of a node: `revision` and `online` of service `s`; how many `outcomes` came, and users were
    asked about by the other party, which holds what is `held`."""

    versions: tuple[str, ...]
    revision: int
    online: str
    services: tuple[str, ...] = ("s",)
    apps: tuple[str, ...] = ()
    default: bool = False
    limited: bool = False
    quiet: bool = False
    held: tuple[str, ...] = ()
    outcomes: int = 0
    asked: int = 0

    @classmethod
    def at(cls, node: DyingNode) -> Seen:
        models = node.admin("ListModels", wire.ListModelsRequest()).models
        apps = [app for app in node.admin("ListApps", wire.ListAppsRequest()).apps if app.version]
        assert {one.state for one in (*models, *apps)} == {"READY"}
        services = {one.service: one for one in node.admin("ListServices", wire.ListServicesRequest()).services}
        [shop] = node.admin("ListPeers", wire.ListPeersRequest()).peers
        figures = node.admin("Figures", wire.FiguresRequest(service="s")).variants
        return cls(
            tuple(f"{model.model}/{model.version}" for model in models),
            services["s"].revision,
            services["s"].variants[0].version,
            services=tuple(services),
            apps=tuple(app.version for app in apps),
            default=services["s"].is_default,
            limited=bool(node.admin("ListLimits", wire.ListLimitsRequest()).limits),
            quiet=not node.logs_info(),
            held=tuple(model.model for model in models if any("shop" in holder for holder in model.held_by)),
            outcomes=sum(one.positives for one in figures),
            asked=shop.spent,
        )


@dataclass(frozen=True)
class Change:
    """A call, and what is to be seen after it. `points`: where the node is killed, and whether it is made by then."""

    call: str
    ask: Callable[[DyingNode, Seen], object]
    after: Callable[[Seen], Seen]
    points: Mapping[str, bool] = field(default_factory=lambda: POINTS)

    def point(self, turn: int) -> str:
        """They take turns."""
        return tuple(self.points)[turn % len(self.points)]


def operator(method: str, request: object, **after: Any) -> Change:
    """A call that is always the same."""
    return Change(f"Admin/{method}", lambda node, _: node.admin(method, request), lambda seen: replace(seen, **after))


def give_outcome(node: DyingNode, seen: Seen) -> None:
    reply = node.predict(service="s", case_id=f"c{seen.outcomes}", numbers={"x": 0.0})
    outcomes = [wire.Outcome(attribution=reply.attribution, label=1)]
    assert node.admin("Feedback", wire.FeedbackRequest(outcomes=outcomes)).accepted == 1


def ask_about_user(node: DyingNode, seen: Seen) -> None:
    request = federation.InferRequest(
        protocol=federation.Protocol(major=1),
        model=HALF.model,
        version=HALF.version,
        binding_digest=node.digest,
        user_ids=[f"u{seen.asked}"],
    )
    assert len(node.federation("Infer", request).statuses) == 1


def load_half(node: DyingNode, _: Seen) -> None:
    request = federation.LoadRequest(model=HALF.model, version=HALF.version, binding_digest=node.digest)
    [outcome] = node.federation("Load", request).replicas
    assert outcome.state == federation.LOAD_STATE_LOADED, outcome.reason


def hold(node: DyingNode, _: Seen) -> None:
    half = {"model": HALF.model, "version": HALF.version, "binding_digest": node.digest}
    node.federation("Hold", federation.HoldRequest(**half, service="theirs", revision=1, publish="p", ttl_s=3_600))


def release(node: DyingNode, _: Seen) -> None:
    half = {"model": HALF.model, "version": HALF.version}
    node.federation("Release", federation.ReleaseRequest(**half, service="theirs", publish="p"))


def without(names: tuple[str, ...], name: str) -> tuple[str, ...]:
    return tuple(one for one in names if one != name)


CHANGES = (
    Change(
        "Admin/PublishLoad",
        lambda node, _: node.load("m", "2"),
        lambda seen: replace(seen, versions=(*seen.versions, "m/2")),
    ),
    Change(
        "Admin/PublishOnline",
        lambda node, seen: node.online("s", "m", "2", seen.revision),
        lambda seen: replace(seen, revision=seen.revision + 1, online="2"),
    ),
    Change(
        "Admin/Rollback",
        lambda node, seen: node.admin("Rollback", wire.RollbackRequest(service="s", revision=seen.revision)),
        lambda seen: replace(seen, revision=seen.revision + 1, online="1"),
    ),
    Change(
        "Admin/Unload",
        lambda node, _: node.admin("Unload", wire.UnloadRequest(model="m", version="2", force=True)),
        lambda seen: replace(seen, versions=without(seen.versions, "m/2")),
    ),
)
LIMITED = {"kind": wire.LIMIT_KIND_SERVICE, "name": "s"}
OTHERS = (
    operator("LoadApp", wire.LoadAppRequest(name="risk", version="1"), apps=("1",)),
    operator("SetDefaultService", wire.SetDefaultServiceRequest(service="s"), default=True),
    operator("SetLimit", wire.SetLimitRequest(**LIMITED, limit=wire.Limit(per_s=500)), limited=True),
    operator("SetLogLevel", wire.SetLogLevelRequest(level="warning"), quiet=True),
    Change(
        "Federation/Load", load_half, lambda seen: replace(seen, versions=tuple(sorted({*seen.versions, str(HALF)})))
    ),
    Change("Federation/Hold", hold, lambda seen: replace(seen, held=("h",))),
    Change("Federation/Infer", ask_about_user, lambda seen: replace(seen, asked=seen.asked + 1), COUNTED),
    Change("Admin/Feedback", give_outcome, lambda seen: replace(seen, outcomes=seen.outcomes + 1), ACKNOWLEDGED),
    Change("Federation/Release", release, lambda seen: replace(seen, held=())),
    Change(
        "Admin/Unload",
        lambda node, _: node.admin("Unload", wire.UnloadRequest(model="h", version="1")),
        lambda seen: replace(seen, versions=without(seen.versions, str(HALF))),
    ),
    Change(
        "Admin/PublishOnline",
        lambda node, _: node.online("t", "m", "1"),
        lambda seen: replace(seen, services=("s", "t")),
    ),
    operator("RemoveService", wire.RemoveServiceRequest(service="t", revision=1), services=("s",)),
    operator("SetLogLevel", wire.SetLogLevelRequest(), quiet=False),
    operator("ClearLimit", wire.ClearLimitRequest(**LIMITED), limited=False),
    operator("SetDefaultService", wire.SetDefaultServiceRequest(), default=False),
    operator("UnloadApp", wire.UnloadAppRequest(name="risk", version="1"), apps=()),
)
EVERY = CHANGES + OTHERS
READERS = {f"Admin/List{what}" for what in ("Models", "Services", "Peers", "Limits", "Apps")} | {
    "Admin/Figures",
    "Admin/Activity",
    "Federation/Status",
}
CACHE_FILLERS = {"Admin/Prefetch"}
"""What caches hold may be lost."""


def test_every_call_that_changes_something_is_among_the_changes() -> None:
    services = (wire.DESCRIPTOR.services_by_name["Admin"], federation.DESCRIPTOR.services_by_name["Federation"])
    known = {f"{service.name}/{method.name}" for service in services for method in service.methods}
    assert {change.call for change in EVERY} == known - READERS - CACHE_FILLERS


def make(change: Change, node: DyingNode, point: str, seen: Seen) -> None:
    """The change, and the end of the node at the point; "" is after the answer."""
    if not point:
        change.ask(node, seen)
        assert node.process is not None
        node.process.kill()
    else:
        arm(node.folder / "state", point)
        with pytest.raises(RpcError):
            change.ask(node, seen)
    node.died()


def killed(node: DyingNode, change: Change, point: str, seen: Seen) -> Seen:
    """The change, cut off at the point and then, if it had not happened, made; what is to be seen after it."""
    make(change, node, point, seen)
    node.start()
    happened = change.points[point]
    wanted = change.after(seen) if happened else seen
    assert Seen.at(node) == wanted, (change.call, point)
    assert node.predict(service="s", numbers={"x": 0.0}).version == wanted.online
    if not happened:
        change.ask(node, seen)
    return change.after(seen)


@pytest.mark.timeout(300)
def test_twenty_kills_of_a_node_at_named_points(bank: DyingNode) -> None:
    seen = Seen.at(bank)
    for point in POINTS:
        for change in CHANGES:
            seen = killed(bank, change, point, seen)
    assert Seen.at(bank) == seen


@pytest.mark.timeout(300)
def test_kills_around_the_changes_of_everything_else(bank: DyingNode) -> None:
    """Each call once, at points that take turns, since all take the same way."""
    seen, met = Seen.at(bank), {change.call for change in CHANGES}
    for place, change in enumerate(OTHERS):
        if change.call in met:
            change.ask(bank, seen)
            seen = change.after(seen)
        else:
            met.add(change.call)
            seen = killed(bank, change, change.point(place), seen)
    assert Seen.at(bank) == seen


@pytest.mark.soak
def test_kills_around_every_change_at_each_of_its_points(bank: DyingNode) -> None:
    seen = Seen.at(bank)
    for turn in range(len(POINTS)):
        for change in EVERY:
            seen = killed(bank, change, change.point(turn), seen)
    assert Seen.at(bank) == seen


class Operator(threading.Thread):
    """Makes changes in turn until the node dies. `seen`: after the last acknowledged one; `tried`: the one after it."""

    def __init__(self, node: DyingNode, seen: Seen, turn: int) -> None:
        super().__init__(daemon=True)
        self.seen, self.tried, self.turn = seen, seen, turn
        self._node = node

    def run(self) -> None:
        while True:
            change = EVERY[self.turn % len(EVERY)]
            self.tried = change.after(self.seen)
            try:
                change.ask(self._node, self.seen)
            except (RpcError, KeyError):
                return
            self.seen = self.tried
            self.turn += 1


@pytest.mark.soak
def test_hundreds_of_kills_at_random_times(bank: DyingNode) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    chance = random.Random(seed)
    seen, turn = Seen.at(bank), 0
    for number in range(300):
        operator = Operator(bank, seen, turn)
        operator.start()
        operator.join(chance.uniform(0.0, 0.2))
        assert bank.process is not None
        bank.process.kill()
        bank.died()
        operator.join(20)
        bank.start()
        found = Seen.at(bank)
        assert found in {operator.seen, operator.tried}, f"kill {number} of seed {seed}"
        turn = operator.turn + (found == operator.tried and found != operator.seen)
        seen = found
    assert turn > 100
