"""What the post's second heat map is made of: its probe, collapsed models, and living decoders."""

from __future__ import annotations

import numpy as np
import xarray as xr

from vaekit.report.cells import number
from vaekit.results import settings
from vaekit.study.claims import readings
from vaekit.study.section import Rows, spell
from vaekit.study.statistics import Interval, interval
from vaekit.theory import intensity_mean

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
    others = [_unlike_the_mean_image(d) for d in shown.values()]
    every = np.concatenate([values.values.ravel() for values in others])
    off = every[np.isfinite(every)]
    if off.size:
        levels = sorted({mu for values in others for mu in _of_which_mu(values)})
        sentence += (
            f" The other {off.size}, at μ = {', '.join(f'{mu:g}' for mu in levels)}, are off it by "
            f"{number(100 * float(off.min()))} to {number(100 * float(off.max()))} % (below 0 is "
            f"the smaller error).{_at_code_zero(shown, others)}"
        )
    return [sentence]


def _at_code_zero(shown: dict[str, xr.Dataset], others: list[xr.DataArray]) -> str:
    """What collapsed decoders draw of a code of zeros, which need not be the mean image."""
    drawn, mean = [], []
    for dataset, values in zip(shown.values(), others, strict=True):
        pictures = dataset["traversal"].sel(latent_value=0.0).mean(["latent", "row", "col"])
        # Pictures are kept of the first seed alone.
        level = pictures.where(np.isfinite(values.isel(seed=0, drop=True)))
        config = settings(dataset)
        own = xr.zeros_like(dataset["mu"]).copy(
            data=intensity_mean(dataset["mu"].values, generator=config["generator"])
        )
        drawn.append(level.values.ravel())
        mean.append(own.broadcast_like(level).where(np.isfinite(level)).values.ravel())
    pixels = np.concatenate(drawn)
    if not np.isfinite(pixels).any():
        return ""
    zero, images = (number(float(np.nanmean(part))) for part in (pixels, np.concatenate(mean)))
    return (
        f" At a code of zeros theirs is an image of {zero} on average (first seed), where the "
        f"training images have {images}: a decoder is trained on samples of its code, and not "
        "at the one code that a probe of a constant gives it."
    )


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
    return int((np.abs(_above_the_mean_image(dataset)) < NEAR).sum())


def _above_the_mean_image(dataset: xr.Dataset) -> xr.DataArray:
    """Exact decode MSE of collapsed models less the mean image's, over the latter; else NaN."""
    level = dataset["decode_mse"].sel(fit="exact", drop=True) / dataset["decode_mse_constant"] - 1
    return level.where(dataset["status"] == "collapsed")


def _unlike_the_mean_image(dataset: xr.Dataset) -> xr.DataArray:
    above = _above_the_mean_image(dataset)
    return above.where(np.abs(above) >= NEAR)


def _of_which_mu(values: xr.DataArray) -> list[float]:
    return [float(mu) for mu in values["mu"].values if np.isfinite(values.sel(mu=mu).values).any()]


def _sum(values: xr.DataArray) -> xr.DataArray:
    return values.sum(["mu", "beta"], min_count=1)
