"""How long work tells a person where it stands: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.text import Text

PLAIN_SECONDS = 5.0


class Progress(Protocol):
    """What long work reports to; a `with` block around the work opens and closes the display."""

    def stage(self, name: str, total: int, unit: str) -> None:
        """Begin a stage of `total` units of work; it ends when the next one begins."""

    def advance(self, amount: int) -> None:
        """Count units of the stage as done."""

    def note(self, text: str) -> None:
        """Say something once."""

    def __enter__(self) -> Self:
        """Open the display."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the display."""


class Silent:
    """Says nothing."""

    def stage(self, name: str, total: int, unit: str) -> None:
        """Begin a stage."""

    def advance(self, amount: int) -> None:
        """Count work."""

    def note(self, text: str) -> None:
        """Say something."""

    def __enter__(self) -> Self:
        """Open nothing."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close nothing."""


class Plain:
    """Writes a line when a stage begins and ends, and at most every few seconds in between."""

    def __init__(
        self,
        stream: TextIO,
        *,
        seconds: float = PLAIN_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream, self._seconds, self._clock = stream, seconds, clock
        self._name, self._unit, self._total, self._done = "", "", 0, 0
        self._start = self._last = 0.0

    def stage(self, name: str, total: int, unit: str) -> None:
        """End the stage before, begin this one."""
        self._finish()
        self._name, self._unit, self._total, self._done = name, unit, total, 0
        self._start = self._last = self._clock()
        self.note(f"{name}: {total:,} {unit}")

    def advance(self, amount: int) -> None:
        """Count work; write a line if the last one is old enough."""
        self._done += amount
        now = self._clock()
        if now - self._last < self._seconds or self._done >= self._total:
            return
        self._last = now
        rate = self._done / max(now - self._start, 1e-9)
        left = _clock_time((self._total - self._done) / rate) if rate else "?"
        self.note(
            f"{self._name}: {self._done / self._total:.0%}, {self._done:,} of {self._total:,} "
            f"{self._unit}, {rate:,.0f} a second, {left} left"
        )

    def note(self, text: str) -> None:
        """Write a line."""
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def __enter__(self) -> Self:
        """Open nothing: lines need no display."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the last stage, unless an error did."""
        if kind is None:
            self._finish()

    def _finish(self) -> None:
        if self._name:
            self.note(f"{self._name}: done in {_clock_time(self._clock() - self._start)}")
            self._name = ""


class Live:
    """Draws one bar per stage with its unit, rate and time left, and notes above the bars."""

    def __init__(self, stream: TextIO) -> None:
        self._bars = Bars(
            SpinnerColumn(finished_text="*"),
            TextColumn("{task.description}"),
            BarColumn(),
            _Count(),
            _Rate(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=Console(file=stream),
        )
        self._task: Task | None = None

    def stage(self, name: str, total: int, unit: str) -> None:
        """Complete the bar before, add this one."""
        self._finish()
        number = self._bars.add_task(name, total=total, unit=unit)
        self._task = next(task for task in self._bars.tasks if task.id == number)

    def advance(self, amount: int) -> None:
        """Move the bar."""
        if self._task is not None:
            self._bars.advance(self._task.id, amount)

    def note(self, text: str) -> None:
        """Print a line above the bars."""
        self._bars.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> Self:
        """Begin to draw."""
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop drawing; the bars stay as they stand."""
        if kind is None:
            self._finish()
        self._bars.stop()

    def _finish(self) -> None:
        if self._task is not None:
            self._bars.update(self._task.id, completed=self._task.total)
            self._task = None


class _Count(ProgressColumn):
    """Done and total with the unit."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.completed:,.0f} / {task.total:,.0f} {task.fields['unit']}")


class _Rate(ProgressColumn):
    """Units a second: over the last half minute while running, over the whole stage at its end."""

    def render(self, task: Task) -> Text:
        rate = task.finished_speed or task.speed
        return Text("" if rate is None else f"{rate:,.0f}/s")


def progress_for(stream: TextIO) -> Progress:
    """Choose the display for a stream: `Live` on a terminal, `Plain` anywhere else."""
    return Live(stream) if stream.isatty() else Plain(stream)


def _clock_time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
