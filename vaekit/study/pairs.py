"""What each choice of training changes: differences between arms, paired by seed, mu and beta."""

from __future__ import annotations

import numpy as np
import xarray as xr

from vaekit.study.claims import Score, planes, readings
from vaekit.study.section import spell
from vaekit.study.statistics import Interval, interval

# A choice: place in an arm's name, what it is, and what it is compared with.
CHOICES = (
    (0, "warmup", "fixed", "Warming β up instead of fixing it"),
    (1, "sample", "analytic", "A one-sample KL instead of the analytic one"),
    (2, "0.5", "0.25", "A decoder variance of 0.5 instead of 0.25"),
    (2, "1", "0.25", "A decoder variance of 1 instead of 0.25"),
)
MEASURES: dict[str, Score] = {
    "active units": lambda d: d["active_units"],
    "recovery R²": lambda d: d["recovery_r2"],
    "decode MSE (exact probe)": lambda d: d["decode_mse"].sel(fit="exact"),
}


def pairs_in_words(arms: dict[str, xr.Dataset]) -> list[str]:
    """Say what each choice changes, all else being equal.

    Args:
        arms: name -> dataset, sorted by mu and beta.
    """
    shown = readings(arms)
    sentences = []
    for place, chosen, other, words in CHOICES:
        pairs = [
            (dataset, shown[twin])
            for name, dataset in shown.items()
            if (twin := _twin(name, place, chosen, other)) in shown
        ]
        if not pairs:
            continue
        changes = ", ".join(
            f"{measure} by {spell(paired_change(pairs, score), sign=True)}"
            for measure, score in MEASURES.items()
        )
        many = "one pair of arms" if len(pairs) == 1 else f"{len(pairs)} pairs of arms"
        sentences.append(
            f"{words} changes {changes} (mean over all cells of {many}, collapsed ones included)."
        )
    return sentences


def paired_change(pairs: list[tuple[xr.Dataset, xr.Dataset]], score: Score) -> Interval:
    """Mean over cells and pairs of the difference, first minus second, over seeds.

    A cell where either model diverged is left out. The two share a seed's noise and weights, so
    what a seed does to both cancels.
    """
    gaps = np.array(
        [
            [a - b for a, b in zip(planes(first, score), planes(second, score), strict=True)]
            for first, second in pairs
        ]
    )
    by_seed = np.moveaxis(gaps, 1, 0).reshape(gaps.shape[1], -1)
    known = np.isfinite(by_seed)
    total = np.where(known, by_seed, 0.0).sum(1)
    return interval(np.where(known.any(1), total / np.maximum(known.sum(1), 1), np.nan))


def _twin(name: str, place: int, chosen: str, other: str) -> str | None:
    """The arm that differs from this one in that choice alone."""
    parts = name.split("-")
    if len(parts) != 3 or parts[place] != chosen:
        return None
    parts[place] = other
    return "-".join(parts)
