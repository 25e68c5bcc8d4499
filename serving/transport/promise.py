"""A result that comes later, told at once to who listens."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")

logger = logging.getLogger(__name__)


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

    @classmethod
    def of(cls, future: asyncio.Future[T]) -> Promise[T]:
        """What a future or a task comes to, which is cancelled with the promise."""
        promise = cls()

        def left(_: Promise[T]) -> None:
            if promise.cancelled():
                future.cancel()

        def ended(_: asyncio.Future[T]) -> None:
            if future.cancelled():
                promise.cancel()
            elif (error := future.exception()) is not None:
                promise.set_exception(error)
            else:
                promise.set_result(future.result())

        promise.add_done_callback(left)
        future.add_done_callback(ended)
        return promise

    def done(self) -> bool:
        return self._done

    def cancelled(self) -> bool:
        return isinstance(self._error, asyncio.CancelledError)

    def result(self) -> T:
        """Raises the error, CancelledError when it was cancelled, InvalidStateError when it is not there yet."""
        if not self._done:
            raise asyncio.InvalidStateError("the result is not there yet")
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]

    def exception(self) -> BaseException | None:
        """Raises as `result` when there is neither."""
        if not self._done or self.cancelled():
            self.result()
        return self._error

    def set_result(self, value: T) -> None:
        if not self._done:
            self._value = value
            self._end()

    def set_exception(self, error: BaseException) -> None:
        if not self._done:
            self._error = self._translate(error)
            self._end()

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
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            self._tell(listener)

    def _tell(self, listener: Callable[[Promise[T]], None]) -> None:
        try:
            listener(self)
        except Exception:
            logger.exception("a listener failed")

    def __await__(self) -> Generator[Any, None, T]:
        """Cancelling who waits cancels the promise."""
        if not self._done:
            woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.add_done_callback(lambda _: None if woken.done() else woken.set_result(None))
            try:
                yield from woken.__await__()
            except asyncio.CancelledError:
                self.cancel()
                raise
        return self.result()
