"""Signals: obeyed at once, or as soon as what must be finished first is."""

from __future__ import annotations

import signal

import pytest

from vaekit.interrupt import SIGNALS, Interrupted, Interrupts


def asked(number: signal.Signals, times: int, done: list[str], *, fails: bool = False) -> None:
    """Be asked to leave in the middle of what is deferred, which then goes on, or fails."""
    interrupts = Interrupts()
    with interrupts.listening():
        with interrupts.defer():
            for _ in range(times):
                signal.raise_signal(number)
                done.append("within")
            if fails:
                raise KeyError
        done.append("after")


@pytest.mark.parametrize("number", SIGNALS)
def test_what_is_asked_while_it_is_deferred_is_done_at_the_end(number: signal.Signals) -> None:
    done: list[str] = []
    with pytest.raises(Interrupted, match=number.name):
        asked(number, 1, done)
    assert done == ["within"]


def test_a_failure_of_what_is_deferred_comes_before_a_signal() -> None:
    with pytest.raises(KeyError):
        asked(signal.SIGTERM, 1, [], fails=True)


def test_who_asks_twice_does_not_wait() -> None:
    done: list[str] = []
    with pytest.raises(Interrupted):
        asked(signal.SIGTERM, 2, done)
    assert done == ["within"]
