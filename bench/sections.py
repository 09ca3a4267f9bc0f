"""What stands on the benchmark's page, in order: each part's samples, figure, table and note."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from matplotlib.figure import Figure

from bench import figures, tables
from bench.curves import FLOOR, peers_of
from bench.static import resource_note, resource_rows
from bench.tables import Rows


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        key: the samples that it is made from.
        title: its heading.
        name: of its figure.
        note: what a reader needs to know of it, or what says that from the samples.
        draw, rows: its figure and its table, if it has them.
        long: whether the table is folded on the page and left out of the summary.
    """

    key: str
    title: str
    name: str
    note: str | Callable[[dict[str, Any]], str]
    draw: Callable[[dict[str, Any]], Figure] | None = None
    rows: Callable[[dict[str, Any]], Rows] | None = None
    long: bool = False


BESIDE = (
    "Every peer was held to the same losses before it was timed and after. Times are interleaved "
    "rounds in one process. The last column is a first block, which is not among them: it holds "
    "what a peer compiles, unless an earlier run has left that in the compiler's cache. The peak "
    "is that of large matrix multiplications in a row's own precision, in this run."
)
ON_CPU = (
    " On a CPU two libraries multiply float32 matrices, and vaekit takes the faster one that is as "
    "accurate. So does stacked + torch.compile here, and stacked autograd in the row that says so; "
    "the other torch peers are PyTorch as it is by default."
)
ON_CARD = (
    " On a card vaekit replays a block of steps as one CUDA graph, and so does stacked + "
    "torch.compile, Adam included."
)


def on_card(content: dict[str, Any]) -> bool:
    """Whether the engine was timed on a card: what is timed there alone is among the samples."""
    return "rows" in content.get("full_float32", {})


def beside_note(content: dict[str, Any]) -> str:
    """Say how peers were timed, and on a CPU by which library they multiply."""
    return BESIDE + (ON_CARD if on_card(content) else ON_CPU)


def scaling_note(content: dict[str, Any]) -> str:
    """Say what the floor is, and how peers were timed, if they were."""
    note = f"The floor is measured: {FLOOR[on_card(content)]}, and nothing else."
    peers = peers_of(content["scaling"]["curve"])
    if not peers:
        return note
    return (
        f"{note} Peers take turns with it, held to the same losses. On a CPU every block starts "
        "from rest, so that no other library's threads are awake."
    )


def sweeps_note(content: dict[str, Any]) -> str:
    """Say what a whole sweep is, and what of it was compiled before."""
    what = "363 models of 10,000 steps, their measures and figures, in a process of its own; "
    if "stages" not in content["sweeps"]:
        return what + (
            "the kernels that train were compiled before. Nothing saw to those that measure."
        )
    return what + (
        "the kernels were compiled before. All else is the start of Python and of the card, the "
        "dataset, the figures and the page."
    )


SECTIONS = (
    Section(
        "full_float32",
        "A full stack, float32 products",
        "ladder_float32",
        BESIDE + ON_CARD,
        partial(figures.ladder, key="full_float32"),
        partial(tables.peer_rows, key="full_float32"),
    ),
    Section(
        "full_tf32",
        "A full stack, tf32 products",
        "ladder_tf32",
        "As above, and vaekit with bf16 products beside it. Losses are held to the definition's in "
        "float32, to 1 %.",
        partial(figures.ladder, key="full_tf32"),
        partial(tables.peer_rows, key="full_tf32"),
    ),
    Section(
        "whole",
        "Whole trainings",
        "whole",
        "From untrained models to the last step, images and noise included, after a short training "
        "that compiles the kernels. The floor is 24 bytes a parameter and step, weights and Adam's "
        "moments read and written, at the rate of a copy in this run.",
        rows=tables.whole_rows,
    ),
    Section(
        "sweeps",
        "The preset post, from start to report",
        "sweeps",
        sweeps_note,
        rows=tables.sweep_rows,
    ),
    Section(
        "peers",
        "Beside its peers",
        "ladder",
        beside_note,
        figures.ladder,
        tables.peer_rows,
    ),
    Section(
        "scaling",
        "Against the number of models",
        "scaling",
        scaling_note,
        figures.scaling,
        partial(tables.curve_rows, key="scaling"),
    ),
    Section(
        "batch",
        "Against the batch",
        "batch",
        "",
        figures.batch,
        partial(tables.curve_rows, key="batch"),
    ),
    Section(
        "width",
        "Against the width",
        "width",
        "",
        figures.width,
        partial(tables.curve_rows, key="width"),
    ),
    Section(
        "memory",
        "Peak memory",
        "memory",
        "Planned is what a stack is sized by: parameters, gradient, both moments, activations, and "
        "the images and noise of a block of steps. A checkpoint is not in it.",
        figures.memory,
        tables.memory_rows,
    ),
    Section(
        "parts",
        "Where a step goes",
        "parts",
        "With float32 products, by PyTorch's profiler, which costs a microsecond or two an "
        "operation; images and noise are drawn for several steps at once.",
        figures.parts,
        tables.part_rows,
    ),
    Section(
        "operations",
        "Single operations",
        "roofline",
        tables.operation_note,
        figures.roofline,
        tables.operation_rows,
    ),
    Section(
        "kernels",
        "Kernels on the card",
        "kernels",
        tables.kernel_note,
        partial(figures.roofline, key="kernels"),
        tables.kernel_rows,
    ),
    Section(
        "resources",
        "What the kernels ask of a card",
        "resources",
        resource_note,
        rows=resource_rows,
        long=True,
    ),
    Section(
        "demonstration",
        "Does the gate keep its word?",
        "demonstration",
        tables.demonstration_note,
        figures.demonstration,
        tables.demonstration_rows,
    ),
    Section(
        "peers",
        "Noise",
        "noise",
        "The engine against itself: what this machine's noise alone does.",
        figures.noise,
    ),
)
