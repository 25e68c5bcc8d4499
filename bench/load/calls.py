"""gRPC calls of a plan, over a pool of connections."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from bench.load.generator import Send
from bench.load.plan import Plan
from bench.load.results import OK, WRONG_REPLY
from serving.transport import Channel, ChannelCredentials, ChannelOptions, Metadata, RpcError, channel

Check = Callable[[bytes, bytes], bool]

_SPREAD_MS = 997


class Pool:
    """Channels, used in turn. Make it on the running loop."""

    def __init__(self, plan: Plan, connections: int) -> None:
        credentials = ChannelCredentials(Path(plan.authority)) if plan.authority else None
        options = ChannelOptions(credentials=credentials)
        self._channels = [channel(plan.transport, plan.target, options) for _ in range(connections)]

    def pick(self, number: int) -> Channel:
        return self._channels[number % len(self._channels)]

    async def close(self) -> None:
        for member in self._channels:
            await member.close()


class Caller:
    """What the calls of a plan carry and what they must bring back. Raises PlanError."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._body = _bodies(plan)
        self._right = _check(plan)
        self._timeout = _timeouts(plan)

    def over(self, pool: Pool, index: int, of: int) -> Send:
        """For the `index`-th of `of` processes: its n-th call is call `n * of + index` of the whole run."""
        body, right, timeout = self._body, self._right, self._timeout
        method, traced = self._plan.method, self._plan.traceparent

        async def send(turn: int) -> str:
            number = turn * of + index
            request = body(number)
            metadata = _trace() if traced else ()
            try:
                reply = await pool.pick(turn).unary(method, request, timeout(number), metadata)
            except RpcError as error:
                return error.code.name
            return OK if right is None or right(request, reply) else WRONG_REPLY

        return send


def _bodies(plan: Plan) -> Callable[[int], bytes]:
    if plan.make_body is not None:
        return plan.make_body.make()
    bodies = plan.bodies
    return lambda number: bodies[number % len(bodies)]


def _check(plan: Plan) -> Check | None:
    if plan.make_check is not None:
        return plan.make_check.make()
    return bytes.__eq__ if plan.echo else None


def _timeouts(plan: Plan) -> Callable[[int], float | None]:
    deadline_s = plan.deadline_s
    if deadline_s is None or not plan.spread_deadlines:
        return lambda number: deadline_s
    return lambda number: deadline_s + number % _SPREAD_MS / 1000


def _trace() -> Metadata:
    return (("traceparent", f"00-{os.urandom(16).hex()}-{os.urandom(8).hex()}-01"),)
