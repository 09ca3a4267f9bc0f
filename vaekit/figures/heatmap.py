"""The heat map on the (mu, beta) plane: one cell per value, status marked, theory's line on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import xarray as xr
from matplotlib import patheffects
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, PowerNorm, to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Polygon, Rectangle

from vaekit.figures.style import (
    BLANK,
    INK,
    MUTED,
    Colour,
    converged,
    heading,
    ink_on,
    legend_below,
    new_figure,
    objective_note,
    plain,
    seeds_note,
    spans,
)

CELL_WIDTH = 0.5
CELL_HEIGHT = 0.40
COLLAPSED_HATCH = "////"
DIVERGED_HATCH = "xxx"


@dataclass(frozen=True)
class Scale:
    """How a metric's values become colours: fixed by the metric, so that two runs compare.

    Light always means a better score, so a map of errors runs the other way.
    """

    label: str
    upper: float
    low_is_better: bool = False
    root: bool = False
    whole: bool = False
    signed: bool = False

    def norm(self) -> Normalize:
        """Colour limits, on a square-root scale where small values matter."""
        if self.root:
            return PowerNorm(0.5, vmin=0.0, vmax=self.upper)
        return Normalize(-self.upper if self.signed else 0.0, self.upper)

    @property
    def colours(self) -> str:
        """Name of the colour map; viridis survives colour blindness and grey printing."""
        if self.signed:
            return "PuOr"
        return "viridis_r" if self.low_is_better else "viridis"

    def text(self, value: float) -> str:
        """Write a value as a cell shows it."""
        if self.whole:
            return f"{value:.0f}" if value == round(value) else f"{value:.1f}"
        if self.signed:
            return f"{value:+.2f}".replace("-", "−") if abs(value) >= 0.005 else "0"
        size = cell_text(abs(value))
        return f"−{size}" if value < 0 and size != "0" else size


def cell_text(value: float) -> str:
    """Write a value that is not negative in the few characters that a cell holds."""
    if value >= 99.95:
        return f"{value:.0f}" if value < 9999.5 else f"{value:.0e}".replace("e+0", "e")
    if value >= 9.995:
        return f"{value:.1f}"
    if value >= 0.0995:
        return f"{value:.2f}"
    if value >= 0.00995:
        return f"{value:.3f}"
    return f"{value:.4f}" if value >= 0.00005 else "0"


def map_figure(dataset: xr.Dataset, values: xr.DataArray, title: str, scale: Scale) -> Figure:
    """Draw one metric [mu, beta, seed] as a heat map with its colour bar and legend."""
    made = new_figure(*map_size(dataset))
    ax = made.subplots()
    handles = draw_map(ax, dataset, values, scale)
    heading(ax, title, objective_note(dataset) + seeds_note(dataset))
    colour_bar(made, ax, values, scale)
    legend_below(made, handles, columns=2 if made.get_figwidth() > 6.5 else 1)
    return made


def map_size(dataset: xr.Dataset) -> tuple[float, float]:
    """Width and height in inches that a map takes with its labels, colour bar and legend."""
    tall = CELL_HEIGHT * (1.2 if dataset.sizes["seed"] > 1 else 1.0)
    width = max(dataset.sizes["mu"] * CELL_WIDTH, 3.6)
    return width + 1.55, max(dataset.sizes["beta"] * tall, 2.0) + 1.75


def draw_map(ax: Axes, dataset: xr.Dataset, values: xr.DataArray, scale: Scale) -> list[Artist]:
    """Draw a metric on a panel; return the legend's entries."""
    shown = converged(dataset, values).transpose("beta", "mu", "seed").values.astype(float)
    status = dataset["status"].transpose("beta", "mu", "seed").values
    colours, norm = matplotlib.colormaps[scale.colours], scale.norm()
    rows, columns = shown.shape[:2]
    size = 8.4 if columns <= 16 else 8.4 * 16 / columns
    for row in range(rows):
        for column in range(columns):
            found = shown[row, column][np.isfinite(shown[row, column])]
            face = to_rgba(BLANK)
            if len(found):
                red, green, blue, _ = colours(norm(float(found.mean())))
                face = (float(red), float(green), float(blue), 1.0)
            corner = (column - 0.5, row - 0.5)
            ax.add_patch(Rectangle(corner, 1, 1, facecolor=face, edgecolor="white", linewidth=0.8))
            mark_status(ax, corner, status[row, column], face)
            text = scale.text(found.mean()) if len(found) else "–"
            spread = scale.text(found.std(ddof=1) if len(found) > 1 else 0.0)
            if spread != "0":
                text += f"\n±{spread}"
            # A rim of the cell's own colour keeps the digits clear of hatching and line.
            rim = patheffects.withStroke(linewidth=2.2, foreground=face)
            ax.text(
                column,
                row,
                text,
                ha="center",
                va="center",
                fontsize=size if "\n" not in text else size * 0.84,
                linespacing=1.05,
                color=ink_on(face),
                path_effects=[rim],
                zorder=4,
            )
    plane(ax, dataset)
    return [*critical_line(ax, dataset), *status_legend(dataset)]


def plane(ax: Axes, dataset: xr.Dataset) -> None:
    """Set up the axes of the (mu, beta) plane, one place for each value."""
    mu, beta = dataset["mu"].values, dataset["beta"].values
    ax.set_xlim(-0.5, len(mu) - 0.5)
    ax.set_ylim(-0.5, len(beta) - 0.5)
    ax.set_xticks(range(len(mu)), [plain(value) for value in mu])
    ax.set_yticks(range(len(beta)), [plain(value) for value in beta])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_xlabel("μ, mean of the truths before the sigmoid")
    ax.set_ylabel("β, weight of the KL")


def mark_status(ax: Axes, corner: tuple[float, float], status: np.ndarray, face: Colour) -> None:
    """Hatch a cell that collapsed, cross one that diverged; a corner if only some seeds did."""
    # Grey enough to let the colour be seen, strong enough to be seen itself.
    line = (0, 0, 0, 0.38) if ink_on(face) == "black" else (1, 1, 1, 0.45)
    left, bottom = corner
    for kind, hatch, side in (("collapsed", COLLAPSED_HATCH, 1), ("diverged", DIVERGED_HATCH, 0)):
        count = int((status == kind).sum())
        if count == len(status):
            ax.add_patch(
                Rectangle(
                    corner, 1, 1, fill=False, hatch=hatch, hatchcolor=line, linewidth=0, zorder=2
                )
            )
        elif count:
            edge, inner = (left + 0.95, left + 0.72) if side else (left + 0.05, left + 0.28)
            triangle = [(edge, bottom + 0.94), (inner, bottom + 0.94), (edge, bottom + 0.62)]
            solid = "black" if ink_on(face) == "black" else "white"
            filled = kind == "collapsed"
            ax.add_patch(
                Polygon(triangle, closed=True, fill=filled, color=solid, linewidth=0.9, zorder=3)
            )


def status_legend(dataset: xr.Dataset) -> list[Artist]:
    """Return legend entries for the marks that occur."""
    entries: list[Artist] = []
    for kind, hatch, words in (
        ("collapsed", COLLAPSED_HATCH, "collapsed: no active unit"),
        ("diverged", DIVERGED_HATCH, "diverged: no number to show"),
    ):
        count = (dataset["status"] == kind).sum("seed").values
        if (count == dataset.sizes["seed"]).any():
            entries.append(
                Patch(facecolor=BLANK, edgecolor=MUTED, hatch=hatch, linewidth=0.5, label=words)
            )
        if ((count > 0) & (count < dataset.sizes["seed"])).any():
            side = "right" if kind == "collapsed" else "left"
            entries.append(
                Line2D(
                    [],
                    [],
                    linestyle="",
                    marker=(3, 0, 0),
                    color=INK,
                    markerfacecolor=INK if kind == "collapsed" else "none",
                    label=f"{kind} in some seeds (corner at the {side})",
                )
            )
    return entries


def critical_line(ax: Axes, dataset: xr.Dataset) -> list[Artist]:
    """Draw critical_beta(mu) on the plane of cells; return its legend entry, if there is a line.

    Between the sweep's mu the line is interpolated on log beta, and beta's value is turned into a
    place between the rows.
    """
    critical, beta = dataset["critical_beta"].values, dataset["beta"].values
    known = np.isfinite(critical) & (critical > 0)
    if not known.any():
        return []
    where = np.flatnonzero(known)
    across = np.linspace(where[0], where[-1], 40 * len(where))
    if len(where) == 1:
        across = where[0] + np.array([-0.5, 0.5])
    height = beta_place(np.exp(np.interp(across, where, np.log(critical[where]))), beta)
    halo = patheffects.withStroke(linewidth=3.6, foreground="white")
    style: dict[str, Any] = {"color": "black", "linewidth": 1.7, "linestyle": (0, (5, 1.6))}
    ax.plot(across, height, path_effects=[halo], zorder=3, **style)
    label = "critical β in theory: above it the collapsed state is stable"
    outside = []
    for word, beyond in (("above", critical > beta[-1]), ("below", critical < beta[0])):
        if (beyond & known).any():
            edge = plain(beta[-1] if word == "above" else beta[0])
            outside.append(f"{word} {edge} at μ = {spans(dataset['mu'].values, beyond & known)}")
    if outside:
        label += f"\n({'; '.join(outside)})"
    return [Line2D([], [], label=label, **style)]


def beta_place(value: np.ndarray, beta: np.ndarray) -> np.ndarray:
    """Turn values of beta into places on the axis of cells, going on straight beyond its ends."""
    if len(beta) == 1:
        return np.where(value == beta[0], 0.0, np.where(value > beta[0], 1.0, -1.0))
    place = np.interp(value, beta, np.arange(len(beta)))
    place = np.where(value > beta[-1], place + (value - beta[-1]) / (beta[-1] - beta[-2]), place)
    return np.where(value < beta[0], (value - beta[0]) / (beta[1] - beta[0]), place)


def colour_bar(made: Figure, ax: Axes, values: xr.DataArray, scale: Scale) -> None:
    """Draw the colour bar, pointed where values lie beyond the limits."""
    norm = scale.norm()
    found = values.values[np.isfinite(values.values)]
    over, under = bool((found > norm.vmax).any()), bool((found < norm.vmin).any())
    extend = {(0, 0): "neither", (1, 0): "max", (0, 1): "min", (1, 1): "both"}[over, under]
    mappable = ScalarMappable(norm, matplotlib.colormaps[scale.colours])
    bar = made.colorbar(mappable, ax=ax, extend=extend, fraction=0.05, pad=0.02, aspect=24)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=2, labelsize=7.5)
    note = "lower is better" if scale.low_is_better else "higher is better"
    bar.set_label(scale.label if scale.signed else f"{scale.label}\n({note})", fontsize=8.5)
