"""Is one tree slower than another? Ratios, their interval, and the noise that it must exceed.

Every round times base, the same base again, and the new tree, each in a process of its own; the
order turns by one from round to round. A process is never timed twice in a row: the second time
would find its memory in cache. What a round's times have in common, as the machine's speed changes
from one to the next, goes out of their ratios. Three processes are a set, and what memory they
happen to get moves all of their ratios together, the less the more they have in common (`fork`). So
a set counts as one value, the median over rounds of new over base, for either process that is the
same, and the mean of both. Sets of fresh processes are added until the interval of their
interquartile mean, which disturbed sets hardly move, is close: that takes longer where a machine is
noisy, and sees as much. Where it never is, nothing is said of a difference that was not seen. What
base and base again differ by, on that mean, is noise: a slowdown counts only when the whole
interval lies beyond twice that, and beyond 3 % in any case. How well that mean is known is no part
of it: the interval of the new tree is as wide, and already lies beyond the limit whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, t, trim_mean

SMALLEST = 0.03
DRAWS = 4000
BASE, AGAIN, NEW = "base", "base again", "new"
ORDER = (BASE, NEW, AGAIN)
# Sets of fresh processes, at least and at most; more are added until no interval of a log ratio
# reaches farther from its middle than CLOSE: a slowdown of 5 % then lies well beyond SMALLEST.
FEWEST, SETS, CLOSE = 6, 36, 0.008
# Of a set; in them every process has every place 8 times. Many short ones: the machine's speed
# changes by half within less than a second. As many as this, as a set's processes take 2 s to
# start: 12 sets scattered by 1.4, 0.9, 0.7, 0.3 and 0.3 % with 9, 12, 18, 24 and 36 rounds of 20 ms
# (two threads of an AMD EPYC).
ROUNDS = 24
# Seconds of each process's rounds, by set.
Times = list[list[float]]


@dataclass(frozen=True)
class Verdict:
    """What the sets say of one benchmark.

    Attributes:
        ratio, low, high: time of new over base, the interquartile mean over sets of its logarithm,
            and the 95 % interval of that.
        noise: |log ratio| of base again over base, the same mean of the sets.
        limit: the ratio that `low` must exceed for a regression.
        close: whether the ratio is known well enough to say that there is no difference, even if
            the interval touches the limit.
    """

    ratio: float
    low: float
    high: float
    noise: float
    limit: float
    close: bool = True

    @property
    def word(self) -> str:
        """What is said of it: one of `WORDS`."""
        if self.low > self.limit:
            return "slower"
        if self.high < 1 / self.limit:
            return "faster"
        inside = 1 / self.limit <= self.low and self.high <= self.limit
        return "no difference" if self.close or inside else "not known"


WORDS = ("slower", "no difference", "faster", "not known")


def measure(
    timers: Mapping[str, Callable[[], float]], order: Sequence[str] = ORDER
) -> dict[str, list[float]]:
    """Time everything once a round, for the rounds of a set, in an order that turns by one."""
    samples: dict[str, list[float]] = {name: [] for name in order}
    for number in range(ROUNDS):
        turn = number % len(order)
        for name in (*order[turn:], *order[:turn]):
            samples[name].append(timers[name]())
    return samples


def judge(samples: Mapping[str, Times]) -> Verdict:
    """Compare the sets of two trees.

    Args:
        samples: seconds of every round of every set, by tree.

    Raises:
        ValueError: a time is not a positive number.
    """
    mid, low, high = interval(of_sets(samples[NEW], samples[BASE], samples[AGAIN]))
    noise = noise_of(samples[BASE], samples[AGAIN])
    close = max(high - mid, mid - low) <= CLOSE
    return Verdict(*np.exp([mid, low, high]).tolist(), noise=noise, limit=limit(noise), close=close)


def is_close(samples: Mapping[str, Times]) -> bool:
    """Whether there are sets enough, and the ratio of two trees is known; arguments as `judge`."""
    return len(samples[NEW]) >= FEWEST and judge(samples).close


def of_sets(over: Times, *under: Times) -> np.ndarray:
    """Log ratio of each set: the median over rounds of one to another, the mean over the others.

    A ratio to the mean of two would not be 0 where all are alike, as times are skew.

    Raises:
        ValueError: a time is not a positive number.
    """
    if not all(0 < value < np.inf for times in (over, *under) for one in times for value in one):
        raise ValueError("samples: a time is not a positive number")
    ratios = [
        [np.median(np.log(one) - np.log(other)) for one, other in zip(over, others, strict=True)]
        for others in under
    ]
    return np.mean(ratios, axis=0)


def noise_of(base: Times, again: Times) -> float:
    """Size of the log ratio of one thing timed twice, the interquartile mean of the sets."""
    return abs(float(middle(of_sets(again, base))))


def limit(noise: float) -> float:
    """The ratio that a regression must exceed with its whole interval."""
    return 1 + max(SMALLEST, 2 * noise)


def middle(values: np.ndarray) -> np.ndarray:
    """Interquartile mean along the last axis."""
    return np.asarray(trim_mean(values, 0.25, axis=-1))


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Middle of the sets' values, with the 95 % interval of the bootstrap.

    That of few values is too narrow, as they know their own spread badly: it is widened by what
    Student's t adds to the normal distribution.
    """
    count, mid = len(values), float(middle(values))
    picks = np.random.default_rng(0).integers(count, size=(DRAWS, count))
    low, high = np.quantile(middle(values[picks]), [0.025, 0.975]) - mid
    wider = 1.0
    if count > 1:
        wider = float(t.ppf(0.975, count - 1) / norm.ppf(0.975) * (count / (count - 1)) ** 0.5)
    return mid, mid + wider * float(low), mid + wider * float(high)
