"""Why the post's two maps run opposite ways: the first one's error is in the code's own units.

A probe from truth to code that predicts the code's mean errs by the code's variance, which beta
takes away until a collapsed code has none, and no error. Divided by that variance the same error is
1 - R2. Below 0 an R2 counts as 0: of a code that hardly varies it would say how constant it is.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr

from vaekit.report.cells import number
from vaekit.study.claims import (
    FEW,
    FIRST_MAP,
    NOTHING,
    SECOND_MAP,
    Correlation,
    Score,
    Verdict,
    planes,
    readings,
)
from vaekit.study.section import Rows, spell
from vaekit.study.statistics import Interval, agreement, interval

POST = "fixed-sample-0.25"
# The post's first map, then what is to agree with its second one.
MAPS: dict[str, Score] = {
    "as it is": FIRST_MAP["truth → code, 3 epochs, grid"],
    "over the code's variance": lambda d: (
        1.0 - d["probe_r2"].sel(direction="truth_to_code", fit="adam").clip(min=0.0)
    ),
    "the other way": FIRST_MAP["code → truth, 3 epochs, grid"],
}
RAW, SCALED, TURNED = MAPS
SECOND = SECOND_MAP["3 epochs"]


def inverse_in_words(arms: dict[str, xr.Dataset]) -> list[str]:
    """Say where the inverse relation is, and what becomes of it when the code's size is taken out.

    Args:
        arms: name -> dataset, sorted by mu and beta.
    """
    shown = _with_a_plane(arms)
    if not shown:
        return []
    name = POST if POST in shown else next(iter(shown))
    as_it_is, over, turned = (_spell(with_the_decoder(shown[name], label)) for label in MAPS)
    variance = _with_variance(shown[name])
    sentences = [
        *_collapse(name, shown[name]),
        (
            f"{name}: over all cells the first map (truth → code, 3 epochs) and the second have a "
            f"rank correlation of {as_it_is}; with the first map's error divided by the code's "
            f"variance (1 − R²) of {over}; with the probe turned round (code → truth) of {turned}. "
            "The first map's error has a rank correlation of "
            f"{spell(variance)} with the variance of the code that it predicts: above 0 it is "
            "small where the code is small."
        ),
    ]
    every = {label: _words(shown, label) for label in MAPS}
    if "one seed" in every[RAW]:
        return [*sentences, "With one seed there is no interval, so nothing is concluded from it."]
    many = "one reading" if len(shown) == 1 else f"the {len(shown)} readings"
    same = [words.count("holds") for words in every.values()]
    sentences.append(
        f"Over {many} of training the two maps run opposite ways in "
        f"{every[RAW].count('reversed')} with the error as it is, in "
        f"{every[SCALED].count('reversed')} with it divided by the code's variance, in "
        f"{every[TURNED].count('reversed')} with the probe turned round; the same way in "
        f"{same[0]}, {same[1]} and {same[2]}; the others are open, or nearer to 0 than {NOTHING}."
    )
    alive = _words(shown, RAW, alive_only=True)
    if alive:
        opposite = alive.count("reversed")
        sentences.append(
            f"Among living models alone, the error as it is, the maps run opposite ways in "
            f"{opposite} of the {len(alive)} readings that have at least {FEW} of them a seed"
            + (
                ": what makes the inverse relation is not collapse alone."
                if opposite > len(alive) / 2
                else "."
            )
        )
    return [*sentences, _conclusion(every, _words(shown, SCALED, alive_only=True))]


def inverse_table(arms: dict[str, xr.Dataset]) -> Rows:
    """Rank correlations with the second map, a row for each reading; empty if there is none."""
    shown = _with_a_plane(arms)
    rows = [
        [
            name,
            *(_spell(with_the_decoder(dataset, label)) for label in MAPS),
            *(_spell(with_the_decoder(dataset, label, alive_only=True)) for label in (RAW, SCALED)),
        ]
        for name, dataset in shown.items()
    ]
    head = ["rank correlation with the second map", *MAPS]
    head += [f"{label}, living models" for label in (RAW, SCALED)]
    return [head, *rows] if rows else []


def with_the_decoder(dataset: xr.Dataset, label: str, *, alive_only: bool = False) -> Correlation:
    """Rank correlation over cells of a first map with the 3-epoch decode MSE, over seeds.

    Args:
        dataset: an arm.
        label: of `MAPS`.
        alive_only: leave out collapsed models; a seed with few living ones then says nothing.
    """
    found = _correlation(dataset, MAPS[label], SECOND, alive_only=alive_only)
    return Correlation.of("", "", label, found)


def _correlation(
    dataset: xr.Dataset, first: Score, second: Score, *, alive_only: bool = False
) -> Interval:
    def alive(score: Score) -> Score:
        return lambda d: score(d).where(d["status"] == "ok")

    scores = [alive(score) if alive_only else score for score in (first, second)]
    found = []
    for a, b in zip(*(planes(dataset, score) for score in scores), strict=True):
        enough = not alive_only or np.isfinite(a * b).sum() >= FEW
        found.append(agreement(a.ravel(), b.ravel()) if enough else np.nan)
    return interval(np.array(found))


def _with_variance(dataset: xr.Dataset) -> Interval:
    """Rank correlation of the first map with the variance of the code on fresh draws."""
    return _correlation(dataset, MAPS[RAW], lambda d: d["code_variance"].mean("latent"))


def _with_a_plane(arms: dict[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    return {
        name: dataset
        for name, dataset in readings(arms).items()
        if dataset.sizes["mu"] > 1 and dataset.sizes["beta"] > 1
    }


def _words(shown: dict[str, xr.Dataset], label: str, *, alive_only: bool = False) -> list[str]:
    """What each reading says; of living models, the readings alone that have enough of them."""
    found = [with_the_decoder(d, label, alive_only=alive_only) for d in shown.values()]
    return [verdict.word for verdict in found if not alive_only or verdict.word != "one seed"]


def _collapse(name: str, dataset: xr.Dataset) -> Iterator[str]:
    """What collapse scores on both maps, less what living models score at the same mu and seed."""
    dead, alive = dataset["status"] == "collapsed", dataset["status"] == "ok"
    both = dead.any("beta") & alive.any("beta")
    if not both.any():
        return
    parts = []
    for what, score in (("first", MAPS[RAW]), ("second", SECOND)):
        levels = [
            score(dataset).where(group).mean("beta").where(both).mean("mu")
            for group in (dead, alive)
        ]
        gap = interval((levels[0] - levels[1]).values)
        if not np.isfinite(gap.low):
            manner = "one seed"
        elif gap.high < 0:
            manner = "better"
        else:
            manner = "worse" if gap.low > 0 else "neither better nor worse for certain"
        means = [number(float(level.mean())) for level in levels]
        parts.append(
            f"on the {what} map {means[0]}, living ones {means[1]}, a difference of "
            f"{spell(gap, sign=True)} ({manner})"
        )
    yield (
        f"{name}: {int(dead.sum())} of {dead.size} models collapsed. At the same μ and seed they "
        f"score {'; '.join(parts)}."
    )


def _conclusion(every: dict[str, list[str]], alive: list[str]) -> str:
    """One reading of the counts, only if they are of one mind."""

    def most(words: list[str], word: str) -> bool:
        return words.count(word) > len(words) / 2

    if not most(every[RAW], "reversed"):
        return "Most readings of training show no inverse relation that would need explaining."
    size, way = most(every[SCALED], "holds"), most(every[TURNED], "holds")
    caveat = ""
    if size and not alive:
        caveat = " No reading has enough living models to say whether they agree by themselves."
    elif size and not most(alive, "holds"):
        caveat = (
            " That agreement owes to collapse, which both maps then count as failure: among living "
            f"models alone they run the same way in {alive.count('holds')} of the {len(alive)} "
            f"readings that have enough of them, opposite ways in {alive.count('reversed')}, and "
            f"the others are open, or nearer to 0 than {NOTHING}."
        )
    if size and way:
        return (
            "So the sign hangs on the first map's unit: the error of predicting a code shrinks "
            "with the code, which β shrinks. Measured against the code's variance, or with the "
            f"truth as what is predicted, the maps run the same way in most readings.{caveat}"
        )
    if size:
        return (
            "So the sign hangs on the first map's unit, the code's variance; turning the probe "
            f"round does not make the maps run the same way.{caveat}"
        )
    if way:
        return (
            "So the inverse relation hangs on the probe's direction; the code's variance alone "
            "does not account for it."
        )
    return (
        "Neither the probe's direction nor the code's variance makes the maps run the same way in "
        "most readings, so neither accounts for the inverse relation."
    )


def _spell(found: Verdict) -> str:
    return spell(Interval(*(np.array(value) for value in (found.value, found.low, found.high))))
