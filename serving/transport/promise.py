"""A result that comes later, told at once to who listens."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from contextvars import copy_context
from threading import get_ident
from types import CoroutineType, TracebackType
from typing import Any, Generic, TypeVar

T = TypeVar("T")

logger = logging.getLogger(__name__)

_stepping: set[int] = set()
"""Threads in which a coroutine runs that is no task."""


def _same(error: BaseException) -> BaseException:
    return error


class Promise(Generic[T]):
    """As an `asyncio.Future`, with two differences. Who listens is told in the same turn of the event loop: a thousand
    replies of one turn cost no further turn, and a fifth of the time. And what comes after the first result, error or
    cancellation is ignored, since whoever awaited it has gone. For one thread."""

    __slots__ = ("_done", "_error", "_listeners", "_translate", "_value")

    def __init__(self) -> None:
        self._done = False
        self._value: T | None = None
        self._error: BaseException | None = None
        self._listeners: list[Callable[[Promise[T]], None]] = []
        self._translate: Callable[[BaseException], BaseException] = _same

    @staticmethod
    def of(awaited: Awaitable[T]) -> Promise[T]:
        """What it comes to; it is cancelled with the promise. A coroutine begins at once, and goes on in the turn in
        which there is what it waits for: a promise or a future. It is no task: nothing in it may ask for the current
        one, as `asyncio.timeout` does."""
        if isinstance(awaited, Promise):
            return awaited
        return _Steps(awaited if isinstance(awaited, CoroutineType) else _awaiting(awaited))

    def done(self) -> bool:
        return self._done

    def cancelled(self) -> bool:
        return self._error is not None and isinstance(self._error, asyncio.CancelledError)

    def result(self) -> T:
        """Raises the error, CancelledError when it was cancelled, InvalidStateError when it is not there yet."""
        error = self._error
        if error is None:
            if not self._done:
                raise asyncio.InvalidStateError("the result is not there yet")
            return self._value  # type: ignore[return-value]
        if isinstance(error, asyncio.CancelledError):
            raise asyncio.CancelledError  # a new one: frames that it passes hold the promise
        try:
            raise error
        finally:
            del self, error  # the error holds this frame

    def exception(self) -> BaseException | None:
        """Raises as `result` when there is neither."""
        error = self._error
        if error is None and self._done:
            return None
        if not self._done or isinstance(error, asyncio.CancelledError):
            self.result()
        return error

    def set_result(self, value: T) -> None:
        if not self._done:
            self._value = value
            self._end()

    def set_exception(self, error: BaseException) -> None:
        if not self._done:
            self._error = self._translate(error)
            self._end()

    def follow(self, other: Promise[T]) -> None:
        """End as another that is done."""
        if other.cancelled():
            self.cancel()
        elif (error := other.exception()) is None:
            self.set_result(other.result())
        else:
            self.set_exception(error)

    def cancel(self) -> bool:
        """Whether it was not done before."""
        if self._done:
            return False
        self._error = asyncio.CancelledError()
        self._end()
        return True

    def add_done_callback(self, listener: Callable[[Promise[T]], None]) -> None:
        """In the order in which they came; at once when it is done. What a listener raises goes to the log."""
        if self._done:
            self._tell(listener)
        else:
            self._listeners.append(listener)

    def translate(self, to: Callable[[BaseException], BaseException]) -> None:
        """Listeners that come later, and those here unless it is done, see errors as what `to` makes of them."""
        before = self._translate
        self._translate = to if before is _same else lambda error: to(before(error))
        if self._error is not None and not self.cancelled():
            self._error = to(self._error)

    def _end(self) -> None:
        self._done = True
        listeners = self._listeners
        if listeners:
            self._listeners = []
            for listener in listeners:
                self._tell(listener)

    def _tell(self, listener: Callable[[Promise[T]], None]) -> None:
        try:
            listener(self)
        except Exception:
            logger.exception("a listener failed")

    def __await__(self) -> Generator[Any, None, T]:
        """Cancelling who waits cancels the promise."""
        return _awaited([self])

    async def told(self) -> None:
        """Returns when it is done, for tasks: they are woken by futures."""
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.add_done_callback(lambda _: None if woken.done() else woken.set_result(None))
        try:
            await woken
        except asyncio.CancelledError:
            self.cancel()
            raise


class _Steps(Promise[T]):
    """A coroutine, step by step."""

    __slots__ = ("_awaited", "_context", "_coroutine", "_must_cancel")

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        super().__init__()
        self._coroutine = coroutine
        self._context = copy_context()
        self._awaited: Any = None
        self._must_cancel = False
        self._step()

    def cancel(self) -> bool:
        if self._done:
            return False
        if self._awaited is None or not self._awaited.cancel():
            self._must_cancel = True
        return True

    def _step(self, _: object = None) -> None:
        """Run until it waits or ends."""
        self._awaited = None
        thread = get_ident()
        is_outermost = thread not in _stepping
        _stepping.add(thread)
        try:
            try:
                if self._must_cancel:
                    self._must_cancel = False
                    awaited = self._context.run(self._coroutine.throw, asyncio.CancelledError())
                else:
                    awaited = self._context.run(self._coroutine.send, None)
            finally:
                if is_outermost:
                    _stepping.remove(thread)
        except StopIteration as end:
            self.set_result(end.value)
        except asyncio.CancelledError:
            super().cancel()
        except Exception as error:  # noqa: BLE001 - whoever listens is told
            error.__traceback__ = _elsewhere(error.__traceback__)
            self.set_exception(error)
        except BaseException as error:
            self.set_exception(error)
            raise
        else:
            self._wait_for(awaited)

    def _wait_for(self, awaited: Any) -> None:
        if awaited is None:
            asyncio.get_running_loop().call_soon(self._step)
            return
        self._awaited = awaited
        if not isinstance(awaited, Promise):
            awaited._asyncio_future_blocking = False  # noqa: SLF001 - how a future is told that it is waited for
        awaited.add_done_callback(self._step)
        if self._must_cancel:
            self._must_cancel = False
            self.cancel()


def _awaited(held: list[Promise[T]]) -> Generator[Any, None, T]:
    """Of the one that is held, until it raises: the error holds this frame."""
    if not held[0].done():
        if get_ident() in _stepping:
            yield held[0]
        else:
            yield from held[0].told().__await__()
    return held.pop().result()


async def _awaiting(awaited: Awaitable[T]) -> T:
    return await awaited


def _elsewhere(trace: TracebackType | None) -> TracebackType | None:
    """Without the steps themselves, which hold the promise that is to hold the error."""
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return trace


def to_await(loop: asyncio.AbstractEventLoop) -> Promise[Any] | asyncio.Future[Any]:
    """What the coroutine that runs may await at the least cost, if nobody else does: a task a future."""
    return Promise() if get_ident() in _stepping else loop.create_future()


async def settled(promises: Sequence[Promise[Any]], timeout_s: float | None = None) -> bool:
    """Returns when all are done, however, or after so long; whether all are. Who waits and is cancelled leaves them
    alone."""
    loop, left = asyncio.get_running_loop(), len(promises)
    woken: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not woken.done():
            woken.set_result(None)

    def ended(_: object) -> None:
        nonlocal left
        left -= 1
        if not left:
            wake()

    for promise in promises:
        promise.add_done_callback(ended)
    timer = None if timeout_s is None else loop.call_later(timeout_s, wake)
    try:
        if left:
            await woken
    finally:
        if timer is not None:
            timer.cancel()
    return not left
