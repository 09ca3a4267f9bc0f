"""Figures of a sweep: drawn from the dataset alone, which they average over seeds and no more."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vaekit.figures import curves, images, latents, maps, points
from vaekit.figures.style import DPI, Drawer, house_style
from vaekit.files import write_whole
from vaekit.host import cores, free_bytes
from vaekit.processes import elsewhere

# So many processes draw at most. Each takes as many bytes, and the dataset three times: as it came,
# whole, and in order.
PROCESSES, PROCESS_BYTES, DATASET_COPIES = 8, 2 * 10**8, 3


class Entry(NamedTuple):
    """A figure of the registry: what draws it, its title, and its caption."""

    draw: Drawer
    title: str
    caption: str


FIGURES: dict[str, Entry] = {
    "overview": Entry(
        maps.overview,
        "The post's measure and an honest one",
        "Left, the post's probe as it is worded: the MSE of a linear map from truth to code. "
        "Right, what a linear map reads back from the code of fresh noisy images. Light is a "
        "better score in both. The code of a collapsed model hardly varies, which makes it easy to "
        "predict: its MSE goes to 0 on the left, while nothing is recovered on the right.",
    ),
    "examples_training": Entry(
        images.examples_training,
        "Example training images before the noise",
        "A row for each μ. With the sigmoid, the larger μ is, the closer every tile is to white "
        "and the less there is to see.",
    ),
    "examples_noised": Entry(
        images.examples_noised,
        "The same images with noise",
        "What the models are trained on: the images above with Gaussian noise on every pixel.",
    ),
    "examples_test": Entry(
        images.examples_test,
        "Example test images",
        "Clean images of every combination of the test levels, the same for every μ. At large μ "
        "they are far outside what a model was trained on.",
    ),
    "curves_over_mu": Entry(
        curves.curves_over_mu,
        "Training curves over μ",
        "The post shows the loss; its two parts stand beside it. The plunge of the first steps is "
        "outside the frame.",
    ),
    "curves_over_beta": Entry(
        curves.curves_over_beta,
        "Training curves over β",
        "The loss contains β itself, so it rises with β even where the model is the same; the two "
        "parts can be compared.",
    ),
    "pmi": Entry(
        maps.pmi,
        "The post's first heat map: probe MSE, truth → code, 3 epochs",
        "The post's proxy for mutual information. Hatched cells are collapsed: their code hardly "
        "varies, so that its MSE goes to 0 without anything being recovered.",
    ),
    "pmi_exact": Entry(
        maps.pmi_exact,
        "The same probe fitted exactly",
        "Truth → code by least squares: what is left when the probe's own training is taken out.",
    ),
    "reverse_probe": Entry(
        maps.reverse_probe,
        "The probe the other way, 3 epochs",
        "Code → truth: the only reading under which an untrained network scores the post's 0.1121. "
        "The darkest colour is the variance of the test levels, which predicting the mean scores.",
    ),
    "reverse_probe_exact": Entry(
        maps.reverse_probe_exact,
        "The probe the other way, fitted exactly",
        "Code → truth by least squares on the clean test grid. The code of a collapsed model still "
        "varies a little, and least squares blows that up: this reading can flatter collapse too. "
        "The recovery R² below leaves inactive latents out.",
    ),
    "decode_mse": Entry(
        maps.decode_mse,
        "The post's second heat map: decode MSE, 3 epochs",
        "MSE between the test image of a truth and the decoded projection of that truth, with the "
        "post's 3-epoch probe. Colours are on a square-root scale up to the worst constant image.",
    ),
    "decode_mse_exact": Entry(
        maps.decode_mse_exact,
        "Decode MSE with the probe fitted exactly",
        "The same path with the least-squares probe. What differs from the map before it is the "
        "probe's training, not the model.",
    ),
    "decode_ratio": Entry(
        maps.decode_ratio,
        "Decode MSE against the best constant",
        "Least-squares decode MSE divided by the MSE of the training distribution's mean image, "
        "which is what a collapsed decoder gives once it is trained.",
    ),
    "reconstruction_mse": Entry(
        maps.reconstruction_mse,
        "Reconstruction MSE, without a probe",
        "D(encode(x)) against x on the clean test grid.",
    ),
    "recovery_r2": Entry(
        maps.recovery_r2,
        "Recovery on the training distribution",
        "R² of the best linear map from code to truth on fresh noisy draws, inactive latents "
        "dropped. Noise bounds what any model can reach, more tightly at larger μ.",
    ),
    "grid_recovery_r2": Entry(
        maps.grid_recovery_r2,
        "Recovery on the test grid",
        "The same on the clean test grid, which lies outside the training distribution at large μ.",
    ),
    "information_fraction": Entry(
        maps.information_fraction,
        "Recovered information as a fraction of the ceiling",
        "Gaussian mutual information of truth and code on fresh noisy draws, divided by what the "
        "images hold about the truth at that μ. The loss of signal with μ is divided out, so what "
        "is left is the model's doing.",
    ),
    "active_units": Entry(
        maps.active_units,
        "Active units and the boundary of theory",
        "Latents whose mean has a variance above 0.01. In theory units can live below the dashed "
        "line; where cells below it are collapsed, training did not get there.",
    ),
    "recovery_over_beta": Entry(
        curves.recovery_over_beta,
        "Does β protect against biased data?",
        "Recovery on fresh noisy draws over β, a line for each μ. If β protected, the ringed best "
        "β would move to the right as μ rises.",
    ),
    "rate_distortion": Entry(
        points.rate_distortion,
        "Rate and distortion",
        "Every model in the plane of its two costs on fresh noisy draws, larger dots at larger β, "
        "a line for each μ. A collapsed model transmits nothing.",
    ),
    "kl_per_latent": Entry(
        latents.kl_per_latent,
        "KL of every latent",
        "Sorted within each model, a row for each β. Colours are on a square-root scale.",
    ),
    "reconstructions": Entry(
        images.reconstructions,
        "Reconstructions",
        "The images on top and what each model makes of them.",
    ),
    "traversals": Entry(
        latents.traversals,
        "Latent traversals",
        "One latent moves, the others stay at 0. All tiles vary alike, so the axes of the "
        "latents are free to rotate: a latent need not be a tile.",
    ),
    "baseline": Entry(
        points.baseline,
        "Untrained networks",
        "Each dot is an untrained network measured with the same probes; the post's average over 3 "
        "networks is the dashed line.",
    ),
}


def as_png(made: Figure) -> bytes:
    """Render a figure as the content of a PNG file."""
    content = BytesIO()
    with house_style():
        made.set_dpi(DPI)
        # `savefig` would draw everything twice, the first time to lay it out, which drawing does.
        canvas = FigureCanvasAgg(made)
        canvas.print_png(content, metadata={"Software": None})  # type: ignore[no-untyped-call]
    return content.getvalue()


def save_figure(made: Figure, path: Path | str) -> None:
    """Write a figure as PNG, whole or not at all.

    Args:
        made: the figure.
        path: the file; its directory must exist.
    """
    write_whole(path, as_png(made))


def write_figures(
    dataset: xr.Dataset, directory: Path | str, *, processes: int | None = None
) -> list[Path]:
    """Draw every figure of the registry into a directory.

    Args:
        dataset: as `open_results` gives it.
        directory: is made if it is not there.
        processes: that draw, as matplotlib does so in one thread; 1 is this one alone. None: one
            for each core, up to `PROCESSES`, of as many as there is memory for.

    Returns:
        The files, one NAME.png for each figure, in the registry's order.

    Raises:
        RunError: a figure cannot be drawn by another process.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    paths = [directory / f"{name}.png" for name in FIGURES]
    if processes is None:
        fit = free_bytes() // (PROCESS_BYTES + DATASET_COPIES * dataset.nbytes)
        processes = max(1, min(PROCESSES, cores(), fit))
    count = min(processes, len(paths))
    drawn = elsewhere(drawn_of, dataset, list(FIGURES), count)
    for path, content in zip(paths, drawn, strict=True):
        write_whole(path, content)
    return paths


def drawn_of(dataset: xr.Dataset, name: str) -> bytes:
    """Draw a figure of the registry, by its name: that is what another process can be told."""
    return as_png(FIGURES[name].draw(dataset))
