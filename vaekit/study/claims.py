"""The post's claims as statistics with a sign, and the verdict on each under every reading.

A reading is an arm (how the models were trained) and a way to score them. Every claim is turned
into one number a seed that is positive if the claim holds; the verdict is whether the bootstrap
interval over seeds lies above 0, below 0, or on it. A rank correlation next to nothing is open
too, and so is what a map says in which next to no model lives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Self

import numpy as np
import xarray as xr

from vaekit.study.statistics import Array, Interval, agreement, interval, trend

POST_BASELINE = 0.1121
POST_RUNS = 3
# Controls are no reading of the post: it trained, with one noise variance and the sigmoid.
CONTROLS = ("matched", "linear", "untrained")
# Fewer living cells than this a seed have no ranking to speak of.
FEW = 5
# A rank correlation nearer to 0 than this is none, however well its sign is known.
NOTHING = 0.1
# Statistics are rounded to so many places: ranks that cancel leave a residue with a sign.
PLACES = 9

Score = Callable[[xr.Dataset], xr.DataArray]


def _probe(direction: str, fit: str) -> Score:
    return lambda d: d["probe_mse"].sel(direction=direction, fit=fit)


def _decode(fit: str) -> Score:
    return lambda d: d["decode_mse"].sel(fit=fit)


# Errors: small is said to be good.
FIRST_MAP: dict[str, Score] = {
    "truth → code, 3 epochs, grid": _probe("truth_to_code", "adam"),
    "truth → code, exact, grid": _probe("truth_to_code", "exact"),
    "code → truth, 3 epochs, grid": _probe("code_to_truth", "adam"),
    "code → truth, exact, grid": _probe("code_to_truth", "exact"),
    "code → truth, exact, noisy draws": lambda d: 1.0 - d["recovery_r2"],
}
SECOND_MAP: dict[str, Score] = {"3 epochs": _decode("adam"), "exact": _decode("exact")}
LOSSES: dict[str, Score] = {
    "training loss": lambda d: d["loss_curve"].isel(step=-1),
    "negative ELBO": lambda d: -d["elbo"],
}


@dataclass(frozen=True)
class Verdict:
    """A claim under one reading: its statistic, positive if it holds, with the interval.

    Attributes:
        claim, arm, score: what is judged.
        value, low, high: the statistic's mean over seeds and its interval.
        living, collapsed: models of the arm, over mu, beta and seed; None where none was trained.
        few: whether so few live that the score shows what collapse scores and no more.
    """

    claim: str
    arm: str
    score: str
    value: float
    low: float
    high: float
    living: int | None = None
    collapsed: int | None = None
    few: bool = False

    @classmethod
    def of(cls, claim: str, arm: str, score: str, found: Interval) -> Self:
        """Make a verdict of a statistic's interval."""
        # Adding 0.0 turns -0.0 into 0.0.
        value, low, high = (
            round(float(end), PLACES) + 0.0 for end in (found.mean, found.low, found.high)
        )
        return cls(claim, arm, score, value, low, high)

    @property
    def word(self) -> str:
        """Holds, reversed, open (the interval touches 0), or why nothing is concluded."""
        if not np.isfinite([self.low, self.high]).all():
            return "one seed"
        if self.few:
            return "too few living"
        return "holds" if self.low > 0 else "reversed" if self.high < 0 else "open"


class Correlation(Verdict):
    """A rank correlation: open where it is next to nothing."""

    @property
    def word(self) -> str:
        """As of any verdict, but for a correlation nearer to 0 than `NOTHING`."""
        word = super().word
        return "open" if word in ("holds", "reversed") and abs(self.value) < NOTHING else word


BASELINE = "untrained networks score 0.1121"
CLAIMS = (
    BASELINE,
    "loss rises with mu",
    "loss rises with beta",
    "recovery is best at low mu and low beta",
    "level sets are diagonal",
    "the decoder's map runs the other way",
)


def readings(arms: dict[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """Leave the controls out."""
    return {name: d for name, d in arms.items() if name.split("-")[0] not in CONTROLS}


def verdicts(arms: dict[str, xr.Dataset]) -> list[Verdict]:
    """Judge every claim under every reading.

    Args:
        arms: name -> dataset, sorted by mu and beta.
    """
    found = list(_baseline(arms["untrained"])) if "untrained" in arms else []
    arms = readings(arms)
    for name, dataset in arms.items():
        found += _of_arm(name, dataset)
    return sorted(found, key=lambda verdict: CLAIMS.index(verdict.claim))


def _of_arm(arm: str, dataset: xr.Dataset) -> Iterator[Verdict]:
    mu, beta = dataset["mu"].values, dataset["beta"].values
    living, collapsed = (int((dataset["status"] == kind).sum()) for kind in ("ok", "collapsed"))
    few = living < FEW * dataset.sizes["seed"]

    def counted(verdict: Verdict, *, few: bool = few) -> Verdict:
        return replace(verdict, living=living, collapsed=collapsed, few=few)

    def rank(claim: str, score: str, statistic: list[float]) -> Verdict:
        return Correlation.of(claim, arm, score, interval(np.array(statistic)))

    # A loss is a loss, whether or not its model lives; a map of recovery is of living models.
    for score, values in LOSSES.items():
        seeds = planes(dataset, values)
        if len(mu) > 1:
            yield counted(rank(CLAIMS[1], score, [trend(p, mu, 0) for p in seeds]), few=False)
        if len(beta) > 1:
            yield counted(rank(CLAIMS[2], score, [trend(p, beta, 1) for p in seeds]), few=False)
    if len(mu) < 2 or len(beta) < 2:
        return
    for score, values in FIRST_MAP.items():
        seeds = planes(dataset, values)
        gain = interval(np.array([low_corner_gain(plane) for plane in seeds]))
        yield counted(Verdict.of(CLAIMS[3], arm, score, gain))
        yield counted(rank(CLAIMS[4], score, [diagonality(p, mu, beta) for p in seeds]))
        for decoded, second in SECOND_MAP.items():
            pairs = zip(seeds, planes(dataset, second), strict=True)
            opposite = [-agreement(a.ravel(), b.ravel()) for a, b in pairs]
            yield counted(rank(CLAIMS[5], f"{score}; decoder {decoded}", opposite))
    for decoded, second in SECOND_MAP.items():
        seeds = planes(dataset, second)
        level_sets = [diagonality(plane, mu, beta) for plane in seeds]
        yield counted(rank(CLAIMS[4], f"decoder, {decoded}", level_sets))


def planes(dataset: xr.Dataset, values: Score) -> list[Array]:
    """Return the plane [mu, beta] of every seed; what diverged is NaN."""
    kept = values(dataset).where(dataset["status"] != "diverged")
    return list(kept.transpose("seed", "mu", "beta").values.astype(float))


def diagonality(plane: Array, mu: Array, beta: Array) -> float:
    """The weaker of the trends along mu and beta; below 0 if they have opposite signs.

    A map that falls along both axes has diagonal level sets as much as one that rises along both:
    which of the two it is, is the claim on the low corner.

    Args:
        plane: [mu, beta].
        mu: the coordinate of axis 0.
        beta: the coordinate of axis 1.
    """
    along_mu, along_beta = trend(plane, mu, 0), trend(plane, beta, 1)
    return float(np.sign(along_mu * along_beta) * min(abs(along_mu), abs(along_beta)))


def low_corner_gain(plane: Array) -> float:
    """Mean error outside the lower half of both axes minus that inside it, relative to the whole.

    Args:
        plane: errors [mu, beta], in increasing order.
    """
    inside = np.zeros(plane.shape, dtype=bool)
    inside[: (plane.shape[0] + 1) // 2, : (plane.shape[1] + 1) // 2] = True
    known = np.isfinite(plane)
    if not (known & inside).any() or not (known & ~inside).any():
        return float("nan")
    gain = plane[known & ~inside].mean() - plane[known & inside].mean()
    return float(gain / max(np.abs(plane[known]).mean(), 1e-300))


def _baseline(dataset: xr.Dataset) -> Iterator[Verdict]:
    """Distance from 0.1121 to the range of averages over three untrained networks.

    The statistic is the average; the claim holds if 0.1121 lies between the least and the largest
    average that three of the networks have, which is what the post averaged over.
    """
    scores = dataset["baseline_probe_mse"]
    for direction in scores["direction"].values:
        for fit in scores["fit"].values:
            values = scores.sel(direction=direction, fit=fit).values
            runs = min(POST_RUNS, len(values))
            if not runs:
                continue
            groups = [values[list(pick)].mean() for pick in combinations(range(len(values)), runs)]
            yield BaselineVerdict(
                BASELINE,
                "all",
                f"{str(direction).replace('_to_', ' → ')}, "
                f"{'3 epochs' if fit == 'adam' else 'exact'}",
                float(values.mean()),
                float(min(groups)),
                float(max(groups)),
            )


class BaselineVerdict(Verdict):
    """The claim of a value: it holds if the value lies in the range."""

    @property
    def word(self) -> str:
        """Holds or fails; with fewer than four networks there is one average and no range."""
        if self.low == self.high:
            return "one average"
        return "holds" if self.low <= POST_BASELINE <= self.high else "fails"
