"""What a run of the generator is to do. Plain values, so that it travels to other processes as JSON."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import msgspec

from bench.load.arrivals import Arrivals
from serving.transport import Transport


class PlanError(ValueError):
    """A plan that cannot be run. The message names the field."""


class Factory(msgspec.Struct, frozen=True):
    """A function that every process calls once with the options, and what it returns is used for every call.

    For bodies it returns `(number of the call) -> bytes`; for a check `(request, reply) -> bool`.
    """

    name: str
    """`package.module:function`."""
    options: dict[str, Any] = {}

    def make(self) -> Callable[..., Any]:
        module, _, function = self.name.partition(":")
        try:
            return getattr(importlib.import_module(module), function)(**self.options)  # type: ignore[no-any-return]
        except (ImportError, AttributeError, ValueError, TypeError) as error:
            raise PlanError(f"{self.name}: {error}") from error


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """With `rate_per_s` an open loop, without it a closed one of `connections` x `streams` callers."""

    target: str
    """host:port."""
    method: str
    """/package.Service/Method."""
    bodies: tuple[bytes, ...] = (b"",)
    """Serialised requests, sent in turn."""
    make_body: Factory | None = None
    """Instead of `bodies`, where every call differs."""
    echo: bool = False
    """A reply must be the bytes of its request."""
    make_check: Factory | None = None
    """What else a reply must be."""
    transport: Transport = Transport.NATIVE
    authority: str = ""
    """PEM file of who signs the server's certificate; empty: no TLS."""
    connections: int = 1
    streams: int = 1
    """Callers per connection of a closed loop."""
    rate_per_s: float | None = None
    arrivals: Arrivals = Arrivals.POISSON
    duration_s: float = 10.0
    warmup_s: float = 1.0
    """Before that, under the same load, not counted."""
    drain_s: float = 5.0
    """How long answers are waited for after the last call, or in an open loop while there is no room and none comes."""
    deadline_s: float | None = None
    """Of every call."""
    spread_deadlines: bool = False
    """Let deadlines differ by some milliseconds from call to call, as those of real callers do."""
    traceparent: bool = False
    """Send W3C trace metadata, another id with every call."""
    max_in_flight: int = 10_000
    """Per process. Further calls wait in the generator, and that counts as latency."""
    seed: int = 0
    """Of Poisson arrivals."""

    def __post_init__(self) -> None:
        for name in ("connections", "streams", "duration_s", "max_in_flight"):
            if getattr(self, name) <= 0:
                raise PlanError(f"{name} must be positive")
        if self.rate_per_s is not None and self.rate_per_s <= 0:
            raise PlanError("rate_per_s must be positive; leave it out for a closed loop")
        if self.warmup_s < 0 or self.drain_s < 0:
            raise PlanError("warmup_s and drain_s cannot be negative")
        if not self.bodies:
            raise PlanError("bodies: at least one")
        if not self.method.startswith("/") or self.method.count("/") != 2:
            raise PlanError(f"method must be /package.Service/Method, not {self.method!r}")
