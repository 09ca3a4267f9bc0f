"""Statistics over seeds: bootstrap intervals, rank correlations, the boundary's distance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr

from vaekit.report.cells import rank_correlation

RESAMPLES = 2_000
LEVEL = 95.0
Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A mean over seeds and its bootstrap interval; the ends are NaN with fewer than two seeds."""

    mean: Array
    low: Array
    high: Array


def interval(values: npt.ArrayLike) -> Interval:
    """Percentile bootstrap of the mean over the last axis, the seeds.

    Whole seeds are resampled, the same ones in every cell, which keeps pairs together. Seeds that
    are NaN (diverged) are left out of their cell. With two or three seeds the interval is hardly
    more than their range: it says how little is known, and covers less than its name promises.

    Args:
        values: [..., seeds].

    Returns:
        mean, low and high, [...].

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", chapter 13.
    """
    values = np.asarray(values, dtype=np.float64)
    seeds = values.shape[-1]
    centre = _mean(values)
    if seeds < 2:
        return Interval(centre, np.full_like(centre, np.nan), np.full_like(centre, np.nan))
    picks = np.random.default_rng(0).integers(seeds, size=(RESAMPLES, seeds))
    counts = (picks[:, :, None] == np.arange(seeds)).sum(1).astype(float)
    known = np.isfinite(values)
    total, weight = np.where(known, values, 0.0) @ counts.T, known @ counts.T
    means = np.where(weight > 0, total / np.maximum(weight, 1.0), np.nan)
    few = known.sum(-1) < 2
    tail = (100.0 - LEVEL) / 2
    blank = np.where(weight > 0, means, centre[..., None])
    low, high = np.percentile(blank, [tail, 100.0 - tail], axis=-1)
    return Interval(centre, np.where(few, np.nan, low), np.where(few, np.nan, high))


def _mean(values: Array) -> Array:
    known = np.isfinite(values)
    total = np.where(known, values, 0.0).sum(-1)
    return np.where(known.any(-1), total / np.maximum(known.sum(-1), 1), np.nan)


def agreement(first: Array, second: Array) -> float:
    """Spearman's rank correlation of what is finite in both.

    0 if one is constant; NaN if there are fewer than two values to compare.
    """
    known = np.isfinite(first) & np.isfinite(second)
    if known.sum() < 2:
        return float("nan")
    found = rank_correlation(first[known], second[known])
    return found if np.isfinite(found) else 0.0


def trend(plane: Array, along: Array, axis: int) -> float:
    """Mean over the lines of a plane [mu, beta] of the rank correlation with a coordinate.

    Lines with fewer than two values are left out; NaN if all are.

    Args:
        plane: [mu, beta].
        along: the coordinate of the axis.
        axis: 0 for mu, 1 for beta.
    """
    lines = plane.T if axis == 0 else plane
    return float(_mean(np.array([agreement(line, along) for line in lines])))


def boundary_steps(dataset: xr.Dataset) -> Array:
    """How many beta steps above critical_beta each column collapses, [mu, seed].

    The measured boundary is the first beta from which on no unit is active; theory's is the first
    beta not below critical_beta. 0 is agreement, negative is collapse too early; NaN where a model
    of the column diverged, or theory's boundary lies off the grid. Where the measured one does, the
    steps are a bound: see `bounded`.
    """
    units = dataset["active_units"].transpose("mu", "seed", "beta").values
    gone = (dataset["status"] == "diverged").any("beta").transpose("mu", "seed").values
    dead = np.cumprod((units == 0)[..., ::-1], axis=-1).sum(-1)
    critical = dataset["critical_beta"].values[:, None]
    beta = dataset["beta"].values
    expected = (beta[None, None, :] < critical[..., None]).sum(-1)
    steps = (units.shape[-1] - dead) - expected
    seen = (critical >= beta[0]) & (critical <= beta[-1])
    return np.where(gone | ~seen, np.nan, steps)


def bounded(dataset: xr.Dataset) -> npt.NDArray[np.bool_]:
    """Columns of which `boundary_steps` is a bound that does not decide, bool [mu, seed].

    Where every beta collapsed, or the largest did not, the boundary is off the grid and at least as
    far from critical_beta as is counted: a bound within one step says neither that it lies within
    one nor that it does not.
    """
    return off_the_grid(dataset) & (np.abs(boundary_steps(dataset)) <= 1)


def off_the_grid(dataset: xr.Dataset) -> npt.NDArray[np.bool_]:
    """Whether a column has no boundary within the grid of beta, bool [mu, seed]."""
    dead = (dataset["active_units"] == 0).transpose("mu", "seed", "beta").values
    return dead.all(-1) | ~dead[..., -1]
