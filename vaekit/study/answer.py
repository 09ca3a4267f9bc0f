"""The answer in plain words. A sentence is written only if the arms it speaks of are there."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import xarray as xr

from vaekit.report.cells import number
from vaekit.report.post_maps import FLATTERY
from vaekit.study.bias import bias_in_words
from vaekit.study.boundary import boundary_in_words, boundary_table
from vaekit.study.claims import CLAIMS, Verdict, readings, verdicts
from vaekit.study.inverse import inverse_in_words, inverse_table
from vaekit.study.pairs import pairs_in_words
from vaekit.study.second_map import second_map_in_words, second_map_table
from vaekit.study.section import Section

# What a verdict that is none is called among the counts.
SILENT = {
    "one seed": "without an interval (one seed)",
    "one average": "without a range (too few networks)",
    "too few living": "open for too few living models",
}


def answer(arms: dict[str, xr.Dataset]) -> list[Section]:
    """Say what a study found, under headings.

    Args:
        arms: name -> dataset, sorted by mu and beta.
    """
    found = [
        Section("The post's claims", _claims(arms)),
        Section("Why the two maps run opposite ways", inverse_in_words(arms), inverse_table(arms)),
        Section("Where collapse lies", boundary_in_words(arms), boundary_table(arms)),
        Section(
            "What the second heat map shows", second_map_in_words(arms), second_map_table(arms)
        ),
        Section("Bias or signal-to-noise?", bias_in_words(arms)),
        Section("What each choice changes", pairs_in_words(arms)),
    ]
    return [section for section in found if section.sentences]


def _claims(arms: dict[str, xr.Dataset]) -> list[str]:
    judged = verdicts(arms)
    return claims_in_words(judged) + collapse_in_words(arms) + losses_in_words(arms)


def collapse_in_words(arms: dict[str, xr.Dataset]) -> list[str]:
    """Whom the exact probe code -> truth flatters: it blows up what little varies in a code."""
    scores = [
        dataset["probe_r2"]
        .sel(direction="code_to_truth", fit="exact")
        .where(dataset["status"] == "collapsed")
        for dataset in readings(arms).values()
    ]
    dead = np.concatenate([score.values.ravel() for score in scores] or [np.empty(0)])
    dead = dead[np.isfinite(dead)]
    flattered = dead[dead > FLATTERY]
    if not flattered.size:
        return []
    return [
        (
            f"A collapsed model is no recovery, but the exact probe code → truth on the clean grid "
            f"gives {flattered.size} of {dead.size} collapsed models an R² above {FLATTERY} (up to "
            f"{number(float(dead.max()))}), because least squares blows up what little varies in "
            "their code; so the verdicts on that score are not on living models alone."
        )
    ]


def claims_in_words(judged: list[Verdict]) -> list[str]:
    """Count for every claim the readings under which it holds."""
    sentences = []
    for claim in CLAIMS:
        of_claim = [verdict for verdict in judged if verdict.claim == claim]
        if not of_claim:
            continue
        words = [verdict.word for verdict in of_claim]
        opening = f"“{claim[0].upper()}{claim[1:]}”"
        if len(set(words)) == 1:
            word = SILENT.get(words[0], words[0])
            sentences.append(f"{opening}: {word} in all {len(words)} readings.")
            continue
        counts = ", ".join(
            f"{SILENT.get(word, word)} in {words.count(word)}" for word in dict.fromkeys(words)
        )
        scores = dict.fromkeys(verdict.score for verdict in of_claim)
        always = [s for s in scores if _always(of_claim, s, "holds")]
        never = [s for s in scores if _always(of_claim, s, "reversed", "fails")]
        enough = ", where enough models live" if any(v.few for v in of_claim) else ""
        parts = [f"; always with {_listed(always, scores)}{enough}"] if always else []
        parts += [f"; never with {_listed(never, scores)}{enough}"] if never else []
        sentences.append(f"{opening}: of {len(words)} readings: {counts}{''.join(parts)}.")
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
    of_score = [verdict.word for verdict in judged if verdict.score == score and not verdict.few]
    return bool(of_score) and all(word in words for word in of_score)


def losses_in_words(arms: dict[str, xr.Dataset]) -> list[str]:
    """Why a loss may move with mu and beta whatever a model learns."""
    shown = readings(arms)
    sentences = []
    for name, dataset in shown.items():
        # The same betas and seeds at both ends of mu, collapsed at both.
        dead = (dataset["status"] == "collapsed").isel(mu=[0, -1]).all("mu")
        if dataset.sizes["mu"] < 2 or not dead.any():
            continue
        first, last = (
            float(dataset["distortion"].isel(mu=end).where(dead).mean()) for end in (0, -1)
        )
        low, high = (f"{float(dataset['mu'][end]):g}" for end in (0, -1))
        falls = last < first
        sentences.append(
            f"{name}: models that collapsed, which draw nearly one image whatever they see, have a "
            f"distortion of {number(first)} nats at μ = {low} and {number(last)} at μ = {high} "
            f"(the same β and seeds): the loss {'falls' if falls else 'rises'} with μ even where "
            f"nothing is learned, because the images vary {'less' if falls else 'more'}."
        )
        break
    if any(dataset.sizes["beta"] > 1 for dataset in shown.values()):
        sentences.append(
            "The training loss contains β times the KL, so that it rises with β is in part its "
            "definition; the negative ELBO weighs the KL by 1 at every β."
        )
    return sentences
