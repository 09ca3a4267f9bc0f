"""Lines: training curves, and recovery over beta."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vaekit.figures.heatmap import beta_place
from vaekit.figures.style import (
    ACCENT,
    converged,
    diverged_note,
    dot_key,
    figure,
    heading,
    legend_below,
    line_key,
    new_figure,
    objective_note,
    page_heading,
    plain,
    sequence,
)

# The first steps fall by hundreds of nats: this share of the windows may leave the frame.
FIRST_WINDOWS = 0.04
# Where a cell without a number is marked, above the frame's lower edge.
DIVERGED_HEIGHT = 0.01


@figure
def curves_over_mu(dataset: xr.Dataset) -> Figure:
    """The post's training curves over mu at beta = 1, or the nearest beta there is."""
    chosen = dataset.sel(beta=1.0, method="nearest")
    beta = plain(float(chosen["beta"]))
    nearest = "" if beta == "1" else " (the sweep's nearest to the post's 1)"
    return _curves(chosen, "mu", f"Training over μ at β = {beta}{nearest}")


@figure
def curves_over_beta(dataset: xr.Dataset) -> Figure:
    """The post's training curves over beta at mu = 0, or the nearest mu there is."""
    chosen = dataset.sel(mu=0.0, method="nearest")
    mu = plain(float(chosen["mu"]))
    nearest = "" if mu == "0" else " (the sweep's nearest to the post's 0)"
    return _curves(chosen, "beta", f"Training over β at μ = {mu}{nearest}")


def _curves(chosen: xr.Dataset, over: str, title: str) -> Figure:
    """Draw loss, negative log-likelihood and KL over the steps, one line for each value."""
    made = new_figure(10.2, 3.9)
    panels = made.subplots(1, 3)
    symbol = {"mu": "μ", "beta": "β"}[over]
    for ax, name, label in zip(
        panels,
        ("loss_curve", "nll_curve", "kl_curve"),
        ("Loss = NLL + β KL", "NLL, −log p(x|z)", "KL from the prior"),
        strict=True,
    ):
        # A diverged model's losses go anywhere before it stops: the average is the others'.
        curves = converged(chosen, chosen[name]).transpose(over, "seed", "step")
        step = chosen["step"].values
        for lines, colour in zip(curves.values, sequence(len(curves)), strict=True):
            ax.plot(step, _mean(lines), color=colour, linewidth=1.4)
            if len(lines) > 1:
                ax.fill_between(
                    step,
                    _bound(lines, np.min),
                    _bound(lines, np.max),
                    color=colour,
                    alpha=0.2,
                    lw=0,
                )
        heading(ax, label)
        _settled_limits(ax, curves.values)
        ax.set_xlabel("training step")
        ax.locator_params(axis="x", nbins=4)
        ax.grid(axis="y")
        ax.margins(x=0.01)
    panels[0].set_ylabel("nats per image, mean over a window")
    values = chosen[over].values
    handles = line_key(sequence(len(values)), values)
    seeds = chosen.sizes["seed"]
    gone = (chosen["status"] == "diverged").sum("seed").values
    for handle, many in zip(handles, gone, strict=True):
        if many:
            part = "" if many == seeds else f"{many} of {seeds} "
            handle.set_label(f"{handle.get_label()} ({part}diverged)")
    made.legend(handles=handles[::-1], title=symbol, loc="outside right center", handlelength=1.4)
    band = f"; mean of {seeds} seeds, band from lowest to highest" if seeds > 1 else ""
    page_heading(made, title, f"{objective_note(chosen)}{band}{diverged_note(chosen)}")
    return made


def _mean(lines: np.ndarray) -> np.ndarray:
    """Average over the seeds that have a number; none gives a gap in the line."""
    return _bound(lines, np.mean)


def _bound(lines: np.ndarray, reduce: Callable[[np.ndarray], float]) -> np.ndarray:
    """Reduce the finite values of each step; a gap where there are none."""
    columns = [column[np.isfinite(column)] for column in lines.T]
    return np.array([reduce(c) if len(c) else np.nan for c in columns])


def _settled_limits(ax: Axes, values: np.ndarray) -> None:
    """Frame the curves without the plunge of the first steps."""
    skipped = int(np.ceil(values.shape[-1] * FIRST_WINDOWS)) if values.shape[-1] > 2 else 0
    settled = values[..., skipped:]
    settled = settled[np.isfinite(settled)]
    if len(settled):
        low, high = settled.min(), settled.max()
        room = 0.06 * (high - low) or 1.0
        ax.set_ylim(low - room, high + room)


@figure
def recovery_over_beta(dataset: xr.Dataset) -> Figure:
    """Recovery R2 over beta, a line for each mu, with the best beta ringed."""
    made = new_figure(8.2, 4.6)
    ax = made.subplots()
    values = converged(dataset, dataset["recovery_r2"]).mean("seed")
    collapsed = (dataset["status"] == "collapsed").all("seed")
    place = np.arange(dataset.sizes["beta"])
    colours = sequence(dataset.sizes["mu"])
    for colour, mu in zip(colours, dataset["mu"].values, strict=True):
        line, dead = values.sel(mu=mu).values, collapsed.sel(mu=mu).values
        ax.plot(place, line, color=colour, linewidth=1.5, zorder=2)
        ax.plot(place[~dead], line[~dead], "o", color=colour, markersize=4.5, zorder=3)
        ax.plot(place[dead], line[dead], "x", color=colour, markersize=5, zorder=3)
        alive = np.where(dead | ~np.isfinite(line), -np.inf, line)
        if np.isfinite(alive).any():
            best = int(alive.argmax())
            ring: dict[str, Any] = {
                "markerfacecolor": "none",
                "markeredgecolor": ACCENT,
                "markeredgewidth": 1.4,
            }
            ax.plot(place[best], line[best], "o", markersize=9.5, zorder=4, **ring)
        critical = beta_place(dataset["critical_beta"].sel(mu=mu).values, dataset["beta"].values)
        if 0 <= critical <= place[-1]:
            ax.plot(critical, -0.035, "^", color=colour, markersize=6, clip_on=False)
    ax.set_xticks(place, [plain(beta) for beta in dataset["beta"].values])
    ax.set_ylim(-0.06, 1.0)
    ax.set_xlabel("β, weight of the KL (one place for each value)")
    ax.set_ylabel("recovery R², fresh noisy images")
    ax.grid(axis="y")
    some = (dataset["status"] == "diverged").any("seed")
    for colour, mu in zip(colours, dataset["mu"].values, strict=True):
        line, broken = values.sel(mu=mu).values, some.sel(mu=mu).values
        # Beside the average of the other seeds; on the lower edge where there is none.
        height = np.where(np.isfinite(line), line, DIVERGED_HEIGHT)
        ax.plot(place[broken], height[broken], "P", color=colour, markersize=7, zorder=5)
    note = objective_note(dataset) + diverged_note(dataset)
    heading(ax, "Does a larger β help where the data is biased?", note)
    made.legend(
        handles=line_key(colours, dataset["mu"].values),
        title="μ",
        loc="outside right center",
        handlelength=1.4,
    )
    legend_below(
        made,
        [
            dot_key("o", "best β", color=ACCENT, markerfacecolor="none", markersize=8),
            dot_key("x", "collapsed in every seed"),
            dot_key("^", "critical β in theory (on the lower edge)"),
            *([dot_key("P", "some or all seeds diverged")] if some.any() else []),
        ],
    )
    return made
