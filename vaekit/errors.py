"""Failures of a run that are nobody's mistake in use, and that a caller may want to tell apart."""

from __future__ import annotations


class RunError(RuntimeError):
    """A run that cannot go on; the message says why."""


class BusyError(RunError):
    """Another process works in the run directory."""


class DivergedError(RunError):
    """Models that are not finite, where that was to be a failure."""
