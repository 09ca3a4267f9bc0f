"""What the post's second heat map is made of: its probe, collapsed models, and living decoders."""

from __future__ import annotations

import numpy as np
import xarray as xr

from vaekit.report.cells import number
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
    probe = "the 3-epoch probe's own error, which goes away when the probe is fitted exactly,"
    shares = {
        f"Of the whole map {probe} is": [probe_share(d) for d in shown.values()],
        "Of the whole map collapsed models are": [_part(d, "collapsed") for d in shown.values()],
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
        rows.append(
            [
                name,
                spell(probe_share(dataset), scale=100),
                *(spell(_part(dataset, kind), scale=100) for kind in ("collapsed", "ok")),
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


def _part(dataset: xr.Dataset, kind: str) -> Interval:
    """Share of the 3-epoch map's sum that the exactly fitted models of a status score, over seeds.

    With the probe's share these add up to 1.
    """
    whole = _sum(dataset["decode_mse"].sel(fit="adam").where(dataset["status"] != "diverged"))
    exact = _sum(dataset["decode_mse"].sel(fit="exact").where(dataset["status"] == kind))
    return interval((exact.fillna(0.0) / whole).values)


def at_the_mean_image(dataset: xr.Dataset) -> int:
    """Count the collapsed models that score what the training images' mean scores."""
    level = dataset["decode_mse"].sel(fit="exact") / dataset["decode_mse_constant"]
    return int(((dataset["status"] == "collapsed") & (np.abs(level - 1) < NEAR)).sum())


def _sum(values: xr.DataArray) -> xr.DataArray:
    return values.sum(["mu", "beta"], min_count=1)
