"""Pictures: example images and reconstructions."""

from __future__ import annotations

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from vaekit.figures.heatmap import COLLAPSED_HATCH, DIVERGED_HATCH
from vaekit.figures.style import (
    BLANK,
    MUTED,
    Colour,
    figure,
    heading,
    legend_below,
    new_figure,
    objective_note,
    plain,
)
from vaekit.results import settings

GAP = 2
SHOWN = 2
# Orange stays apart from every grey of an image; in print its lines are still lines.
ON_GREY = (1.0, 0.55, 0.2, 0.8)


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


def _example_rows(
    dataset: xr.Dataset, name: str, title: str, limits: tuple[float, float]
) -> Figure:
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
    made = new_figure(max(len(images) * 0.42, 3) + 0.3, 1.05)
    ax = made.subplots()
    show(ax, images[None], grey_limits(dataset))
    config = settings(dataset)
    levels = ", ".join(plain(level) for level in config["test_levels"])
    many = len(config["test_levels"]) ** config["grid"] ** 2
    heading(
        ax, "Test images", f"{len(images)} of the {many:,}: every combination of {levels}, no noise"
    )
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
    made = new_figure(max(columns * count * size, 3.4) + 1.0, (rows + 1) * size + 1.35)
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
        mark(ax, corner, width, height, dead)
    heading(ax, "Reconstructions", f"first seed; {objective_note(dataset)}")
    legend_below(made, marks(status))
    return made


def mark(
    ax: Axes,
    corner: tuple[float, float],
    width: float,
    height: float,
    dead: bool,
    hatching: Colour = ON_GREY,
) -> None:
    """Hatch what belongs to a collapsed model, cross what belongs to a diverged one."""
    hatch = COLLAPSED_HATCH if dead else DIVERGED_HATCH
    colour = hatching if dead else to_rgba(MUTED)
    ax.add_patch(
        Rectangle(
            corner,
            width,
            height,
            fill=False,
            hatch=hatch,
            edgecolor=colour,
            linewidth=0.6,
            zorder=3,
        )
    )


def marks(status: np.ndarray, hatching: Colour = ON_GREY) -> list[Artist]:
    """Return legend entries for the marks that occur."""
    words = {"collapsed": "collapsed: no active unit", "diverged": "diverged: nothing to show"}
    hatches = {"collapsed": COLLAPSED_HATCH, "diverged": DIVERGED_HATCH}
    colours = {"collapsed": hatching, "diverged": to_rgba(MUTED)}
    return [
        Patch(
            facecolor=BLANK, edgecolor=colours[k], hatch=hatches[k], linewidth=0.6, label=words[k]
        )
        for k in words
        if (status == k).any()
    ]
