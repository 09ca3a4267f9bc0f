"""Ctrl-C and SIGTERM: leave soon, but not in the middle of what must be finished first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Put back the handlers of both signals, in case what is called in the block takes them."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


class Interrupted(BaseException):
    """The process was asked to leave. Not an Exception: nothing may swallow it."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(signal.Signals(number).name)


class Interrupts:
    """Whether the process was asked to leave, and whether it may do so at once."""

    def __init__(self) -> None:
        self.asked: int | None = None
        self.deferred = False

    def _handle(self, number: int, _: FrameType | None) -> None:
        again = self.asked is not None
        self.asked = number
        # Who asks twice does not want to wait.
        if again or not self.deferred:
            raise Interrupted(number)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take both signals over; outside of the main thread, where nobody can, do nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def defer(self) -> Iterator[None]:
        """Only remember what is asked; the block looks at `asked` where it can leave.

        Raises:
            Interrupted: the process was asked to leave; at the end of a block that ends well.
        """
        self.deferred = True
        try:
            yield
        finally:
            self.deferred = False
        self.leave_if_asked()

    def leave_if_asked(self) -> None:
        """Raise Interrupted if the process was asked to leave."""
        if self.asked is not None:
            raise Interrupted(self.asked)
