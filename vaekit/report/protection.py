"""Sentences on the post's question, whether beta protects recovery against biased data."""

from __future__ import annotations

import numpy as np
import xarray as xr

from vaekit.figures.style import plain, spans
from vaekit.report.cells import best_beta, mean, number, runs

# A difference in R2 below this counts as none: cells differ by about as much from seed to seed.
TOLERANCE = 0.02
# Half of less than this is nothing to keep.
WORTH_KEEPING = 0.1


def verdict(dataset: xr.Dataset) -> str:
    """Answer in one sentence whether a larger beta protects recovery against biased data."""
    place, value = best_beta(dataset)
    base = unbiased(dataset)
    mu, beta = dataset["mu"].values, dataset["beta"].values
    if not np.nan_to_num(value).max() > TOLERANCE:
        return "Nothing was recovered at any μ, so this sweep cannot say whether β protects."
    biased = np.abs(mu) > abs(mu[base])
    others = [i for i in np.flatnonzero(biased) if place[i] >= 0]
    if place[base] < 0 or not biased.any() or len(beta) == 1:
        return (
            "This sweep cannot say whether β protects: that takes recovery at the least biased μ, "
            "a more biased μ, and more than one β."
        )
    if not others:
        return (
            f"No β protects against biased data here: at μ = {spans(mu, biased)} nothing is "
            f"recovered with any of them."
        )
    recovery = mean(dataset, dataset["recovery_r2"]).values
    start = place[base]
    gain = {i: value[i] - np.nan_to_num(recovery[i, start]) for i in others}
    larger = [i for i in others if place[i] > start and gain[i] > TOLERANCE]
    smaller = [i for i in others if place[i] < start and gain[i] > TOLERANCE]
    reference = f"β = {plain(beta[start])}, which is best at μ = {plain(mu[base])}"
    names = [spans(mu, np.isin(range(len(mu)), chosen)) for chosen in (larger, smaller)]
    most = max((gain[i] for i in larger), default=0.0)
    if 2 * len(larger) > len(others):
        return (
            f"A larger β does help on biased data here: at {len(larger)} of the {len(others)} "
            f"larger μ ({names[0]}) a β above {reference}, recovers more, by up to "
            f"{number(most)} R²."
        )
    if larger:
        return (
            f"A larger β hardly protects against biased data here: a β above {reference}, recovers "
            f"more at {len(larger)} of the {len(others)} larger μ ({names[0]}), by up to "
            f"{number(most)} R², and not at the others."
        )
    if smaller:
        return (
            f"A larger β does not protect against biased data here: at μ = {names[1]} a "
            f"β below {reference}, recovers more, by up to "
            f"{number(max(gain[i] for i in smaller))} R², and at no μ does a larger one."
        )
    return (
        f"A larger β does not protect against biased data here: at no larger μ does any β recover "
        f"more than {TOLERANCE} R² above {reference}."
    )


def protection(dataset: xr.Dataset) -> list[str]:
    """The best beta of every mu, and how far each beta's recovery carries."""
    place, value = best_beta(dataset)
    mu, beta = dataset["mu"].values, dataset["beta"].values
    if len(mu) == 1 or len(beta) == 1 or not (place >= 0).any():
        return []
    best = []
    for start, stop in runs(place):
        span = f"μ = {plain(mu[start])}" + (f" to {plain(mu[stop])}" if stop > start else "")
        low, high = np.nanmin(value[start : stop + 1]), np.nanmax(value[start : stop + 1])
        reached = number(high) if low == high else f"{number(high)} to {number(low)}"
        best.append(f"β = {plain(beta[place[start]])} at {span} (R² {reached})")
    sentences = [f"The best β by recovery is {'; '.join(best)}."]
    if (place < 0).any():
        sentences.append(f"At μ = {spans(mu, place < 0)} no β recovers anything.")
    base = unbiased(dataset)
    recovery = np.nan_to_num(mean(dataset, dataset["recovery_r2"]).values)
    reach = {
        k: float(mu[recovery[:, k] >= recovery[base, k] / 2].max())
        for k in range(len(beta))
        if recovery[base, k] > WORTH_KEEPING
    }
    if reach and max(reach.values()) == mu[base]:
        sentences.append(f"No β keeps half of its recovery beyond μ = {plain(mu[base])}.")
    elif reach:
        parts = [f"β = {plain(beta[k])} up to μ = {plain(far)}" for k, far in reach.items()]
        sentences.append(
            f"Half of its recovery at μ = {plain(mu[base])} is kept by {', '.join(parts)}."
        )
    return sentences


def unbiased(dataset: xr.Dataset) -> int:
    """Place of the mu nearest to 0, the least biased data."""
    return int(np.abs(dataset["mu"].values).argmin())
