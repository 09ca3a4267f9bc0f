"""Pictures: example images, reconstructions, latent traversals, KL of every latent."""

from __future__ import annotations

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from vaekit.figures.heatmap import COLLAPSED_HATCH, DIVERGED_HATCH
from vaekit.figures.style import (
    BLANK,
    INK,
    MUTED,
    converged,
    figure,
    heading,
    legend_below,
    new_figure,
    objective_note,
    page_heading,
    plain,
)
from vaekit.results import settings

GAP = 2
KL_LIMIT = 4.0
SHOWN = 2


def mosaic(images: np.ndarray) -> np.ndarray:
    """Lay images [rows, columns, side, side] out as one, NaN between them."""
    padded = np.pad(
        images.astype(float), [(0, 0), (0, 0), (0, GAP), (0, GAP)], constant_values=np.nan
    )
    rows, columns, tall, wide = padded.shape
    return padded.transpose(0, 2, 1, 3).reshape(rows * tall, columns * wide)[:-GAP, :-GAP]


def grey_limits(dataset: xr.Dataset) -> tuple[float, float]:
    """Black and white: 0 and 1, or the range of the clean images on the linear grid."""
    if settings(dataset)["generator"] == "sigmoid":
        return 0.0, 1.0
    clean = dataset["example_clean"]
    return float(clean.min()), float(clean.max())


def show(ax: Axes, images: np.ndarray, limits: tuple[float, float]) -> tuple[float, float]:
    """Show a mosaic of images on a panel; return an image's height and width with its gap."""
    greys = matplotlib.colormaps["gray"].with_extremes(bad="white")
    ax.imshow(mosaic(images), cmap=greys, vmin=limits[0], vmax=limits[1], interpolation="nearest")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    ax.set_xticks([])
    ax.set_yticks([])
    return images.shape[-2] + GAP, images.shape[-1] + GAP


def _example_rows(dataset: xr.Dataset, name: str, title: str, limits: tuple[float, float]) -> Figure:
    """Draw example images, a row for each mu."""
    rows, columns = dataset.sizes["mu"], dataset.sizes["example"]
    made = new_figure(max(columns * 0.42, 3) + 0.6, rows * 0.42 + 0.75)
    ax = made.subplots()
    tall, _ = show(ax, dataset[name].values, limits)
    places = np.arange(rows) * tall + tall / 2 - GAP
    ax.set_yticks(places, [plain(value) for value in dataset["mu"].values])
    ax.set_ylabel("μ", rotation=0, labelpad=8)
    heading(ax, title, f"black {plain(round(limits[0], 2))}, white {plain(round(limits[1], 2))}")
    return made


@figure
def examples_training(dataset: xr.Dataset) -> Figure:
    """The post's example training images before the noise, a row for each mu."""
    return _example_rows(
        dataset, "example_clean", "Training images before the noise", grey_limits(dataset)
    )


@figure
def examples_noised(dataset: xr.Dataset) -> Figure:
    """The same images as the models see them."""
    low, high = grey_limits(dataset)
    room = settings(dataset)["noise_variance"] ** 0.5
    return _example_rows(
        dataset, "example_noisy", "The same images with noise", (low - room, high + room)
    )


@figure
def examples_test(dataset: xr.Dataset) -> Figure:
    """The post's example test images."""
    images = dataset["example_test"].values
    made = new_figure(max(len(images) * 0.42, 3) + 0.3, 1.15)
    ax = made.subplots()
    show(ax, images[None], grey_limits(dataset))
    config = settings(dataset)
    levels = ", ".join(plain(level) for level in config["test_levels"])
    many = len(config["test_levels"]) ** config["grid"] ** 2
    heading(ax, "Test images", f"{len(images)} of the {many:,}: every combination of {levels}, no noise")
    return made


@figure
def reconstructions(dataset: xr.Dataset) -> Figure:
    """Reconstructions on the (mu, beta) plane, the images themselves on top."""
    count = min(SHOWN, dataset.sizes["example_r"])
    first = dataset.isel(example_r=slice(count)).sortby("beta", ascending=False)
    rows, columns = first.sizes["beta"], first.sizes["mu"]
    inputs = first["reconstruction_input"].values[:, None]
    images = np.concatenate([inputs, first["reconstruction"].values], axis=1)
    # [mu, 1 + beta, example, ...] -> rows of [mu and example] columns
    grid = images.swapaxes(0, 1).reshape(rows + 1, columns * count, *images.shape[-2:])
    size = 0.36
    made = new_figure(max(columns * count * size, 3) + 1.0, (rows + 1) * size + 1.35)
    ax = made.subplots()
    tall, wide = show(ax, grid, grey_limits(dataset))
    ax.set_yticks(
        np.arange(rows + 1) * tall + tall / 2 - GAP,
        ["input", *(plain(value) for value in first["beta"].values)],
    )
    ax.set_xticks(
        (np.arange(columns) + 0.5) * wide * count - GAP, [plain(v) for v in first["mu"].values]
    )
    ax.set_xlabel("μ, mean of the truths before the sigmoid")
    ax.set_ylabel("β, weight of the KL")
    status = first["status"].isel(seed=0).transpose("beta", "mu").values
    width, height = wide * count - GAP, tall - GAP
    for row, column in np.argwhere(status != "ok"):
        corner = (column * wide * count - 0.5, (row + 1) * tall - 0.5)
        dead = status[row, column] == "collapsed"
        _mark(ax, corner, width, height, dead)
    heading(ax, "Reconstructions, image → code → image", f"first seed; {objective_note(dataset)}")
    legend_below(made, _marks(status))
    return made


def _mark(ax: Axes, corner: tuple[float, float], width: float, height: float, dead: bool) -> None:
    """Hatch what belongs to a collapsed model, cross what belongs to a diverged one."""
    hatch = COLLAPSED_HATCH if dead else DIVERGED_HATCH
    colour = (1, 0.55, 0.2, 0.75) if dead else MUTED
    ax.add_patch(
        Rectangle(
            corner, width, height, fill=False, hatch=hatch, edgecolor=colour, linewidth=0.6, zorder=3
        )
    )


def _marks(status: np.ndarray) -> list[Artist]:
    """Return legend entries for the marks that occur."""
    words = {"collapsed": "collapsed: no active unit", "diverged": "diverged: nothing to show"}
    hatches = {"collapsed": COLLAPSED_HATCH, "diverged": DIVERGED_HATCH}
    colours = {"collapsed": (1, 0.55, 0.2, 0.9), "diverged": MUTED}
    return [
        Patch(facecolor=BLANK, edgecolor=colours[k], hatch=hatches[k], linewidth=0.6, label=words[k])
        for k in words
        if (status == k).any()
    ]


@figure
def traversals(dataset: xr.Dataset) -> Figure:
    """Decoded images while one latent moves and the others stay at 0, for a few models."""
    mus = _spread(dataset["mu"].values, 3)
    betas = _spread(dataset["beta"].values, 3)
    latents, values = dataset.sizes["latent"], dataset.sizes["latent_value"]
    size = 0.30
    made = new_figure(
        len(mus) * values * size + 1.2, len(betas) * (latents * size + 0.55) + 1.0
    )
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
            ax.set_title(
                f"μ = {plain(mu)}, β = {plain(beta)}: {state}",
                fontsize=8,
                loc="left",
                color=INK if status == "ok" else "#a8370a",
            )
            if status == "diverged":
                _mark(ax, (-0.5, -0.5), wide * values, tall * latents, dead=False)
            if row == len(betas) - 1:
                ends = [0, values // 2, values - 1]
                ax.set_xticks(
                    [place * wide + wide / 2 - GAP for place in ends],
                    [f"{moved[place]:+g}" if moved[place] else "0" for place in ends],
                )
                ax.set_xlabel("value of the latent")
            if column == 0:
                ax.set_ylabel("latents, largest KL on top")
    page_heading(made, "Latent traversals", f"first seed; {objective_note(dataset)}")
    return made


def _spread(values: np.ndarray, count: int) -> list[float]:
    """Return the first, the last and evenly spread values between."""
    places = np.unique(np.linspace(0, len(values) - 1, count).round().astype(int))
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
                _mark(ax, (-0.5, row - 0.5), latents, 1, kind == "collapsed")
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
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.set_label("KL, nats", fontsize=8.5)
    many = dataset.sizes["seed"]
    mean_note = f"; mean of {many} seeds" if many > 1 else ""
    page_heading(made, "KL of every latent", objective_note(dataset) + mean_note)
    legend_below(made, _marks(status))
    return made
