"""What mu costs with the sigmoid, at a matched signal-to-noise ratio, and on the linear grid."""

from __future__ import annotations

import numpy as np
import xarray as xr

from vaekit.report.cells import number
from vaekit.results import settings
from vaekit.study.arms import REFERENCE
from vaekit.study.claims import FEW
from vaekit.study.section import spell
from vaekit.study.statistics import Array, interval
from vaekit.theory import grid_measures

# A change of R2 smaller than this is not called one.
SMALL = 0.02
# What the oracle of the linear grid takes from the configuration.
ORACLE = ("decoder_variance", "latents", "grid", "tile", "noise_variance", "code")


def bias_in_words(arms: dict[str, xr.Dataset]) -> list[str]:
    """Say how much of the fall of recovery with mu comes back with the signal-to-noise ratio."""
    sentences = []
    if REFERENCE in arms:
        for name, dataset in arms.items():
            if name.startswith("matched-mu-"):
                sentences += _matched(arms[REFERENCE], dataset)
    if "linear" in arms and arms["linear"].sizes["mu"] > 1:
        sentences += _linear(arms["linear"])
    return sentences


def _matched(base: xr.Dataset, control: xr.Dataset) -> list[str]:
    """The fall from the least mu to the control's, as it is and with the signal put back."""
    first, mu = float(base["mu"].values[0]), float(control["mu"].values[0])
    if mu not in base["mu"].values:
        return []
    start, plain, matched = together(living(base, first), living(base, mu), living(control, mu))
    lives = int(np.isfinite(start).sum())
    opening = f"From μ = {first:g} to μ = {mu:g}"
    which = f"{lives} of {start.size} pairs of β and seed"
    if lives < FEW:
        words = f"{opening} all three models compared live in {which}: inconclusive, of so few."
    else:
        falls = [seed_means(start - end) for end in (plain, matched)]
        words = (
            f"{opening} recovery R² falls by {spell(interval(falls[0]))}; with the signal-to-noise "
            f"ratio of μ = {first:g} kept, by {spell(interval(falls[1]))} (mean over the {which} "
            f"in which all three models live). {_conclusion(*falls)}"
        )
    return [words + _early(control)]


def _linear(dataset: xr.Dataset) -> list[str]:
    """What a shift alone costs, beside the exact optimum, which it costs nothing."""
    low, high = (float(dataset["mu"].values[end]) for end in (0, -1))
    start, end = together(living(dataset, low), living(dataset, high))
    change = interval(seed_means(start - end))
    lives = int(np.isfinite(start).sum())
    if not lives:
        return []
    words = (
        f"On the linear grid, where μ shifts the images and squeezes nothing, R² falls by "
        f"{spell(change)} from μ = {low:g} to μ = {high:g} (mean over the {lives} of {start.size} "
        "pairs of β and seed that live at both): "
    )
    if lives < FEW or not np.isfinite(change.low):
        words += "inconclusive, of so few."
    elif abs(float(change.mean)) < SMALL:
        words += "a shift alone costs next to nothing."
    else:
        words += (
            "here the shift alone does change what training reaches, though not the optimum, which "
            "does not depend on μ."
        )
    exact = optimum_r2(dataset)
    if exact is not None:
        best = float(exact.broadcast_like(start).where(np.isfinite(start)).mean())
        reached = [
            f"{number(float(values.mean()))}{_untrained(dataset, mu)} at μ = {mu:g}"
            for values, mu in ((start, low), (end, high))
        ]
        words += (
            f" On the same pairs the exact optimum has an R² of {number(best)} at every μ, the "
            f"trained models {' and '.join(reached)}"
            + (
                ": what they lack of the optimum, training and the probe's finite draws lost."
                if best - float(end.mean()) >= SMALL
                else "."
            )
        )
    return [words + _early(dataset)]


def _untrained(dataset: xr.Dataset, mu: float) -> str:
    """What networks have before training, without which nobody sees what training adds."""
    if "baseline_recovery_r2" not in dataset or not dataset.sizes["baseline_seed"]:
        return ""
    level = float(dataset["baseline_recovery_r2"].sel(mu=mu).mean())
    return f" (untrained: {number(level)})"


def living(dataset: xr.Dataset, mu: float) -> xr.DataArray:
    """Recovery R2 at a mu, [seed, beta]; NaN where the model collapsed or diverged."""
    kept = dataset["recovery_r2"].where(dataset["status"] == "ok")
    return kept.sel(mu=mu, drop=True).transpose("seed", "beta").astype(float)


def together(*parts: xr.DataArray) -> list[xr.DataArray]:
    """Blank every pair of seed and beta that is not known in all parts, so that they are paired."""
    aligned = xr.align(*parts, join="inner")
    shared = np.isfinite(sum(aligned))
    return [part.where(shared) for part in aligned]


def seed_means(values: xr.DataArray) -> Array:
    """Mean over beta of every seed, [seed]; NaN where none is known."""
    return values.mean("beta").values


def optimum_r2(dataset: xr.Dataset) -> xr.DataArray | None:
    """Recovery R2 of the exact optimum on the linear grid, [beta]; None if it is not unique."""
    config = settings(dataset)
    if config["latents"] < config["grid"] ** 2:
        return None
    return xr.DataArray(
        [
            grid_measures(
                0.0,
                config["test_levels"],
                beta=beta,
                **{name: config[name] for name in ORACLE},
            ).recovery_r2
            if beta > 0
            else np.nan
            for beta in dataset["beta"].values.tolist()
        ],
        coords={"beta": dataset["beta"]},
    )


def _conclusion(plain: Array, matched: Array) -> str:
    """The share of the fall that a restored signal-to-noise ratio takes away, over seeds."""
    fall, left = interval(plain), float(np.nanmean(matched))
    if not np.isfinite(fall.low):
        return "With one seed nothing is concluded from it."
    if fall.mean < SMALL:
        return "There is no fall to explain."
    # A seed without a fall has no share of it.
    kept = np.where(plain > SMALL, matched / np.maximum(plain, SMALL), np.nan)
    share = interval(np.clip(1.0 - kept, 0.0, 1.0))
    rest = (
        "."
        if left < SMALL
        else "; what is left is the shift, the sigmoid's flat end, or training that is not done, "
        "which this control does not part: of those it is inconclusive."
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
