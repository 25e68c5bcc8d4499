"""Whether a node is ready, and what is wrong with it although it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from serving.cache.redis import RedisTier
from serving.lifecycle import ModelState
from serving.publishing import Publishing

Check = Callable[[], Iterable[str]]
"""What is wrong with one part now, one line each, without secrets; nothing when all is well."""


class Readiness(msgspec.Struct, frozen=True):
    """`ready`: send calls here. `state` of the node; `problems` may be there in a ready node too."""

    ready: bool
    state: str
    problems: tuple[str, ...]


def report(ready: bool, state: str, checks: Sequence[Check]) -> Readiness:
    return Readiness(ready, state, tuple(problem for check in checks for problem in check()))


def publishing_problems(publishing: Publishing) -> Iterable[str]:
    yield from model_problems(publishing)
    yield from service_problems(publishing)


def model_problems(publishing: Publishing) -> Iterable[str]:
    for status in publishing.models():
        if status.life.state is ModelState.FAILED:
            yield f"model {status.life.model} does not load: {status.life.reason}"
    for app in publishing.apps.statuses():
        if app.life.state is ModelState.FAILED:
            yield f"app {app.life.id} does not load: {app.life.reason}"


def service_problems(publishing: Publishing) -> Iterable[str]:
    for name, route in publishing.routes.current.services.items():
        if route.refusal:
            yield f"service {name!r} is not served: {route.refusal}"


def cache_problems(shared: RedisTier | None) -> Iterable[str]:
    if shared is not None and shared.is_down:
        yield "the shared cache is down; answers go on without it"
