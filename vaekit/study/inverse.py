"""Why the post's two maps run opposite ways: the first one's error is in the code's own units.

A probe from truth to code errs by at most the code's variance, which beta takes away until a
collapsed code has none, and no error. Divided by that variance, the same error measures recovery.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr

from vaekit.report.cells import number
from vaekit.study.claims import FIRST_MAP, SECOND_MAP, Score, Verdict, planes, readings
from vaekit.study.statistics import agreement, interval

POST = "fixed-sample-0.25"
# The post's first map, then what is to agree with its second one.
MAPS: dict[str, Score] = {
    "as it is": FIRST_MAP["truth → code, 3 epochs, grid"],
    "over the code's variance": lambda d: (
        1.0 - d["probe_r2"].sel(direction="truth_to_code", fit="adam")
    ),
    "the other way": FIRST_MAP["code → truth, 3 epochs, grid"],
}


def inverse_in_words(arms: dict[str, xr.Dataset]) -> list[str]:
    """Say where the inverse relation is, and what becomes of it when the code's size is taken out.

    Args:
        arms: name -> dataset, sorted by mu and beta.
    """
    shown = {name: dataset for name, dataset in readings(arms).items() if _has_a_plane(dataset)}
    if not shown:
        return []
    name = POST if POST in shown else next(iter(shown))
    sentences = list(_collapse(name, shown[name]))
    as_it_is, over, turned_round = (_with(with_the_decoder(shown[name], label)) for label in MAPS)
    sentences.append(
        f"{name}: over all cells the first map (truth → code, 3 epochs) and the second have a rank "
        f"correlation of {as_it_is}; with the first map's error divided by the "
        f"code's variance (1 − R²) of {over}; with the "
        f"probe turned round (code → truth) of {turned_round}."
    )
    signs = {
        label: [with_the_decoder(dataset, label).word for dataset in shown.values()]
        for label in MAPS
    }
    raw, scaled, turned = (signs[label] for label in MAPS)
    many = len(shown)
    sentences.append(
        f"Over the {many} readings of training the two maps run opposite ways in "
        f"{raw.count('reversed')} with the error as it is, in {scaled.count('reversed')} with it "
        f"divided by the code's variance, in {turned.count('reversed')} with the probe turned "
        "round; the same way in "
        f"{raw.count('holds')}, {scaled.count('holds')} and {turned.count('holds')}."
    )
    sentences.append(_conclusion(raw, scaled, turned))
    return sentences


def with_the_decoder(dataset: xr.Dataset, label: str) -> Verdict:
    """Rank correlation over cells of a first map with the 3-epoch decode MSE, over seeds.

    Its word is "holds" where the two run the same way, "reversed" where they run opposite ways.
    """
    pairs = zip(planes(dataset, MAPS[label]), planes(dataset, SECOND_MAP["3 epochs"]), strict=True)
    found = interval(np.array([agreement(a.ravel(), b.ravel()) for a, b in pairs]))
    return Verdict("", "", label, float(found.mean), float(found.low), float(found.high))


def _has_a_plane(dataset: xr.Dataset) -> bool:
    return dataset.sizes["mu"] > 1 and dataset.sizes["beta"] > 1


def _collapse(name: str, dataset: xr.Dataset) -> Iterator[str]:
    """What collapse scores on both maps, beside what living models score at the same mu."""
    dead, alive = dataset["status"] == "collapsed", dataset["status"] == "ok"
    both = dead.any("beta") & alive.any("beta")
    if not both.any():
        return
    scores = []
    for score in (MAPS["as it is"], SECOND_MAP["3 epochs"]):
        values = score(dataset)
        scores += [
            float(values.where(group).mean("beta").where(both).mean()) for group in (dead, alive)
        ]
    first_dead, first_alive, second_dead, second_alive = scores
    better = "better" if first_dead < first_alive else "no better"
    worse = "worse" if second_dead > second_alive else "no worse"
    yield (
        f"{name}: {int(dead.sum())} of {dead.size} models collapsed. At the same μ and seed they "
        f"score {number(first_dead)} on the first map, where living ones score "
        f"{number(first_alive)}, and {number(second_dead)} on the second, where living ones score "
        f"{number(second_alive)}: {better} on the first map, {worse} on the second."
    )


def _conclusion(raw: list[str], scaled: list[str], turned: list[str]) -> str:
    """One reading of the counts, only if they are of one mind."""
    half = len(raw) / 2
    if raw.count("reversed") <= half:
        return "Most readings of training show no inverse relation that would need explaining."
    size = scaled.count("reversed") < raw.count("reversed") / 2
    way = turned.count("reversed") < raw.count("reversed") / 2
    if size and way:
        return (
            "So the inverse relation is the first map's unit: an error of predicting the code "
            "shrinks with the code, which β shrinks, while the decoder loses the image. It is no "
            "property of what the models know."
        )
    if way:
        return (
            "So the inverse relation hangs on the probe's direction, but the code's variance alone "
            "does not account for it."
        )
    return "So neither the probe's direction nor the code's variance accounts for it."


def _with(found: Verdict) -> str:
    text = number(found.value)
    if np.isfinite([found.low, found.high]).all():
        text += f" [{number(found.low)} to {number(found.high)}]"
    return text
