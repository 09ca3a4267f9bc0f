"""The benchmark's page: index.html, summary.md and figures, made from the stored samples alone."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from matplotlib.figure import Figure

from bench import figures, tables
from bench.peers import OURS, OURS_AGAIN
from bench.static import resource_note, resource_rows
from bench.tables import Rows
from vaekit.figures import save_figure
from vaekit.files import write_whole

TEMPLATE = Path(__file__).with_name("report.html.j2")


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


SECTIONS = (
    Section(
        "peers",
        "Beside its peers",
        "ladder",
        "Every peer was held to the same losses before it was timed and after. Times are "
        "interleaved rounds in one process. A first block, which is not among them, holds what a "
        "peer compiles, unless an earlier run has left that in the compiler's cache.",
        figures.ladder,
        tables.peer_rows,
    ),
    Section(
        "scaling",
        "Against the number of models",
        "scaling",
        "The floor is measured: the products of a step and one pass of Adam, and nothing else.",
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
        "the images and noise of a block of steps.",
        figures.memory,
        tables.memory_rows,
    ),
    Section(
        "parts",
        "Where a step goes",
        "parts",
        "By PyTorch's profiler, which costs a microsecond or two an operation; images and noise "
        "are drawn for several steps at once.",
        figures.parts,
        tables.part_rows,
    ),
    Section(
        "operations",
        "Single operations",
        "roofline",
        "Each was held to its definition before and after it was timed, and each call reads memory "
        "that is not in cache. The error is the largest one against the definition in float64, "
        "over the largest value. The roof is the slower of the bytes at the rate of a copy and the "
        "arithmetic at the rate of products; the functions and the integer noise of these "
        "operations are slower than products, so most of them cannot come near it.",
        figures.roofline,
        tables.operation_rows,
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
        "Comparisons in real processes, of a commit with itself and with a copy of it that does "
        "5 % more work. Dashes: the limit that an interval must lie above.",
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


def load(folder: Path) -> dict[str, Any]:
    """Read the samples of a machine.

    Raises:
        SystemExit: there are none.
    """
    path = folder / "training.json"
    if not path.is_file():
        raise SystemExit(f"bench: {path} is not there; `nox -s bench` without --report makes it")
    content = json.loads(path.read_text(encoding="utf-8"))
    for name in ("operations", "demonstration"):
        other = folder / f"{name}.json"
        if other.is_file():
            content[name] = json.loads(other.read_text(encoding="utf-8"))
    return content


def write_report(folder: Path) -> Path:
    """Write index.html, summary.md and figures/*.png of a machine's benchmark.

    Args:
        folder: reports/bench/<machine>, which holds training.json and what else was measured.

    Returns:
        The page.

    Raises:
        SystemExit: there are no samples.
    """
    content = load(folder)
    pictures = folder / "figures"
    pictures.mkdir(exist_ok=True)
    parts = []
    for section in SECTIONS:
        measured = content.get(section.key, {"skipped": {}})
        if section.draw and set(measured) == {"skipped"}:
            continue
        picture = ""
        if section.draw:
            path = pictures / f"{section.name}.png"
            save_figure(section.draw(content), path)
            picture = base64.b64encode(path.read_bytes()).decode()
        note = section.note if isinstance(section.note, str) else section.note(content)
        rows = section.rows(content) if section.rows else []
        parts.append(
            {
                "title": section.title,
                "name": section.name,
                "note": note,
                "picture": picture,
                "rows": rows,
                "long": section.long,
            }
        )
    write_whole(folder / "summary.md", summary(content, parts))
    page = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).from_string(TEMPLATE.read_text(encoding="utf-8"))
    write_whole(
        folder / "index.html",
        page.render(
            machine=content["provenance"]["machine"],
            source=folder.name,
            facts=facts(content),
            findings=findings(content),
            parts=parts,
        ),
    )
    return folder / "index.html"


def facts(content: dict[str, Any]) -> dict[str, str]:
    """How the samples were made, and what the machine could do while they were."""
    made = content["provenance"]
    found = {
        "command": made["command"],
        "commit": made["commit"],
        "date": made["date"],
        "machine": made["machine"],
        "versions": ", ".join(f"{k} {v}" for k, v in made["versions"].items() if k != "platform"),
        "platform": made["platform"],
    }
    ceilings = content.get("ceilings")
    if ceilings:
        found["copies"] = f"{ceilings['copy_bytes_per_second'] / 1e9:.1f} GB/s, read and written"
        rates = ceilings["product_flops_per_second"]
        found["products"] = ", ".join(f"{v / 1e9:,.0f} GFLOP/s {k}" for k, v in rates.items())
        found["a call"] = f"{ceilings['seconds_per_call'] * 1e6:.1f} us"
    skipped = "; ".join(f"{name}: {why}" for name, why in all_skipped(content))
    return found | ({"skipped": skipped} if skipped else {})


def all_skipped(content: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Everything that was not measured, and why."""
    for part in content.values():
        if isinstance(part, dict):
            yield from part.get("skipped", {}).items()


def findings(content: dict[str, Any]) -> list[str]:
    """What the samples say, in sentences."""
    peers, curve = content["peers"], content["scaling"]["curve"]
    rows = peers["rows"]
    others = {name: row for name, row in rows.items() if name not in {OURS, OURS_AGAIN}}
    nearest = min(others, key=lambda name: others[name]["ratio"][0])
    mid, low, high = others[nearest]["ratio"]
    best = min(curve, key=lambda models: curve[models]["ms_per_model_step"])
    least = curve[best]
    _, same_low, same_high = rows[OURS_AGAIN]["ratio"]
    relation = "ahead of" if low > 1 else "behind" if high < 1 else "level with"
    cost = rows[OURS]["ms_per_model_step"]
    return [
        f"{peers['models']} models of the default network cost {cost:.2f} ms a model-step.",
        f"That is {relation} its nearest peer: {nearest} takes {mid:.2f} times as long.",
        f"The cheapest stack is one of {best} models: {least['ms_per_model_step']:.2f} ms.",
        f"Of that, the products and one pass of Adam alone take {least['floor_ms']:.2f} ms.",
        f"Against itself the engine reads {same_low:.3f} to {same_high:.3f}: that much is noise.",
    ]


def summary(content: dict[str, Any], parts: list[dict[str, Any]]) -> str:
    """The report as Markdown."""
    lines = ["# Benchmark", ""]
    lines += [f"- {name}: {value}" for name, value in facts(content).items()]
    lines += ["", *(f"- {sentence}" for sentence in findings(content))]
    for part in parts:
        lines += ["", f"## {part['title']}"]
        lines += ["", part["note"]] if part["note"] else []
        if part["picture"]:
            lines += ["", f"![{part['title']}](figures/{part['name']}.png)"]
        if part["rows"] and not part["long"]:
            head, *rows = part["rows"]
            lines += ["", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
            lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines) + "\n"
