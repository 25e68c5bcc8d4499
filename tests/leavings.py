"""What calls leave in cycles, which only the interpreter's collector finds."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

CALLS = 15
"""Counted. A cycle of each call is as many objects or more."""
FEW = CALLS // 2
"""What clocks may bring meanwhile."""
_FIRST, _TURNS = 3, 20


async def leavings(call: Callable[[int], Awaitable[object]]) -> Counter[str]:
    """The kinds of objects that calls left, apart from the first ones, each with a number of its own. For modules that
    use the fixture `thawed`."""
    for number in range(_FIRST):
        await call(number)
    await _come_to_rest()
    gc.collect()
    gc.freeze()  # what is there is looked through no more
    gc.disable()
    try:
        for number in range(_FIRST, _FIRST + CALLS):
            await call(number)
        await _come_to_rest()
        with _kept() as left:
            gc.collect()
            return Counter(f"{type(one).__module__}.{type(one).__qualname__}" for one in left)
    finally:
        gc.enable()


async def _come_to_rest() -> None:
    """What the last call began at its other end, on this loop, is over."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)


@contextmanager
def _kept() -> Iterator[list[object]]:
    """What the collector finds inside the block, until its end."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield gc.garbage
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
