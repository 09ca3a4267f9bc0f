"""How far every arm's boundary of collapse lies from critical_beta."""

from __future__ import annotations

import numpy as np
import xarray as xr

from vaekit.report.cells import number
from vaekit.study.arms import REFERENCE
from vaekit.study.claims import readings
from vaekit.study.section import Rows, spell
from vaekit.study.statistics import Array, Interval, boundary_steps, bounded, interval, off_the_grid

# The part of the mu axis that the sentence on the warm-up arm speaks of.
BOUNDARY_MU = (0.0, 1.0, 2.0, 3.0)
WANTED_SHARE = 0.9
SCHEDULES = {"fixed": "With β fixed from the first step", "warmup": "With β warmed up"}


def boundary_in_words(arms: dict[str, xr.Dataset]) -> list[str]:
    """The warm-up arm beside theory, and the range of the others by their schedule."""
    sentences = _expected(arms[REFERENCE]) if REFERENCE in arms else []
    distances = {name: _distance(dataset) for name, dataset in readings(arms).items()}
    for schedule, words in SCHEDULES.items():
        means = [
            float(found.mean)
            for name, found in distances.items()
            if name.split("-")[0] == schedule and np.isfinite(found.mean)
        ]
        if means:
            who = f"the {len(means)} readings collapse"
            who = "one reading collapses" if len(means) == 1 else who
            ends = dict.fromkeys((number(min(means)), number(max(means))))
            sentences.append(
                f"{words}, {who} {' to '.join(ends)} "
                "steps from critical β on average (below 0 is early)."
            )
    seen = {name: np.isfinite(boundary_steps(d)) for name, d in readings(arms).items()}
    beyond = sum(int((known & off_the_grid(arms[name])).sum()) for name, known in seen.items())
    open_ = sum(int((known & bounded(arms[name])).sum()) for name, known in seen.items())
    if beyond:
        many = sum(int(known.sum()) for known in seen.values())
        sentences.append(
            f"In {beyond} of {many} columns every β collapsed, or the largest did not: their "
            "boundary lies off the grid, at least as far from critical β as is counted."
            + (
                f" In {open_} of them that is a step or less, so whether they lie within one is "
                "not known, and no share counts them."
                if open_
                else ""
            )
        )
    return sentences


def _expected(dataset: xr.Dataset) -> list[str]:
    """How often the warm-up arm's boundary is where theory has it."""
    chosen = dataset.sel(mu=[mu for mu in BOUNDARY_MU if mu in dataset["mu"].values])
    steps = decided(chosen)
    known, unknown = np.isfinite(steps), int(bounded(chosen).sum())
    if not known.any():
        return []
    levels = ", ".join(f"{chosen['mu'].values[row]:g}" for row in np.unique(np.nonzero(known)[0]))
    share = within_a_step(chosen)
    manner = "meets" if share >= WANTED_SHARE else "falls short of"
    more = (
        f" In {unknown} more columns the boundary lies off the grid and may be nearer or farther."
        if unknown
        else ""
    )
    sentence = (
        f"In the warm-up arm ({REFERENCE}) at μ = {levels} the last active unit goes within one "
        f"step of the β grid of critical β in {int((np.abs(steps) <= 1).sum())} of "
        f"{int(known.sum())} columns of μ and seed ({number(100 * share)} %), which {manner} the "
        f"{100 * WANTED_SHARE:.0f} % that this study set out to find.{more} {_step_size(dataset)}"
    )
    return [sentence]


def boundary_table(arms: dict[str, xr.Dataset]) -> Rows:
    """A row for each reading; empty if none has a boundary that can be seen."""
    rows = []
    for name, dataset in readings(arms).items():
        if np.isfinite(boundary_steps(dataset)).any():
            rows.append(
                [
                    name,
                    spell(_distance(dataset)),
                    _percent(within_a_step(dataset)),
                    str(int(np.isfinite(decided(dataset)).sum())),
                    str(int(bounded(dataset).sum())),
                ]
            )
    head = ["arm", "steps from critical β, mean", "columns within one step, %", "columns"]
    head.append("columns off the grid, not counted")
    return [head, *rows] if rows else []


def within_a_step(dataset: xr.Dataset) -> float:
    """Share of the columns that lie within one step of critical_beta; NaN if that of none is known.

    Columns whose boundary lies off the grid, and may lie nearer or farther, are left out.
    """
    steps = decided(dataset)
    known = steps[np.isfinite(steps)]
    return float((np.abs(known) <= 1).mean()) if known.size else float("nan")


def decided(dataset: xr.Dataset) -> Array:
    """The steps from critical_beta where they say whether a column lies within one, else NaN."""
    return np.where(bounded(dataset), np.nan, boundary_steps(dataset))


def _percent(share: float) -> str:
    return number(100 * share) if np.isfinite(share) else "–"


def _distance(dataset: xr.Dataset) -> Interval:
    """Mean over mu of the steps from critical_beta, over seeds."""
    steps = boundary_steps(dataset)
    known = np.isfinite(steps)
    total = np.where(known, steps, 0.0).sum(0)
    return interval(np.where(known.any(0), total / np.maximum(known.sum(0), 1), np.nan))


def _step_size(dataset: xr.Dataset) -> str:
    """How coarse the grid of beta is: "within a step" is no finer than that."""
    beta = dataset["beta"].values
    ratios = beta[1:] / beta[:-1]
    ends = dict.fromkeys(f"{ratio:.3g}" for ratio in (ratios.min(), ratios.max()))
    return f"A step is a factor of {' to '.join(ends)} in β."
