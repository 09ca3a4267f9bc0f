"""The answer in plain words. A sentence is written only if the arms it speaks of are there."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import xarray as xr

from vaekit.report.cells import number
from vaekit.study.arms import REFERENCE
from vaekit.study.claims import CLAIMS, Verdict, planes, readings, verdicts
from vaekit.study.inverse import inverse_in_words
from vaekit.study.pairs import pairs_in_words
from vaekit.study.statistics import Interval, boundary_steps, interval

# The part of the mu axis that the sentence on the warm-up arm speaks of.
BOUNDARY_MU = (0.0, 1.0, 2.0, 3.0)
WANTED_SHARE = 0.9
# A change of R2 smaller than this is not called one.
SMALL = 0.02
# A collapsed model's decode MSE this close to the mean image's is that image's.
NEAR = 0.05

Section = tuple[str, list[str]]


def answer(arms: dict[str, xr.Dataset]) -> list[Section]:
    """Say what a study found, under headings.

    Args:
        arms: name -> dataset, sorted by mu and beta.
    """
    found = [
        ("The post's claims", claims_in_words(verdicts(arms))),
        ("Why the two maps run opposite ways", inverse_in_words(arms)),
        ("Where collapse lies", boundary_in_words(arms)),
        ("What the second heat map shows", probe_share_in_words(arms)),
        ("Bias or signal-to-noise?", bias_in_words(arms)),
        ("What each choice changes", pairs_in_words(arms)),
    ]
    return [(heading, sentences) for heading, sentences in found if sentences]


def claims_in_words(judged: list[Verdict]) -> list[str]:
    """Count for every claim the readings under which it holds."""
    sentences = []
    for claim in CLAIMS:
        of_claim = [verdict for verdict in judged if verdict.claim == claim]
        if not of_claim:
            continue
        words = [verdict.word for verdict in of_claim]
        counts = ", ".join(f"{word} in {words.count(word)}" for word in dict.fromkeys(words))
        sentence = f"“{claim[0].upper()}{claim[1:]}”: of {len(words)} readings: {counts}"
        scores = dict.fromkeys(verdict.score for verdict in of_claim)
        always = [s for s in scores if _always(of_claim, s, "holds")]
        never = [s for s in scores if _always(of_claim, s, "reversed", "fails")]
        parts = [f"; always with {_listed(always, scores)}"] if always else []
        parts += [f"; never with {_listed(never, scores)}"] if never else []
        sentences.append(sentence + "".join(parts) + ".")
    return sentences


def _listed(chosen: list[str], scores: Iterable[str]) -> str:
    """List scores; those of the first map whose every second map is chosen, by its name alone."""
    names: dict[str, None] = {}
    for score in chosen:
        first = score.split("; ")[0]
        whole = all(other in chosen for other in scores if other.split("; ")[0] == first)
        names[f"“{first if whole else score}”"] = None
    return ", ".join(names)


def _always(judged: list[Verdict], score: str, *words: str) -> bool:
    return all(verdict.word in words for verdict in judged if verdict.score == score)


def boundary_in_words(arms: dict[str, xr.Dataset]) -> list[str]:
    """How far every arm's boundary lies from critical_beta, the warm-up arm's first."""
    sentences = []
    if REFERENCE in arms:
        dataset = arms[REFERENCE]
        chosen = [mu for mu in BOUNDARY_MU if mu in dataset["mu"].values]
        steps = boundary_steps(dataset.sel(mu=chosen))
        known = np.isfinite(steps)
        if known.any():
            near = int((np.abs(steps[known]) <= 1).sum())
            share = near / known.sum()
            seen = ", ".join(
                f"{m:g}"
                for m, any_seed in zip(chosen, np.any(known, axis=1).tolist(), strict=True)
                if any_seed
            )
            sentences.append(
                f"In the warm-up arm ({REFERENCE}) at μ = {seen} "
                "the last active unit goes within one step of the β grid of critical β in "
                f"{near} of {int(known.sum())} columns of μ and seed ({number(100 * share)} %), "
                "which "
                + ("meets" if share >= WANTED_SHARE else "falls short of")
                + f" the {100 * WANTED_SHARE:.0f} % that were expected. {_step_size(dataset)}"
            )
    for name, dataset in readings(arms).items():
        steps = boundary_steps(dataset)
        if np.isfinite(steps).any():
            known = steps[np.isfinite(steps)]
            found = interval(np.nanmean(steps[np.isfinite(steps).any(1)], axis=0))
            sentences.append(
                f"{name}: {_signed(found, 'steps from critical β on average')}, "
                f"{number(100 * float((np.abs(known) <= 1).mean()))} % of the columns within one."
            )
    return sentences


def _step_size(dataset: xr.Dataset) -> str:
    """How coarse the grid of beta is: "within a step" is no finer than that."""
    beta = dataset["beta"].values
    ratios = beta[1:] / beta[:-1]
    ends = dict.fromkeys(f"{ratio:.3g}" for ratio in (ratios.min(), ratios.max()))
    return f"A step is a factor of {' to '.join(ends)} in β."


def probe_share_in_words(arms: dict[str, xr.Dataset]) -> list[str]:
    """How much of the decode MSE is the 3-epoch probe's own error, and how much is collapse."""
    sentences = []
    for name, dataset in readings(arms).items():
        share = probe_share(dataset)
        dead = dataset["status"] == "collapsed"
        level = dataset["decode_mse"].sel(fit="exact") / dataset["decode_mse_constant"]
        near = int((dead & (np.abs(level - 1) < NEAR)).sum())
        text = f"{name}: "
        if np.isfinite(share.mean):
            text += (
                f"of the decode MSE of living models {_with(share, 100)} % is the 3-epoch probe's "
                "own error (it goes away when the probe is fitted exactly); "
            )
        else:
            text += "no model lives; "
        sentences.append(
            text + f"{int(dead.sum())} of {dead.size} models collapsed, and {near} of those score "
            f"within {100 * NEAR:.0f} % of the training images' mean, the collapse's own share."
        )
    return sentences


def probe_share(dataset: xr.Dataset) -> Interval:
    """1 - sum(exact) / sum(3 epochs) of decode MSE over living cells, over seeds."""
    alive = dataset["status"] == "ok"
    total = dataset["decode_mse"].where(alive).sum(["mu", "beta"], min_count=1)
    share = 1.0 - total.sel(fit="exact") / total.sel(fit="adam")
    return interval(share.values)


def bias_in_words(arms: dict[str, xr.Dataset]) -> list[str]:
    """What mu costs with the sigmoid, at matched signal-to-noise ratio, and on the linear grid."""
    sentences = []
    if REFERENCE in arms:
        for name, dataset in arms.items():
            if not name.startswith("matched-mu-"):
                continue
            mu = float(dataset["mu"].values[0])
            plain = recovery_loss(arms[REFERENCE], arms[REFERENCE], mu)
            matched = recovery_loss(arms[REFERENCE], dataset, mu)
            if plain is None or matched is None:
                continue
            sentences.append(
                f"From μ = 0 to μ = {mu:g} recovery R² falls by {_with(plain)} (mean over β, "
                f"paired by seed and cell); with the signal-to-noise ratio of μ = 0 kept, by "
                f"{_with(matched)}. " + _conclusion(plain, matched) + _early(dataset)
            )
    if "linear" in arms and arms["linear"].sizes["mu"] > 1:
        dataset = arms["linear"]
        mu = float(dataset["mu"].values[-1])
        change = recovery_loss(dataset, dataset, mu)
        if change is not None:
            none = abs(float(change.mean)) < SMALL
            sentences.append(
                f"On the linear grid, where μ shifts the images and squeezes nothing, R² falls by "
                f"{_with(change)} from μ = {float(dataset['mu'].values[0]):g} to μ = {mu:g}: "
                + (
                    "a shift alone costs next to nothing."
                    if none
                    else "here the shift alone does change what training reaches, though not the "
                    "optimum, which does not depend on μ."
                )
            )
    return sentences


def recovery_loss(first: xr.Dataset, second: xr.Dataset, mu: float) -> Interval | None:
    """Recovery R2 at the least mu of one dataset minus that at `mu` of another, mean over beta.

    Paired by seed and beta; None if there is no such cell.
    """
    if mu not in second["mu"].values:
        return None
    start = planes(first.isel(mu=[0]), lambda d: d["recovery_r2"])
    end = planes(second.sel(mu=[mu]), lambda d: d["recovery_r2"])
    gaps = np.array([a - b for a, b in zip(start, end, strict=True)])[:, 0]
    known = np.isfinite(gaps)
    mean = np.where(known, gaps, 0).sum(1) / np.maximum(known.sum(1), 1)
    return interval(np.where(known.any(1), mean, np.nan))


def _conclusion(plain: Interval, matched: Interval) -> str:
    fall, left = float(plain.mean), float(matched.mean)
    if fall < SMALL:
        return "There is no fall to explain."
    share = 1.0 - left / fall
    if share >= 0.5:
        return f"So {number(100 * min(share, 1.0))} % of the fall is lost signal, not bias."
    return (
        f"So only {number(100 * max(share, 0.0))} % of the fall is lost signal; the rest "
        "is the shift, the sigmoid's flat end, or training that is not done."
    )


def _early(dataset: xr.Dataset) -> str:
    """Count the models that collapsed where the collapsed state is unstable: training's doing."""
    below = (dataset["beta"] < dataset["critical_beta"]) & (dataset["status"] != "diverged")
    died = int((below & (dataset["status"] == "collapsed")).sum())
    return (
        f" Of the {int(below.sum())} models of that control with β below critical β {died} "
        "collapsed, which the objective does not ask for: that part is training's."
        if died
        else ""
    )


def _with(found: Interval, scale: float = 1.0) -> str:
    text = number(scale * float(found.mean))
    if np.isfinite([found.low, found.high]).all():
        ends = (number(scale * float(end)) for end in (found.low, found.high))
        text += f" [{' to '.join(ends)}]"
    return text


def _signed(found: Interval, what: str) -> str:
    manner = "early" if found.mean < 0 else "late" if found.mean > 0 else "on the spot"
    return f"{_with(found)} {what} ({manner})"
