"""What the post's second heat map is made of: its probe, collapsed models, and living decoders."""

from __future__ import annotations

import numpy as np
import xarray as xr

from vaekit.report.cells import number
from vaekit.study.claims import readings
from vaekit.study.section import Rows, spell
from vaekit.study.statistics import Array, Interval, interval

# A collapsed model's decode MSE this close to the mean image's is that image's.
NEAR = 0.05


def second_map_in_words(arms: dict[str, xr.Dataset]) -> list[str]:
    """How much of the decode MSE is the 3-epoch probe's own error, and how much is collapse."""
    shown = readings(arms)
    if not shown:
        return []
    probe = "the 3-epoch probe's own error, which goes away when the probe is fitted exactly,"
    shares = {
        f"Of the map's sum over all cells {probe} is": [probe_share(d) for d in shown.values()],
        "Of the map's sum over all cells the collapsed models' errors are": [
            _part(d, "collapsed") for d in shown.values()
        ],
        f"Of the living models' part {probe} is": [
            probe_share(d, alive_only=True) for d in shown.values()
        ],
    }
    sentences = []
    for opening, found in shares.items():
        known = [(float(s.mean), name) for name, s in zip(shown, found, strict=True)]
        known = sorted(pair for pair in known if np.isfinite(pair[0]))
        if known:
            ends = dict.fromkeys((known[0], known[-1]))
            parts = [f"{number(100 * share)} % ({name})" for share, name in ends]
            sentences.append(f"{opening} {' to '.join(parts)}.")
    return [*sentences, *_over_mu(shown), *_collapsed(shown)]


def _over_mu(shown: dict[str, xr.Dataset]) -> list[str]:
    """The probe's share at each mu: pooled, a mu whose test images are far from its own leads."""
    parts = []
    for mu in _levels(shown):
        found = [probe_share(d.sel(mu=[mu])) for d in shown.values() if mu in d["mu"].values]
        known = sorted(float(share.mean) for share in found if np.isfinite(share.mean))
        if known:
            ends = dict.fromkeys(number(100 * share) for share in (known[0], known[-1]))
            parts.append(f"{' to '.join(ends)} % at μ = {mu:g}")
    if len(parts) < 2:
        return []
    return [
        (
            "The sum over the map is led by the μ whose errors are largest, where the test images "
            "are unlike the training images. Of the map at one μ the 3-epoch probe's own error is, "
            f"over the readings, {', '.join(parts)}."
        )
    ]


def _collapsed(shown: dict[str, xr.Dataset]) -> list[str]:
    """How many models collapsed, and what those score."""
    dead = sum(int((d["status"] == "collapsed").sum()) for d in shown.values())
    size = sum(d["status"].size for d in shown.values())
    near = sum(at_the_mean_image(d) for d in shown.values())
    sentence = (
        f"{dead} of {size} models collapsed, and {near} of those score within "
        f"{100 * NEAR:.0f} % of the training images' mean, which takes no learning."
    )
    off = np.concatenate([_from_the_mean_image(d) for d in shown.values()] or [np.empty(0)])
    off = off[np.abs(off) >= NEAR]
    if off.size:
        better, worse = int((off < 0).sum()), int((off > 0).sum())
        sentence += (
            f" Of the other {off.size} {better} score better and {worse} worse than it "
            f"({_ends(100 * off)} %): their units vary too little to count as active, or their "
            "decoder draws another image than the mean, and on a test grid far from the training "
            "images that may score either way."
        )
    return [sentence]


def _ends(values: Array) -> str:
    return f"{number(float(values.min()))} to {number(float(values.max()))}"


def _levels(shown: dict[str, xr.Dataset]) -> list[float]:
    return sorted({float(mu) for dataset in shown.values() for mu in dataset["mu"].values})


def second_map_table(arms: dict[str, xr.Dataset]) -> Rows:
    """A row for each reading: the three parts of the map's sum, and the collapsed models."""
    shown = readings(arms)
    levels = _levels(shown)
    head = ["arm", "probe, % of the map", "collapsed models, %", "living decoders, %"]
    head += ["probe, % of the living models' part", "collapsed", "at the mean image"]
    head += [f"probe, % of the map at μ = {mu:g}" for mu in levels]
    rows = []
    for name, dataset in shown.items():
        status = dataset["status"]
        rows.append(
            [
                name,
                spell(probe_share(dataset), scale=100),
                *(spell(_part(dataset, kind), scale=100) for kind in ("collapsed", "ok")),
                spell(probe_share(dataset, alive_only=True), scale=100),
                f"{int((status == 'collapsed').sum())} of {status.size}",
                str(at_the_mean_image(dataset)),
                *(
                    spell(probe_share(dataset.sel(mu=dataset["mu"] == mu)), scale=100)
                    for mu in levels
                ),
            ]
        )
    return [head, *rows] if rows else []


def probe_share(dataset: xr.Dataset, *, alive_only: bool = False) -> Interval:
    """1 - sum(exact) / sum(3 epochs) of decode MSE over cells, over seeds.

    Args:
        dataset: an arm.
        alive_only: leave out collapsed models as well as diverged ones.
    """
    kept = dataset["status"] == "ok" if alive_only else dataset["status"] != "diverged"
    total = _sum(dataset["decode_mse"].where(kept))
    share = 1.0 - total.sel(fit="exact") / total.sel(fit="adam")
    return interval(share.values)


def _part(dataset: xr.Dataset, kind: str) -> Interval:
    """Share of the 3-epoch map's sum that the exactly fitted models of a status score, over seeds.

    With the probe's share these add up to 1.
    """
    whole = _sum(dataset["decode_mse"].sel(fit="adam").where(dataset["status"] != "diverged"))
    exact = _sum(dataset["decode_mse"].sel(fit="exact").where(dataset["status"] == kind))
    return interval((exact.fillna(0.0) / whole).values)


def at_the_mean_image(dataset: xr.Dataset) -> int:
    """Count the collapsed models that score what the training images' mean scores."""
    return int((np.abs(_from_the_mean_image(dataset)) < NEAR).sum())


def _from_the_mean_image(dataset: xr.Dataset) -> Array:
    """What every collapsed model's exact decode MSE is above the mean image's, relative to it."""
    level = dataset["decode_mse"].sel(fit="exact") / dataset["decode_mse_constant"] - 1
    values = level.where(dataset["status"] == "collapsed").values.ravel()
    return values[np.isfinite(values)]


def _sum(values: xr.DataArray) -> xr.DataArray:
    return values.sum(["mu", "beta"], min_count=1)
