"""The heat maps: the post's two, every other reading of them, and the honest measures."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from vaekit.figures.heatmap import (
    Scale,
    colour_bar,
    draw_map,
    map_figure,
    map_size,
)
from vaekit.figures.style import (
    converged,
    figure,
    heading,
    house_style,
    legend_below,
    new_figure,
    objective_note,
    seeds_note,
)
from vaekit.results import in_order, settings

R2 = Scale("R²", 1.0)
CODE_MSE = Scale("MSE in units of the code²", 2.0, low_is_better=True, root=True)


def truth_scale(dataset: xr.Dataset) -> Scale:
    """Limits of an MSE of the truth: up to the variance of the test levels."""
    upper = float(np.var(settings(dataset)["test_levels"]))
    return Scale("MSE in units of intensity²", upper, low_is_better=True)


def pixel_scale(dataset: xr.Dataset) -> Scale:
    """Limits of an MSE per pixel: up to that of the worst constant image, black or white.

    With the levels 0.1, 0.5 and 0.9 that is 0.357. The linear grid has no black and white: there
    it is the worst mean image of the sweep.
    """
    config = settings(dataset)
    mean, variance = np.mean(config["test_levels"]), np.var(config["test_levels"])
    upper = float(variance + max(mean, 1 - mean) ** 2)
    if config["generator"] == "linear":
        upper = float(dataset["decode_mse_constant"].max())
    return Scale("MSE per pixel, intensity²", upper, low_is_better=True, root=True)


@figure
def overview(dataset: xr.Dataset) -> Figure:
    """The post's first heat map beside the recovery that an honest measure finds."""
    width, height = map_size(dataset)
    made = new_figure(2 * width, height)
    left, right = made.subplots(1, 2)
    note = objective_note(dataset) + seeds_note(dataset)
    post = dataset["probe_mse"].sel(direction="truth_to_code", fit="adam")
    handles = draw_map(left, dataset, post, CODE_MSE)
    heading(left, "The post's probe as worded: MSE, truth → code", f"3 epochs; {note}")
    colour_bar(made, left, post, CODE_MSE)
    draw_map(right, dataset, dataset["recovery_r2"], R2)
    heading(right, "What was recovered: R², code → truth", f"fresh noisy images; {note}")
    colour_bar(made, right, dataset["recovery_r2"], R2)
    legend_below(made, handles)
    return made


@figure
def pmi(dataset: xr.Dataset) -> Figure:
    """The post's first heat map: MSE of the 3-epoch probe from truth to code."""
    values = dataset["probe_mse"].sel(direction="truth_to_code", fit="adam")
    return map_figure(dataset, values, "Probe MSE, truth → code (3 epochs)", CODE_MSE)


@figure
def pmi_exact(dataset: xr.Dataset) -> Figure:
    """The same probe fitted by least squares."""
    values = dataset["probe_mse"].sel(direction="truth_to_code", fit="exact")
    return map_figure(dataset, values, "Probe MSE, truth → code (least squares)", CODE_MSE)


@figure
def reverse_probe(dataset: xr.Dataset) -> Figure:
    """The probe from code to truth, trained for 3 epochs."""
    values = dataset["probe_mse"].sel(direction="code_to_truth", fit="adam")
    title = "Probe MSE, code → truth (3 epochs)"
    return map_figure(dataset, values, title, truth_scale(dataset))


@figure
def reverse_probe_exact(dataset: xr.Dataset) -> Figure:
    """The probe from code to truth, fitted by least squares."""
    values = dataset["probe_mse"].sel(direction="code_to_truth", fit="exact")
    title = "Probe MSE, code → truth (least squares)"
    return map_figure(dataset, values, title, truth_scale(dataset))


@figure
def decode_mse(dataset: xr.Dataset) -> Figure:
    """The post's second heat map: MSE of the decoded projection, 3-epoch probe."""
    values = dataset["decode_mse"].sel(fit="adam")
    title = "Decode MSE, truth → code → image (3 epochs)"
    return map_figure(dataset, values, title, pixel_scale(dataset))


@figure
def decode_mse_exact(dataset: xr.Dataset) -> Figure:
    """The same with the probe fitted by least squares."""
    values = dataset["decode_mse"].sel(fit="exact")
    title = "Decode MSE, truth → code → image (least squares)"
    return map_figure(dataset, values, title, pixel_scale(dataset))


@figure
def decode_ratio(dataset: xr.Dataset) -> Figure:
    """Decode MSE as a multiple of what the best constant image scores."""
    values = dataset["decode_mse"].sel(fit="exact") / dataset["decode_mse_constant"]
    scale = Scale("ratio of MSEs", 1.0, low_is_better=True)
    return map_figure(dataset, values, "Decode MSE ÷ MSE of the mean image", scale)


@figure
def reconstruction_mse(dataset: xr.Dataset) -> Figure:
    """MSE of decoding what the encoder makes of the test images, no probe between."""
    title = "Reconstruction MSE, image → code → image"
    return map_figure(dataset, dataset["reconstruction_mse"], title, pixel_scale(dataset))


@figure
def recovery_r2(dataset: xr.Dataset) -> Figure:
    """R2 code to truth on fresh noisy draws, inactive latents dropped."""
    title = "Recovery R², code → truth (noisy images)"
    return map_figure(dataset, dataset["recovery_r2"], title, R2)


@figure
def grid_recovery_r2(dataset: xr.Dataset) -> Figure:
    """R2 code to truth on the clean test grid, inactive latents dropped."""
    title = "Recovery R², code → truth (clean grid)"
    return map_figure(dataset, dataset["grid_recovery_r2"], title, R2)


@figure
def active_units(dataset: xr.Dataset) -> Figure:
    """Latents in use, with theory's boundary."""
    scale = Scale("active units", float(dataset.sizes["latent"]), whole=True)
    title = f"Active units, of {dataset.sizes['latent']}"
    return map_figure(dataset, dataset["active_units"], title, scale)


@figure
def information_fraction(dataset: xr.Dataset) -> Figure:
    """Information recovered, as a fraction of what the images hold."""
    ceiling = dataset["information_ceiling"]
    values = dataset["information"] / ceiling.where(np.isfinite(ceiling) & (ceiling > 0))
    title = "Information recovered, of what images hold"
    return map_figure(dataset, values, title, Scale("fraction of the ceiling I(z; x)", 1.0))


def recovery_difference(first: xr.Dataset, second: xr.Dataset) -> Figure:
    """Recovery R2 of a second run less that of a first, on the mu and beta that both have.

    Args:
        first: a dataset.
        second: another, on the same mu and beta.
    """
    runs = [in_order(run) for run in (first, second)]
    means = [converged(run, run["recovery_r2"]).mean("seed") for run in runs]
    both = [(run["status"] == "collapsed").all("seed") for run in runs]
    status = np.where((both[0] & both[1]).values, "collapsed", "ok")
    shown = runs[0][["critical_beta"]].assign(
        status=xr.DataArray(status, both[0].coords, both[0].dims).expand_dims("seed")
    )
    scale = Scale("R² of B − R² of A", 1.0, signed=True)
    with house_style():
        made = new_figure(*map_size(shown))
        ax = made.subplots()
        values = (means[1] - means[0]).expand_dims("seed")
        handles = draw_map(ax, shown, values, scale)
        heading(ax, "Recovery R², B − A", "hatched: collapsed in both; means over the seeds")
        colour_bar(made, ax, values, scale)
        legend_below(made, handles, columns=2 if made.get_figwidth() > 6.5 else 1)
    return made
