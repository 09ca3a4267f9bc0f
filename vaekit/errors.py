"""Failures that a caller may want to tell apart."""

from __future__ import annotations


class ResultsError(ValueError):
    """A file or an array that is not what the schema says: names the file and the variable."""

    def __init__(self, where: object, problem: str, variable: str | None = None) -> None:
        self.where = str(where)
        self.variable = variable
        self.problem = problem
        super().__init__(": ".join(part for part in (self.where, variable, problem) if part))


class RunError(RuntimeError):
    """A run that cannot go on; the message says why."""


class BusyError(RunError):
    """Another process works in the run directory."""


class DivergedError(RunError):
    """Models that are not finite, where that was to be a failure."""
