"""One look for all figures: type, colours, headings. Nothing here changes matplotlib's globals."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import matplotlib.style
import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.text import Annotation

from vaekit.results import in_order, settings

INK = "#1d2530"
MUTED = "#5b6672"
RULE = "#c9ced6"
BLANK = "#e8eaee"
# Of every file, in dots per inch.
DPI = 150
# Vermilion: apart from the blues and yellows of viridis for every kind of colour vision.
ACCENT = "#c8410b"

STYLE: dict[str, Any] = {
    "axes.edgecolor": RULE,
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "grid.color": "#e6e9ed",
    "grid.linewidth": 0.7,
    "hatch.linewidth": 0.9,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "text.color": INK,
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 8.5,
}

Drawer = Callable[[xr.Dataset], Figure]
Colour = tuple[float, float, float, float]


@contextmanager
def house_style() -> Iterator[None]:
    """Draw in the house style, whatever the user's own settings are, and put those back."""
    with matplotlib.style.context(["default", STYLE]):
        yield


def figure(draw: Drawer) -> Drawer:
    """Make a function a figure: drawn in the house style, mu and beta in increasing order."""

    @functools.wraps(draw)
    def drawn(dataset: xr.Dataset) -> Figure:
        with house_style():
            return draw(in_order(dataset))

    return drawn


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches that keeps its parts from overlapping."""
    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06))


def heading(ax: Axes, title: str, subtitle: str = "") -> None:
    """Put a bold title and a quiet line below it over the left edge of a panel."""
    lines = subtitle.count("\n") + 1 if subtitle else 0
    ax.set_title(title, loc="left", fontsize=10.5, fontweight="bold", color=INK, pad=7 + 11 * lines)
    if subtitle:
        words = ax.annotate(
            subtitle,
            (0, 1),
            (0, 6),
            xycoords="axes fraction",
            textcoords="offset points",
            fontsize=8,
            color=MUTED,
            va="bottom",
        )
        # A long subtitle may run over the colour bar's column instead of pushing it away.
        words.set_in_layout(False)


def page_heading(made: Figure, title: str, subtitle: str = "") -> None:
    """Put a heading over a figure of several panels."""
    # The empty second line is the room of the subtitle, which hangs on the title.
    words = made.suptitle(
        f"{title}\n ", x=0.012, ha="left", fontsize=10.5, fontweight="bold", linespacing=1.1
    )
    below = Annotation(
        subtitle,
        (0, 0),
        (0, 2),
        xycoords=words,
        textcoords="offset points",
        fontsize=8,
        color=MUTED,
    )
    below.set_in_layout(False)
    made.add_artist(below)


def legend_below(made: Figure, handles: Sequence[Artist], columns: int = 3) -> None:
    """Put a legend under everything, at the left; none if there is nothing to say."""
    if handles:
        made.legend(
            handles=list(handles), loc="outside lower left", ncols=columns, handlelength=2.4
        )


def sequence(count: int) -> list[Colour]:
    """Colours of an ordered family of lines: from dark to light, told apart in grey too."""
    colours = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.9, count))
    return [(float(r), float(g), float(b), float(a)) for r, g, b, a in colours]


def line_key(colours: list[Colour], values: np.ndarray) -> list[Line2D]:
    """Return a legend entry for each line of an ordered family."""
    return [
        Line2D([], [], color=colour, linewidth=2.2, label=plain(value))
        for colour, value in zip(colours, values, strict=True)
    ]


def dot_key(marker: str, label: str, **look: Any) -> Line2D:
    """Return a legend entry for a marker."""
    return Line2D([], [], marker=marker, label=label, **{"linestyle": "", "color": MUTED, **look})


def ink_on(colour: Colour) -> str:
    """Return black or white, whichever is read better on a colour (WCAG relative luminance)."""
    channels = np.array(colour[:3])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ [0.2126, 0.7152, 0.0722])
    return "black" if (luminance + 0.05) ** 2 > 0.05 * 1.05 else "white"


def plain(value: float) -> str:
    """Write a coordinate's value as shortly as it is exact to read: 0.5, −2, 10."""
    return f"{value:g}".replace("-", "−")


def spans(values: np.ndarray, chosen: np.ndarray) -> str:
    """Write the chosen ones of a coordinate's values as a list, neighbours as a range.

    Args:
        values: [n] in order.
        chosen: [n] bool.
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[False], chosen, [False]])))
    parts = []
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        if stop - start > 2:
            parts.append(f"{plain(values[start])} to {plain(values[stop - 1])}")
        else:
            parts += [plain(value) for value in values[start:stop]]
    return ", ".join(parts)


def objective_note(dataset: xr.Dataset) -> str:
    """Say what beta is relative to: it means nothing without the likelihood."""
    config = settings(dataset)
    if config["likelihood"] == "gaussian":
        return f"decoder variance {plain(config['decoder_variance'])}"
    return f"{config['likelihood']} likelihood"


def seeds_note(dataset: xr.Dataset) -> str:
    """Say what a cell's number is when there are several seeds."""
    count = dataset.sizes["seed"]
    if count == 1:
        return ""
    return f"; mean ± standard deviation of {count} seeds"


def diverged_note(dataset: xr.Dataset) -> str:
    """Say how many models diverged, and so are in no average; nothing if none did."""
    gone = int((dataset["status"] == "diverged").sum())
    return f"; {gone} of {dataset['status'].size} models diverged, left out" if gone else ""


def converged(dataset: xr.Dataset, values: xr.DataArray) -> xr.DataArray:
    """Blank the runs that diverged, so that averages are over the others."""
    return values.where(dataset["status"] != "diverged")
