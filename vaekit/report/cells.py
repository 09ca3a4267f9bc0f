"""Cells of the (mu, beta) plane: averages over seeds, what collapsed, how numbers are written."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import xarray as xr

from vaekit.figures.style import converged, plain


def number(value: float) -> str:
    """Write a measured value with three significant digits at most."""
    if not np.isfinite(value):
        return "no number"
    if value and abs(value) < 0.00005:
        return "<0.0001" if value > 0 else ">−0.0001"
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    if abs(value) < 1:
        text = f"{value:.4f}" if abs(value) < 0.01 else f"{value:.3f}" if abs(value) < 0.1 else text
    return text.replace("-", "−") if float(text.replace(",", "")) else "0"


def mean(dataset: xr.Dataset, values: xr.DataArray) -> xr.DataArray:
    """Average over the seeds that did not diverge, [mu, beta]; NaN where all did."""
    return converged(dataset, values).mean("seed").transpose("mu", "beta", ...)


def all_seeds(dataset: xr.Dataset, status: str) -> xr.DataArray:
    """Cells in which every seed that did not diverge has a status (every seed, for diverged)."""
    same, gone = dataset["status"] == status, dataset["status"] == "diverged"
    found = (
        same.all("seed") if status == "diverged" else (same | gone).all("seed") & same.any("seed")
    )
    return found.transpose("mu", "beta")


def extreme(values: np.ndarray, *, largest: bool) -> tuple[int, int]:
    """Return the place of the largest or smallest finite value of a plane [mu, beta]."""
    flat = int(np.nanargmax(values)) if largest else int(np.nanargmin(values))
    return flat // values.shape[1], flat % values.shape[1]


def where(dataset: xr.Dataset, cell: tuple[int, ...]) -> str:
    """Name a cell, given its place on the plane."""
    mu, beta = dataset["mu"].values[cell[0]], dataset["beta"].values[cell[1]]
    return f"μ = {plain(mu)}, β = {plain(beta)}"


def count(many: int, word: str) -> str:
    """Write a count with its word in the right number."""
    return f"{many:,} {word}" if many == 1 else f"{many:,} {word}s"


def best_beta(dataset: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """For each mu, the place of the best beta by recovery and its R2; -1 where nothing is there."""
    recovery = mean(dataset, dataset["recovery_r2"]).values
    alive = np.isfinite(recovery) & ~all_seeds(dataset, "collapsed").values
    ranked = np.where(alive, recovery, -np.inf)
    place = np.where(alive.any(axis=1), ranked.argmax(axis=1), -1)
    value = np.where(place >= 0, np.max(ranked, axis=1, initial=-np.inf), np.nan)
    return place, value


def first_collapsed(dataset: xr.Dataset) -> np.ndarray:
    """For each mu, the smallest beta from which on every cell collapsed; NaN if there is none."""
    dead = all_seeds(dataset, "collapsed").values
    run = np.cumprod(dead[:, ::-1], axis=1).sum(axis=1)
    beta = dataset["beta"].values
    return np.array([beta[len(beta) - many] if many else np.nan for many in run])


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's rank correlation, ties at their average rank; NaN if one of them is constant."""
    frame = xr.Dataset({"a": ("i", first), "b": ("i", second)}).to_dataframe().rank()
    if frame["a"].nunique() < 2 or frame["b"].nunique() < 2:
        return float("nan")
    return float(np.corrcoef(frame["a"], frame["b"])[0, 1])


def runs(place: np.ndarray) -> list[tuple[int, int]]:
    """Stretches of equal values, as first and last index; those of -1 are left out."""
    edges = [0, *(np.flatnonzero(np.diff(place)) + 1).tolist(), len(place)]
    return [(a, b - 1) for a, b in pairwise(edges) if place[a] >= 0]
