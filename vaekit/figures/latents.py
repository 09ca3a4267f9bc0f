"""Latents one by one: traversals, and the KL of each."""

from __future__ import annotations

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.cm import ScalarMappable
from matplotlib.colors import PowerNorm, to_rgba
from matplotlib.figure import Figure

from vaekit.figures.images import GAP, grey_limits, mark, marks, show
from vaekit.figures.style import (
    BLANK,
    INK,
    MUTED,
    converged,
    figure,
    legend_below,
    new_figure,
    objective_note,
    page_heading,
    plain,
)

KL_LIMIT = 4.0
ON_DARK = (1.0, 1.0, 1.0, 0.45)


@figure
def traversals(dataset: xr.Dataset) -> Figure:
    """Decoded images while one latent moves and the others stay at 0, for a few models."""
    # The largest betas are mostly collapsed models, which have nothing to traverse.
    mus, betas = _spread(dataset["mu"].values, 1.0), _spread(dataset["beta"].values, 0.7)
    latents, values = dataset.sizes["latent"], dataset.sizes["latent_value"]
    size = 0.26
    made = new_figure(len(mus) * values * size + 1.2, len(betas) * (latents * size + 0.55) + 1.0)
    panels = made.subplots(len(betas), len(mus), squeeze=False)
    first = dataset.isel(seed=0)
    moved = dataset["latent_value"].values
    for row, beta in enumerate(betas[::-1]):
        for column, mu in enumerate(mus):
            ax, cell = panels[row, column], first.sel(mu=mu, beta=beta)
            order = np.argsort(-np.nan_to_num(cell["kl"].values), kind="stable")
            tall, wide = show(ax, cell["traversal"].values[order], grey_limits(dataset))
            status = str(cell["status"].values)
            state = f"{int(cell['active_units'])} of {latents} active" if status == "ok" else status
            if cell["diverged_at"]:
                state += f" at step {int(cell['diverged_at']):,}"
            ax.set_title(
                f"μ = {plain(mu)}, β = {plain(beta)}: {state}",
                fontsize=8,
                loc="left",
                color=INK if status == "ok" else "#a8370a",
            )
            if status == "diverged":
                mark(ax, (-0.5, -0.5), wide * values, tall * latents, dead=False)
            if row == len(betas) - 1:
                ends = [0, values // 2, values - 1]
                ax.set_xticks(
                    [place * wide + wide / 2 - GAP for place in ends],
                    [plain(moved[place]) for place in ends],
                )
                ax.set_xlabel("value of the latent")
            if column == 0:
                ax.set_ylabel("latents, largest KL on top")
    page_heading(made, "Latent traversals", f"first seed; {objective_note(dataset)}")
    return made


def _spread(values: np.ndarray, share: float) -> list[float]:
    """Return three values evenly spread over the first `share` of a list; all of a short one."""
    if len(values) <= 3:
        return [float(value) for value in values]
    places = np.linspace(0, (len(values) - 1) * share, 3).round().astype(int)
    return [float(values[place]) for place in places]


@figure
def kl_per_latent(dataset: xr.Dataset) -> Figure:
    """KL of each latent, sorted within a model: a panel for each mu, a row for each beta."""
    mus, betas = dataset["mu"].values, dataset["beta"].values
    across = min(len(mus), 6)
    down = -(-len(mus) // across)
    latents = dataset.sizes["latent"]
    made = new_figure(across * 1.55 + 1.6, down * (max(len(betas) * 0.17, 0.8) + 0.6) + 0.9)
    panels = made.subplots(down, across, squeeze=False, sharex=True, sharey=True)
    values = converged(dataset, dataset["kl"]).transpose("mu", "beta", "seed", "latent").values
    ranked = -np.sort(-values, axis=-1)
    alive = np.isfinite(ranked).all(axis=-1, keepdims=True)
    seeds = alive.sum(axis=2)
    mean = np.where(alive, ranked, 0).sum(axis=2) / np.where(seeds > 0, seeds, 1)
    mean = np.where(seeds > 0, mean, np.nan)
    norm = PowerNorm(0.5, vmin=0, vmax=KL_LIMIT)
    colours = matplotlib.colormaps["viridis"].with_extremes(bad=BLANK)
    status = dataset["status"].transpose("mu", "beta", "seed").values
    for index, ax in enumerate(panels.flat):
        if index >= len(mus):
            ax.set_visible(False)
            continue
        ax.imshow(mean[index], cmap=colours, norm=norm, aspect="auto", origin="lower")
        for kind in ("collapsed", "diverged"):
            for row in np.flatnonzero((status[index] == kind).all(axis=-1)):
                mark(ax, (-0.5, row - 0.5), latents, 1, kind == "collapsed", ON_DARK)
        ax.set_title(f"μ = {plain(mus[index])}", fontsize=8.5, loc="left")
        ax.spines[:].set_visible(False)
        ax.tick_params(length=0, labelsize=7)
        ax.set_yticks(range(len(betas)), [plain(beta) for beta in betas])
        ends = sorted({0, latents - 1})
        ax.set_xticks(ends, [str(end + 1) for end in ends])
        if index % across == 0:
            ax.set_ylabel("β")
        if index + across >= len(mus):
            ax.tick_params(labelbottom=True)
            ax.set_xlabel("latent, by KL")
    above = bool((mean > KL_LIMIT).any())
    bar = made.colorbar(
        ScalarMappable(norm, colours),
        ax=panels,
        extend="max" if above else "neither",
        fraction=0.03,
        pad=0.01,
    )
    bar.outline.set_visible(False)
    bar.set_label("KL, nats", fontsize=8.5)
    many = dataset.sizes["seed"]
    mean_note = f"; mean of {many} seeds" if many > 1 else ""
    page_heading(made, "KL of every latent", objective_note(dataset) + mean_note)
    legend_below(made, marks(status, to_rgba(MUTED)))
    return made
