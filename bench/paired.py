"""Is one tree slower than another? Pairs of times, an interval, and the noise that it must exceed.

Every round times base, the same base again, and the new tree, each in a process of its own; the
order turns by one from round to round. A process is never timed twice in a row: the second time
would find its memory in cache, and an order that is reversed gives that gain to base and base again
in turns and never to the new tree. What base and base again differ by is noise (of the machine, and
of what memory a process happens to get), so a slowdown counts only when the whole interval lies
beyond twice that, and beyond 3 % in any case.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

SMALLEST = 0.03
DRAWS = 4000
BASE, AGAIN, NEW = "base", "base again", "new"
ORDER = (BASE, NEW, AGAIN)


@dataclass(frozen=True)
class Verdict:
    """What the pairs say of one benchmark.

    Attributes:
        ratio, low, high: time of new over base, median over rounds, and its 95 % interval.
        noise: |log ratio| of base again over base, at the far end of its 95 % interval.
        limit: the ratio that `low` must exceed for a regression.
    """

    ratio: float
    low: float
    high: float
    noise: float
    limit: float

    @property
    def word(self) -> str:
        """slower, faster, or no difference that the noise lets one see."""
        if self.low > self.limit:
            return "slower"
        return "faster" if self.high < 1 / self.limit else "no difference"


def measure(timers: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Time `BASE`, `AGAIN` and `NEW` once a round, in an order that turns by one every time."""
    samples: dict[str, list[float]] = {name: [] for name in ORDER}
    for number in range(rounds):
        turn = number % len(ORDER)
        for name in ORDER[turn:] + ORDER[:turn]:
            samples[name].append(timers[name]())
    return samples


def judge(samples: Mapping[str, list[float]]) -> Verdict:
    """Compare the rounds of two trees.

    Args:
        samples: seconds of every round, as `measure` returns them.

    Raises:
        ValueError: a time is not a positive number.
    """
    logs = {name: np.log(np.asarray(samples[name])) for name in ORDER}
    if not all(np.isfinite(values).all() for values in logs.values()):
        raise ValueError("samples: a time is not a positive number")
    mid, low, high = interval(logs[NEW] - logs[BASE])
    noise = noise_of(samples[BASE], samples[AGAIN])
    return Verdict(*np.exp([mid, low, high]).tolist(), noise=noise, limit=limit(noise))


def noise_of(base: list[float], again: list[float]) -> float:
    """Size of the log ratio of one thing timed twice, at the far end of its 95 % interval."""
    _, low, high = interval(np.log(again) - np.log(base))
    return max(abs(low), abs(high))


def limit(noise: float) -> float:
    """The ratio that a regression must exceed with its whole interval."""
    return 1 + max(SMALLEST, 2 * noise)


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Median of paired differences, with the 95 % interval of the bootstrap."""
    picks = np.random.default_rng(0).integers(len(values), size=(DRAWS, len(values)))
    low, high = np.quantile(np.median(values[picks], axis=1), [0.025, 0.975])
    return float(np.median(values)), float(low), float(high)
