"""Spans: what one step of a call did and how long it took, under the step that it is a part of.

Contexts travel between processes as https://www.w3.org/TR/trace-context/ has them. A span holds no user ids, features,
scores or texts of errors: who sees traces sees how calls went, not whom they were about.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from enum import Enum
from typing import NamedTuple, Protocol

from serving.transport import Call

TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"
_FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 1
_MEMBER = re.compile(
    r"(?:[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
    r"=[ -+\--<>-~]{0,255}[!-+\--<>-~]"
)
_MAX_MEMBERS, _MAX_STATE = 32, 512

Attribute = str | int | float | bool


class Kind(Enum):
    """SERVER and CLIENT: the two ends of a call between processes."""

    INTERNAL = "internal"
    SERVER = "server"
    CLIENT = "client"


class Context(NamedTuple):
    """What other spans need of one: 16 and 8 bytes as numbers, neither of them 0. `state`: what the systems of callers
    keep with the trace, a `tracestate`; "" for nothing."""

    trace_id: int
    span_id: int
    state: str = ""

    def traceparent(self) -> str:
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{_SAMPLED:02x}"

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What a call carries under this one."""
        told = ((TRACEPARENT, self.traceparent()),)
        return (*told, (TRACESTATE, self.state)) if self.state else told


class Incoming(NamedTuple):
    """A caller's context, and whether the caller keeps spans of this trace."""

    context: Context
    sampled: bool


def incoming(traceparent: str) -> Incoming | None:
    """None when it is not as the standard says: then it is as if there were none."""
    found = _FORM.fullmatch(traceparent)
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    context = Context(int(trace_id, 16), int(span_id, 16))
    if version == "ff" or (version == "00" and more) or not all((context.trace_id, context.span_id)):
        return None
    return Incoming(context, bool(int(flags, 16) & _SAMPLED))


def state_in(tracestate: str) -> str:
    """Its members as they came, in their order; "" where one is not as the standard says, a key comes twice, or all are
    more than 32 or longer than 512 characters."""
    if len(tracestate) > _MAX_STATE:
        return ""
    members = [member for one in tracestate.split(",") if (member := one.strip(" \t"))]
    keys = {member.partition("=")[0] for member in members}
    well = len(keys) == len(members) <= _MAX_MEMBERS and all(map(_MEMBER.fullmatch, members))
    return ",".join(members) if well else ""


Begin = Callable[[], Awaitable[bytes]]
Watch = Callable[[Call, Begin], Awaitable[bytes]]
"""Begins what answers one of the requests that come in one call, and sees how it ends."""


def unwatched(call: Call, begin: Begin) -> Awaitable[bytes]:
    del call
    return begin()


class Keeping(Protocol):
    """Takes spans that have ended. `now_ns`: Unix time."""

    def now_ns(self) -> int: ...

    def keep(self, span: Span) -> None: ...


class Span:
    """Ends once; what is said of it later is lost. `failure`: the name of a code, "" while all is well. `links`: spans
    of other traces that this one worked for, too. Used from the event loop alone until it has ended."""

    __slots__ = (
        "_keeping",
        "attributes",
        "began_ns",
        "context",
        "ended_ns",
        "failure",
        "kind",
        "links",
        "name",
        "parent",
    )

    def __init__(
        self, keeping: Keeping, name: str, kind: Kind, parent: Context | None, links: Sequence[Context] = ()
    ) -> None:
        """Without a parent a trace begins."""
        self._keeping = keeping
        self.name = name
        self.kind = kind
        self.parent = parent
        trace_id, state = (secrets.randbits(128) or 1, "") if parent is None else (parent.trace_id, parent.state)
        self.context = Context(trace_id, secrets.randbits(64) or 1, state)
        self.links = list(links)
        self.attributes: dict[str, Attribute] = {}
        self.failure = ""
        self.began_ns = keeping.now_ns()
        self.ended_ns = 0

    @property
    def ended(self) -> bool:
        return self.ended_ns > 0

    def child(self, name: str, kind: Kind = Kind.INTERNAL, links: Sequence[Context] = ()) -> Span:
        """A step of this one that begins now."""
        return Span(self._keeping, name, kind, self.context, links)

    def end(self, failure: str = "") -> None:
        if not self.ended:
            self.failure, self.ended_ns = failure or self.failure, self._keeping.now_ns()
            self._keeping.keep(self)

    @contextmanager
    def step(self, name: str) -> Iterator[Span]:
        """A child for as long as this takes. One that raises failed by the name of the error's class."""
        one = self.child(name)
        try:
            yield one
        except BaseException as error:
            one.end(type(error).__name__)
            raise
        one.end()


HERE: ContextVar[Span | None] = ContextVar("HERE", default=None)
"""Under which span what runs now belongs; None: of no call that is traced."""


@contextmanager
def within(span: Span | None) -> Iterator[None]:
    token = HERE.set(span)
    try:
        yield
    finally:
        HERE.reset(token)
