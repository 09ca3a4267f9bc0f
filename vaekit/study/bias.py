"""What mu costs with the sigmoid, at a matched signal-to-noise ratio, and on the linear grid."""

from __future__ import annotations

import numpy as np
import xarray as xr

from vaekit.study.arms import REFERENCE
from vaekit.study.claims import planes
from vaekit.study.section import spell
from vaekit.study.statistics import Array, interval

# A change of R2 smaller than this is not called one.
SMALL = 0.02


def bias_in_words(arms: dict[str, xr.Dataset]) -> list[str]:
    """Say how much of the fall of recovery with mu comes back with the signal-to-noise ratio."""
    sentences = []
    if REFERENCE in arms:
        for name, dataset in arms.items():
            if not name.startswith("matched-mu-"):
                continue
            mu = float(dataset["mu"].values[0])
            plain = recovery_loss(arms[REFERENCE], arms[REFERENCE], mu)
            matched = recovery_loss(arms[REFERENCE], dataset, mu)
            if not (np.isfinite(plain).any() and np.isfinite(matched).any()):
                continue
            sentences.append(
                f"From μ = 0 to μ = {mu:g} recovery R² falls by {spell(interval(plain))} (mean "
                "over β, paired by seed and cell); with the signal-to-noise ratio of μ = 0 kept, "
                f"by {spell(interval(matched))}. {_conclusion(plain, matched)}{_early(dataset)}"
            )
    if "linear" in arms and arms["linear"].sizes["mu"] > 1:
        dataset = arms["linear"]
        mu = float(dataset["mu"].values[-1])
        change = interval(recovery_loss(dataset, dataset, mu))
        if np.isfinite(change.mean):
            none = abs(float(change.mean)) < SMALL
            sentences.append(
                f"On the linear grid, where μ shifts the images and squeezes nothing, R² falls by "
                f"{spell(change)} from μ = {float(dataset['mu'].values[0]):g} to μ = {mu:g}: "
                + (
                    "a shift alone costs next to nothing."
                    if none
                    else "here the shift alone does change what training reaches, though not the "
                    "optimum, which does not depend on μ."
                )
                + _early(dataset)
            )
    return sentences


def recovery_loss(first: xr.Dataset, second: xr.Dataset, mu: float) -> Array:
    """Recovery R2 at the least mu of one dataset minus that at `mu` of another, mean over beta.

    Paired by seed and beta.

    Returns:
        [seed]; NaN where there is no such cell.
    """
    if mu not in second["mu"].values:
        return np.full(second.sizes["seed"], np.nan)
    start = planes(first.isel(mu=[0]), lambda d: d["recovery_r2"])
    end = planes(second.sel(mu=[mu]), lambda d: d["recovery_r2"])
    gaps = np.array([a - b for a, b in zip(start, end, strict=True)])[:, 0]
    known = np.isfinite(gaps)
    mean = np.where(known, gaps, 0).sum(1) / np.maximum(known.sum(1), 1)
    return np.where(known.any(1), mean, np.nan)


def _conclusion(plain: Array, matched: Array) -> str:
    """The share of the fall that a restored signal-to-noise ratio takes away, over seeds."""
    fall, left = float(np.nanmean(plain)), float(np.nanmean(matched))
    if fall < SMALL:
        return "There is no fall to explain."
    # A seed without a fall has no share of it.
    kept = np.where(plain > SMALL, matched / np.maximum(plain, SMALL), np.nan)
    share = interval(np.clip(1.0 - kept, 0.0, 1.0))
    rest = (
        "."
        if left < SMALL
        else "; what is left is the shift, the sigmoid's flat end, or training that is not done, "
        "which this control does not part."
    )
    return f"So {spell(share, scale=100)} % of the fall goes away with the lost signal put back" + (
        rest
    )


def _early(dataset: xr.Dataset) -> str:
    """Count the models that collapsed where the collapsed state is unstable: training's doing."""
    below = (dataset["beta"] < dataset["critical_beta"]) & (dataset["status"] != "diverged")
    died = int((below & (dataset["status"] == "collapsed")).sum())
    return (
        f" Of the {int(below.sum())} models of that control with β below critical β {died} "
        "collapsed, which the objective does not ask for: what they lose is training's."
        if died
        else ""
    )
