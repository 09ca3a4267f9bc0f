"""What the post's second heat map is made of: its probe, collapsed models, and living decoders."""

from __future__ import annotations

import numpy as np
import xarray as xr

from vaekit.study.claims import readings
from vaekit.study.section import Rows, spell
from vaekit.study.statistics import Interval, interval

# A collapsed model's decode MSE this close to the mean image's is that image's.
NEAR = 0.05


def second_map_in_words(arms: dict[str, xr.Dataset]) -> list[str]:
    """How much of the decode MSE is the 3-epoch probe's own error, and how much is collapse."""
    shown = readings(arms)
    if not shown:
        return []
    sentences = []
    for what, alive_only in (("the whole map", False), ("the living models' part", True)):
        shares = {name: probe_share(d, alive_only=alive_only) for name, d in shown.items()}
        known = {name: float(s.mean) for name, s in shares.items() if np.isfinite(s.mean)}
        if known:
            ranked = sorted(known, key=lambda name: known[name])
            ends = dict.fromkeys((ranked[0], ranked[-1]))
            parts = [f"{spell(shares[name], scale=100)} % ({name})" for name in ends]
            sentences.append(
                f"Of {what} the 3-epoch probe's own error, which goes away when the probe is "
                f"fitted exactly, is {' to '.join(parts)}."
            )
    dead = sum(int((d["status"] == "collapsed").sum()) for d in shown.values())
    size = sum(d["status"].size for d in shown.values())
    near = sum(at_the_mean_image(d) for d in shown.values())
    sentences.append(
        f"{dead} of {size} models collapsed, and {near} of those score within "
        f"{100 * NEAR:.0f} % of the training images' mean, which takes no learning."
    )
    return sentences


def second_map_table(arms: dict[str, xr.Dataset]) -> Rows:
    """A row for each reading: the three parts of the map's sum, and the collapsed models."""
    rows = [
        [
            "arm",
            "probe, % of the map",
            "collapsed models, %",
            "living decoders, %",
            "probe, % of the living models' part",
            "collapsed",
            "at the mean image",
        ]
    ]
    for name, dataset in readings(arms).items():
        status = dataset["status"]
        exact = dataset["decode_mse"].sel(fit="exact")
        whole = _sum(dataset["decode_mse"].sel(fit="adam").where(status != "diverged"))
        parts = [_sum(exact.where(status == kind)) / whole for kind in ("collapsed", "ok")]
        rows.append(
            [
                name,
                spell(probe_share(dataset), scale=100),
                *(spell(interval(part.fillna(0.0).values), scale=100) for part in parts),
                spell(probe_share(dataset, alive_only=True), scale=100),
                f"{int((status == 'collapsed').sum())} of {status.size}",
                str(at_the_mean_image(dataset)),
            ]
        )
    return rows if len(rows) > 1 else []


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


def at_the_mean_image(dataset: xr.Dataset) -> int:
    """Count the collapsed models that score what the training images' mean scores."""
    level = dataset["decode_mse"].sel(fit="exact") / dataset["decode_mse_constant"]
    return int(((dataset["status"] == "collapsed") & (np.abs(level - 1) < NEAR)).sum())


def _sum(values: xr.DataArray) -> xr.DataArray:
    return values.sum(["mu", "beta"], min_count=1)
