"""Whether a node is ready, and what is wrong with it although it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from serving.cache.redis import RedisTier
from serving.lifecycle import ModelState
from serving.publishing import Publishing
from serving.reports import ReplicaReport

Check = Callable[[], Iterable[str]]
"""What is wrong with one part now, one line each, without secrets; nothing when all is well."""


class ReplicaDetail(msgspec.Struct, frozen=True):
    """What a replica of this party said `age_s` ago: the revision of the state that it follows, and its models and apps
    with the names of their states."""

    replica: str
    generation: str
    revision: int
    age_s: float
    models: dict[str, str]
    apps: dict[str, str]


class Readiness(msgspec.Struct, frozen=True):
    """`ready`: send calls here. `state` of the node; `problems` may be there in a ready node too; `replicas`: this one
    and the others."""

    ready: bool
    state: str
    problems: tuple[str, ...]
    replicas: tuple[ReplicaDetail, ...] = ()


def report(ready: bool, state: str, checks: Sequence[Check], heard: Iterable[ReplicaReport] = ()) -> Readiness:
    problems = tuple(problem for check in checks for problem in check())
    return Readiness(ready, state, problems, tuple(map(_detail, heard)))


def _detail(said: ReplicaReport) -> ReplicaDetail:
    models, apps = ({name: one.state for name, one in kind.items()} for kind in (said.models, said.apps))
    return ReplicaDetail(said.replica, said.generation, said.revision, round(said.age_s, 3), models, apps)


def publishing_problems(publishing: Publishing) -> Iterable[str]:
    yield from model_problems(publishing)
    yield from replica_problems(publishing)
    yield from service_problems(publishing)


def model_problems(publishing: Publishing) -> Iterable[str]:
    for status in publishing.models():
        if status.life.state is ModelState.FAILED:
            yield f"model {status.life.model} does not load: {status.life.reason}"
    for app in publishing.apps.statuses():
        if app.life.state is ModelState.FAILED:
            yield f"app {app.life.id} does not load: {app.life.reason}"


def replica_problems(publishing: Publishing) -> Iterable[str]:
    """Of the other replicas."""
    for said in publishing.heard()[1:]:
        for kind, states in (("model", said.models), ("app", said.apps)):
            for name, one in states.items():
                if one.state == ModelState.FAILED.value:
                    yield f"{kind} {name} does not load at replica {said.replica}: {one.reason}"


def service_problems(publishing: Publishing) -> Iterable[str]:
    for name, route in publishing.routes.current.services.items():
        if route.refusal:
            yield f"service {name!r} is not served: {route.refusal}"
        for text in publishing.host_holds.lacking.get(name, ()):
            yield f"service {name!r} needs a version that is not held for it: {text}"


def cache_problems(shared: RedisTier | None) -> Iterable[str]:
    if shared is not None and shared.is_down:
        yield "the shared cache is down; answers go on without it"
