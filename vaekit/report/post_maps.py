"""Sentences on the post's two heat maps: what they show, and whom they flatter."""

from __future__ import annotations

import numpy as np
import xarray as xr

from vaekit.report.cells import all_seeds, count, extreme, mean, number, rank_correlation, where

# Fewer cells than this have no ranking to speak of.
FEW = 5
# How many of the best-scored cells are looked at: these, or a third of a small sweep.
BEST_SCORED = 10
# An R2 beyond this on a collapsed cell is worth a warning.
FLATTERY = 0.1
# A rank correlation below this is a ranking turned round; above its opposite, an agreement.
BACKWARDS = -0.5


def first_map(dataset: xr.Dataset) -> list[str]:
    """What the 3-epoch truth -> code probe says, and whom it flatters."""
    dead = all_seeds(dataset, "collapsed").values
    post = mean(dataset, dataset["probe_mse"].sel(direction="truth_to_code", fit="adam")).values
    if not np.isfinite(post).any():
        return []
    low = extreme(post, largest=False)
    state = "collapsed" if dead[low] else "not collapsed"
    sentences = [
        (
            f"The first map (MSE truth → code, 3 epochs) has its best value, {number(post[low])}, "
            f"at {where(dataset, low)}, which is {state}."
        )
    ]
    order = np.argsort(np.where(np.isfinite(post), post, np.inf), axis=None)
    ranked = order[: min(BEST_SCORED, -(-int(np.isfinite(post).sum()) // 3))]
    if dead.any():
        flattered = int(dead.ravel()[ranked].sum())
        sentences.append(f"Of the {count(len(ranked), 'cell')} scored best, {flattered} collapsed.")
    alive = np.isfinite(post) & ~dead
    if dead.any() and alive.any():
        exact = mean(
            dataset, dataset["probe_mse"].sel(direction="truth_to_code", fit="exact")
        ).values
        lower = post[dead].mean() < post[alive].mean()
        sentences.append(
            f"Over the collapsed cells it averages {number(post[dead].mean())}, over the others "
            f"{number(post[alive].mean())} (exactly fitted: {number(exact[dead].mean())} and "
            f"{number(exact[alive].mean())}): "
            + (
                "read as the post reads it, total failure counts as the better recovery."
                if lower
                else "here it does not favour them."
            )
        )
    sentences += _reverse(dataset, dead) + _reading(dataset, post)
    if alive.sum() >= FEW:
        recovery = mean(dataset, dataset["recovery_r2"]).values
        agreement = rank_correlation(-post[alive], recovery[alive])
        sentences.append(
            f"Among the cells that are alive its rank correlation with recovery R² is "
            f"{number(agreement)}, where 1 would be agreement"
            + (": it ranks even the living models backwards." if agreement < BACKWARDS else ".")
        )
    return sentences


def _reverse(dataset: xr.Dataset, dead: np.ndarray) -> list[str]:
    """Whether the exact probe code -> truth flatters collapsed cells as well."""
    fitted = dataset["probe_r2"].sel(direction="code_to_truth", fit="exact")
    scores = mean(dataset, fitted).values[dead]
    if not dead.any() or not scores.max() > FLATTERY:
        return []
    return [
        (
            f"Turned round and fitted exactly (code → truth) it still gives collapsed cells R² up "
            f"to {number(scores.max())} on the clean grid, because least squares blows up what "
            "little varies in their code; with inactive latents left out they score 0."
        )
    ]


def _reading(dataset: xr.Dataset, post: np.ndarray) -> list[str]:
    """Which direction of the 3-epoch probe fits the post's own description of its map."""
    turned = dataset["probe_mse"].sel(direction="code_to_truth", fit="adam")
    reverse, recovery = mean(dataset, turned).values, mean(dataset, dataset["recovery_r2"]).values
    known = np.isfinite(post) & np.isfinite(reverse) & np.isfinite(recovery)
    if known.sum() < FEW:
        return []
    worded = rank_correlation(-post[known], recovery[known])
    other = rank_correlation(-reverse[known], recovery[known])
    if worded < 0 and other > -BACKWARDS:
        return [
            (
                "The post describes its map as best at low β and low μ. The probe turned round, "
                f"code → truth with 3 epochs, fits that (rank correlation with recovery R² over "
                f"all cells {number(other)}); as worded, truth → code, it does not "
                f"({number(worded)})."
            )
        ]
    return []


def second_map(dataset: xr.Dataset) -> list[str]:
    """What the decode MSE says: collapse gives the mean image, and the probe adds its own error."""
    dead = all_seeds(dataset, "collapsed").values
    adam = mean(dataset, dataset["decode_mse"].sel(fit="adam")).values
    exact = mean(dataset, dataset["decode_mse"].sel(fit="exact")).values
    alive = np.isfinite(adam) & ~dead
    constant = np.broadcast_to(dataset["decode_mse_constant"].values[:, None], dead.shape)
    sentences = []
    if dead.any():
        near = np.abs(exact[dead] / constant[dead] - 1) < 0.05
        sentences.append(
            f"In the second map (decode MSE) {int(near.sum())} of {int(dead.sum())} collapsed "
            f"cells lie within 5 % of what the training distribution's mean image scores, "
            f"{number(constant[dead].min())} to {number(constant[dead].max())}."
        )
    if alive.any():
        sentences.append(
            f"Over the cells that are alive the 3-epoch probe gives {number(adam[alive].min())} to "
            f"{number(adam[alive].max())} and the exact probe {number(exact[alive].min())} to "
            f"{number(exact[alive].max())}; the median ratio of the two is "
            f"{number(float(np.median(adam[alive] / exact[alive])))}."
        )
    sentences += _opposite(dataset, dead, alive, exact)
    return sentences


def _opposite(
    dataset: xr.Dataset, dead: np.ndarray, alive: np.ndarray, decode: np.ndarray
) -> list[str]:
    """Whether collapse moves the two maps in opposite directions, compared within each mu."""
    post = mean(dataset, dataset["probe_mse"].sel(direction="truth_to_code", fit="adam")).values
    both = dead.any(axis=1) & alive.any(axis=1)
    if not both.any():
        return []
    change = [
        np.mean([m[i, dead[i]].mean() - m[i, alive[i]].mean() for i in np.flatnonzero(both)])
        for m in (post, decode)
    ]
    text = (
        f"At the same μ, collapse changes the first map's MSE by {number(change[0])} and the exact "
        f"decode MSE by {number(change[1])} on average"
    )
    if change[0] < 0 < change[1]:
        return [
            (
                f"{text}: opposite directions, which would explain the inverse relationship that "
                "puzzled the post."
            )
        ]
    return [
        (
            f"{text}: not opposite directions, so collapse does not explain the inverse "
            "relationship that puzzled the post."
        )
    ]
