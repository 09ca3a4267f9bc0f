"""The report: figures and one self-contained page, from the dataset alone."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import xarray as xr
from jinja2 import Environment, StrictUndefined

from vaekit.figures import FIGURES, save_figure, write_figures
from vaekit.figures.maps import recovery_difference
from vaekit.figures.style import objective_note
from vaekit.files import write_whole
from vaekit.report import compare, tables
from vaekit.report.asked import asked_tables
from vaekit.report.narrative import narrative, sections
from vaekit.results import settings

__all__ = ["narrative", "write_report"]

# Every figure once, in the order in which the page tells the story.
GROUPS: dict[str, tuple[str, ...]] = {
    "The data": ("examples_training", "examples_noised", "examples_test"),
    "Training": ("curves_over_mu", "curves_over_beta"),
    "The post's two heat maps": ("pmi", "decode_mse"),
    "The same maps, read otherwise": (
        "pmi_exact",
        "reverse_probe",
        "reverse_probe_exact",
        "decode_mse_exact",
        "decode_ratio",
        "reconstruction_mse",
    ),
    "What was recovered": ("recovery_r2", "grid_recovery_r2"),
    "What collapsed": ("active_units", "rate_distortion"),
    "Does β protect against biased data?": ("recovery_over_beta", "information_fraction"),
    "Inside the models": ("kl_per_latent", "reconstructions", "traversals"),
    "Untrained networks": ("baseline",),
}
FIRST = "overview"
# Figures this wide in pixels take a row of their own.
WIDE = 1250


@dataclass(frozen=True)
class Picture:
    """A figure on the page: where its image is, as data, and how it lies on the page."""

    name: str
    title: str
    caption: str
    sources: list[str]
    wide: bool


def write_report(
    dataset: xr.Dataset, directory: Path | str, other: xr.Dataset | None = None
) -> Path:
    """Draw the figures of a run and write its page.

    Args:
        dataset: as `open_results` gives it.
        directory: gets figures/NAME.png and report.html, each whole or not at all; is made if it is
            not there.
        other: a second run, B. Then the page shows both, on the mu and beta that both have; the
            second one's figures go to figures/other.

    Returns:
        The page's path.

    Raises:
        ResultsError: the two runs have no cell in common.
    """
    directory = Path(directory)
    page: dict[str, Any] = {"second": None}
    runs = {"": dataset}
    if other is not None:
        shared = compare.shared_cells(dataset, other)
        runs = dict(zip(("A", "B"), shared, strict=True))
    folders = [directory / "figures", directory / "figures" / "other"]
    images = [
        {path.stem: path for path in write_figures(run, folder)}
        for run, folder in zip(runs.values(), folders, strict=False)
    ]
    if other is not None:
        path = folders[0] / "recovery_difference.png"
        save_figure(recovery_difference(*shared), path)
        page["second"] = {
            "sentences": [unbroken(sentence) for sentence in compare.differences(*shared)],
            "figure": _data(path),
            "tables": [compare.changed_table(*shared), compare.difference_table(*shared)],
        }
    page |= {
        "title": "Recovering latent variables with β-VAEs despite training bias",
        "runs": [_run(label, run) for label, run in runs.items()],
        "first": _picture(FIRST, images),
        "groups": {
            heading: [_picture(name, images) for name in names] for heading, names in GROUPS.items()
        },
    }
    write_whole(directory / "report.html", _render(page))
    return directory / "report.html"


def _run(label: str, dataset: xr.Dataset) -> dict[str, Any]:
    """What the page says of one run in words and tables."""
    config = settings(dataset)
    sizes = dataset.sizes
    warm = f"warmed up over {config['beta_warmup']:,} steps" if config["beta_warmup"] else "fixed"
    return {
        "label": label,
        "preset": config["preset"],
        "facts": {
            "models": f"{sizes['mu'] * sizes['beta'] * sizes['seed']:,} "
            f"({sizes['mu']} μ × {sizes['beta']} β × {sizes['seed']} seed"
            + ("s)" if sizes["seed"] > 1 else ")"),
            "training": f"{config['steps']:,} steps of {config['batch']} images",
            "objective": f"{objective_note(dataset)}, {config['kl']} KL, β {warm}",
            "device": dataset.attrs["device"],
            "time": f"{float(dataset.attrs['seconds_total']):,.0f} s, finished "
            + dataset.attrs["created"].replace("T", " ").replace("+00:00", " UTC"),
        },
        "sections": [
            (heading, [unbroken(sentence) for sentence in sentences])
            for heading, sentences in sections(dataset)
        ],
        "tables": [
            tables.boundary_table(dataset),
            tables.cell_table(dataset),
            *asked_tables(dataset),
            tables.baseline_table(dataset),
            tables.configuration_table(dataset),
            tables.run_table(dataset),
        ],
    }


def unbroken(sentence: str) -> str:
    """Keep "μ = 0" on one line."""
    return sentence.replace(" = ", "\u00a0=\u00a0")


def _picture(name: str, images: list[dict[str, Path]]) -> Picture:
    """Make a figure of the registry ready for the page, one image for each run."""
    entry = FIGURES[name]
    paths = [found[name] for found in images]
    return Picture(
        name, entry.title, entry.caption, [_data(path) for path in paths], _wide(paths[0])
    )


def _wide(path: Path) -> bool:
    """Whether an image is wide, by the width in its PNG header."""
    return int.from_bytes(path.read_bytes()[16:20], "big") > WIDE


def _data(path: Path) -> str:
    """Return an image as a data address, so that the page needs no other file."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _render(page: Mapping[str, Any]) -> str:
    """Fill the page's template; everything in it is escaped."""
    source = files("vaekit.report").joinpath("report.html.j2").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(source).render(page)
