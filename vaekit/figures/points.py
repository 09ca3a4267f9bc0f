"""Dots: every model in the plane of rate and distortion, every untrained network's probe."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib import patheffects
from matplotlib.figure import Figure

from vaekit.figures.style import (
    ACCENT,
    INK,
    diverged_note,
    dot_key,
    figure,
    heading,
    legend_below,
    line_key,
    new_figure,
    objective_note,
    plain,
    sequence,
)

POST_BASELINE = 0.1121


@figure
def rate_distortion(dataset: xr.Dataset) -> Figure:
    """Where every model lies in the plane of rate and distortion."""
    made = new_figure(7.6, 5.0)
    ax = made.subplots()
    cells = dataset[["rate", "distortion"]].where(dataset["status"] != "diverged").mean("seed")
    collapsed = (dataset["status"] == "collapsed").all("seed")
    colours = sequence(dataset.sizes["mu"])
    beta = dataset["beta"].values
    sizes = 14 + 60 * np.arange(len(beta)) / max(len(beta) - 1, 1)
    for colour, mu in zip(colours, dataset["mu"].values, strict=True):
        rate, distortion = cells["rate"].sel(mu=mu).values, cells["distortion"].sel(mu=mu).values
        dead = collapsed.sel(mu=mu).values
        ax.plot(rate, distortion, color=colour, linewidth=0.9, alpha=0.6, zorder=2)
        ax.scatter(
            rate[~dead],
            distortion[~dead],
            s=sizes[~dead],
            color=[colour],
            lw=0,
            alpha=0.9,
            zorder=3,
        )
        ax.scatter(rate[dead], distortion[dead], s=34, marker="x", color=[colour], lw=1.2, zorder=4)
    top = float(cells["rate"].max())
    if top > 100:
        # At beta near 0 nothing holds the rate back: it can reach millions.
        ax.set_xscale("symlog", linthresh=10)
        ax.set_xlim(-1, top * 2)
    ax.set_xlabel(
        "rate: KL from the prior, nats per image" + (" (logarithmic from 10)" if top > 100 else "")
    )
    ax.set_ylabel("distortion: −log p(x|z), nats per image")
    ax.grid()
    note = objective_note(dataset) + diverged_note(dataset)
    heading(ax, "Rate and distortion on fresh noisy images", note)
    made.legend(
        handles=line_key(colours, dataset["mu"].values),
        title="μ",
        loc="outside right center",
        handlelength=1.4,
    )
    legend_below(
        made,
        [
            dot_key("o", f"β = {plain(beta[0])}", markersize=sizes[0] ** 0.5),
            dot_key("o", f"β = {plain(beta[-1])}", markersize=sizes[-1] ** 0.5),
            dot_key("x", "collapsed"),
        ],
    )
    return made


@figure
def baseline(dataset: xr.Dataset) -> Figure:
    """Probe MSE of untrained networks, every network a dot, with the post's number."""
    made = new_figure(7.6, 3.2)
    ax = made.subplots()
    rows = [
        ("code_to_truth", "adam", "code → truth, 3 epochs"),
        ("code_to_truth", "exact", "code → truth, least squares"),
        ("truth_to_code", "adam", "truth → code, 3 epochs"),
        ("truth_to_code", "exact", "truth → code, least squares"),
    ]
    count = dataset.sizes["baseline_seed"]
    for row, (direction, fit, _) in enumerate(rows):
        values = dataset["baseline_probe_mse"].sel(direction=direction, fit=fit).values
        values = values[np.isfinite(values) & (values > 0)]
        # Spread by rank within the row, so that no two dots hide each other.
        offset = 0.16 * (np.arange(len(values)) % 5 - 2) / 2
        ax.plot(values, row + offset, "o", color="#3b6ea8", alpha=0.55, markersize=5, mew=0)
        if len(values):
            mean = values.mean()
            ax.plot([mean, mean], [row - 0.3, row + 0.3], color=INK, linewidth=1.8, zorder=4)
            ax.annotate(
                f"mean {mean:.4f}",
                (mean, row - 0.32),
                ha="center",
                va="bottom",
                fontsize=7.5,
                color=INK,
                path_effects=[patheffects.withStroke(linewidth=3, foreground="white")],
            )
    ax.axvline(POST_BASELINE, color=ACCENT, linewidth=1.4, linestyle=(0, (4, 2)), zorder=1)
    ax.annotate(
        f"the post: {POST_BASELINE}",
        (POST_BASELINE, 2.5),
        (5, 0),
        textcoords="offset points",
        color=ACCENT,
        fontsize=8,
        va="center",
    )
    ax.set_xscale("log")
    ax.set_xlim(1e-5, 1.0)
    ax.set_ylim(3.55, -0.6)
    ax.set_yticks(range(4), [label for *_, label in rows])
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")
    ax.set_xlabel("probe MSE on the test grid (logarithmic; code² or intensity²)")
    many = (
        f"{count} untrained networks, one dot each"
        if count
        else "no untrained network was measured"
    )
    heading(ax, "What the same probes find in untrained networks", many)
    return made
