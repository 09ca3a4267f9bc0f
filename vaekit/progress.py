"""How long work tells a person where it stands: live bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Protocol, Self, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress as Bars,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class Progress(Protocol):
    """What long work reports to."""

    def stage(self, name: str, total: int, unit: str) -> None:
        """Begin a stage of `total` units of work; it ends when the next one begins."""

    def advance(self, amount: int) -> None:
        """Count units of the stage as done."""

    def note(self, text: str) -> None:
        """Say something once."""


class Silent:
    """Says nothing."""

    def stage(self, name: str, total: int, unit: str) -> None:
        """Begin a stage."""

    def advance(self, amount: int) -> None:
        """Count work."""

    def note(self, text: str) -> None:
        """Say something."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass
