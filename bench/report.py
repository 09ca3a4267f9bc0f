"""The benchmark's page: index.html, summary.md and figures, made from the stored samples alone."""

from __future__ import annotations

import base64
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from matplotlib.figure import Figure

from vaekit.figures import save_figure
from vaekit.figures.style import ACCENT, INK, MUTED, RULE, heading, house_style, new_figure
from vaekit.files import write_whole

TEMPLATE = Path(__file__).with_name("report.html.j2")
OURS, AGAIN = "vaekit", "vaekit again (A/A)"


def write_report(folder: Path) -> Path:
    """Write index.html, summary.md and figures/*.png of a machine's training benchmark.

    Args:
        folder: reports/bench/<machine>, which holds training.json.

    Returns:
        The page.

    Raises:
        SystemExit: there are no samples.
    """
    path = folder / "training.json"
    if not path.is_file():
        raise SystemExit(f"bench: {path} is not there; `nox -s bench` without --report makes it")
    content = json.loads(path.read_text(encoding="utf-8"))
    figures = folder / "figures"
    figures.mkdir(exist_ok=True)
    drawn = {"ladder": ladder(content), "scaling": scaling(content), "noise": noise(content)}
    for name, made in drawn.items():
        save_figure(made, figures / f"{name}.png")
    tables = {"peers": peer_rows(content), "scaling": scaling_rows(content)}
    source = folder.name
    write_whole(folder / "summary.md", summary(content, tables))
    page = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).from_string(TEMPLATE.read_text(encoding="utf-8"))
    pictures = {
        name: base64.b64encode((figures / f"{name}.png").read_bytes()).decode() for name in drawn
    }
    write_whole(
        folder / "index.html",
        page.render(
            machine=content["provenance"]["machine"],
            source=source,
            facts=facts(content),
            findings=findings(content),
            tables=tables,
            pictures=pictures,
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
    skipped = content["peers"]["skipped"]
    if skipped:
        found["skipped"] = "; ".join(f"{name}: {why}" for name, why in skipped.items())
    return found


def findings(content: dict[str, Any]) -> list[str]:
    """What the samples say, in sentences."""
    peers, curve = content["peers"], content["scaling"]["curve"]
    rows = peers["rows"]
    others = {name: row for name, row in rows.items() if name not in {OURS, AGAIN}}
    nearest = min(others, key=lambda name: others[name]["ratio"][0])
    mid, low, high = others[nearest]["ratio"]
    best = min(curve, key=lambda models: curve[models]["ms_per_model_step"])
    least = curve[best]
    _, same_low, same_high = rows[AGAIN]["ratio"]
    relation = "ahead of" if low > 1 else "behind" if high < 1 else "level with"
    cost = rows[OURS]["ms_per_model_step"]
    return [
        f"{peers['models']} models of the default network cost {cost:.2f} ms a model-step.",
        f"That is {relation} its nearest peer: {nearest} takes {mid:.2f} times as long.",
        f"The cheapest stack is one of {best} models: {least['ms_per_model_step']:.2f} ms.",
        f"Of that, the products and one pass of Adam alone take {least['floor_ms']:.2f} ms.",
        f"Against itself the engine reads {same_low:.3f} to {same_high:.3f}: that much is noise.",
    ]


def peer_rows(content: dict[str, Any]) -> list[list[str]]:
    """The table of peers: every row, the losing ones too."""
    peers = content["peers"]
    scale = 1e3 / (peers["steps"] * peers["models"])
    head = ["", "ms a model-step", "20 % to 80 %", "rounds", "time over vaekit's", "95 % interval"]
    found = [[*head, "of product peak", "worst loss difference"]]
    for name, row in peers["rows"].items():
        seconds = np.array(peers["seconds"][name]) * scale
        low, high = np.quantile(seconds, [0.2, 0.8])
        mid, ratio_low, ratio_high = row["ratio"]
        part = row.get("share_of_products")
        found.append(
            [
                name,
                f"{row['ms_per_model_step']:.3f}",
                f"{low:.3f} to {high:.3f}",
                str(len(seconds)),
                f"{mid:.2f}",
                f"{ratio_low:.2f} to {ratio_high:.2f}",
                "not measured" if part is None else f"{part:.0%}",
                f"{row['loss_error']:.1e}",
            ]
        )
    return found


def scaling_rows(content: dict[str, Any]) -> list[list[str]]:
    """The table of times against the number of models."""
    found = [["models", "ms a model-step", "floor, ms", "floor over time"]]
    for models, row in content["scaling"]["curve"].items():
        time, least = row["ms_per_model_step"], row["floor_ms"]
        found.append([models, f"{time:.3f}", f"{least:.3f}", f"{least / time:.0%}"])
    return found


def summary(content: dict[str, Any], tables: dict[str, list[list[str]]]) -> str:
    """The report as Markdown."""
    lines = ["# Training benchmark", ""]
    lines += [f"- {name}: {value}" for name, value in facts(content).items()]
    lines += ["", *(f"- {sentence}" for sentence in findings(content))]
    titles = {"peers": "Beside its peers", "scaling": "Against the number of models"}
    for name, (head, *rows) in tables.items():
        lines += ["", f"## {titles[name]}", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
        lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def ladder(content: dict[str, Any]) -> Figure:
    """Time of each peer as a bar, with the middle 60 % of its rounds."""
    peers = content["peers"]
    scale = 1e3 / (peers["steps"] * peers["models"])
    names = [name for name in peers["rows"] if name != AGAIN]
    names.sort(key=lambda name: peers["rows"][name]["ms_per_model_step"], reverse=True)
    with house_style():
        made = new_figure(7.0, 0.42 * len(names) + 1.2)
        ax = made.subplots()
        for place, name in enumerate(names):
            seconds = np.array(peers["seconds"][name]) * scale
            middle = float(np.median(seconds))
            low, high = np.quantile(seconds, [0.2, 0.8])
            ax.barh(place, middle, height=0.62, color=ACCENT if name == OURS else RULE)
            ax.plot([low, high], [place, place], color=INK, linewidth=1.2)
            ax.annotate(
                f"{middle:.2f}", (max(middle, high), place), (5, 0), textcoords="offset points",
                va="center", color=INK,
            )  # fmt: skip
        ax.set_yticks(range(len(names)), names)
        ax.set_xlabel("ms per model-step")
        ax.margins(x=0.12)
        heading(
            ax,
            f"{peers['models']} models: vaekit and its peers",
            "median of interleaved rounds; line: middle 60 % of the rounds",
        )
    return made


def scaling(content: dict[str, Any]) -> Figure:
    """Time per model-step against the number of models, with the floor and the peers at theirs."""
    curve, peers = content["scaling"]["curve"], content["peers"]
    models = [int(name) for name in curve]
    with house_style():
        made = new_figure(7.0, 3.8)
        ax = made.subplots()
        for key, colour, label, style in (
            ("ms_per_model_step", ACCENT, "vaekit", "o-"),
            ("floor_ms", INK, "floor: products and one pass of Adam", "s--"),
        ):
            times = [row[key] for row in curve.values()]
            ax.plot(models, times, style, color=colour, label=label, markersize=4)
        others = {
            name: row["ms_per_model_step"]
            for name, row in peers["rows"].items()
            if name not in {OURS, AGAIN}
        }
        heights = apart(list(others.values()), 0.05 * max(others.values()))
        for (name, time), height in zip(others.items(), heights, strict=True):
            ax.plot(peers["models"], time, "x", color=MUTED)
            ax.annotate(
                name, (1.06 * peers["models"], height), fontsize=7, color=MUTED, va="center"
            )
        ax.set_xscale("log", base=2)
        ax.set_xticks(models, [str(count) for count in models])
        ax.minorticks_off()
        ax.set_ylim(0, 1.06 * max(*heights, *(row["ms_per_model_step"] for row in curve.values())))
        ax.grid(axis="y")
        ax.set_xlabel("models in the stack")
        ax.set_ylabel("ms per model-step")
        ax.legend(loc="lower left")
        heading(ax, "Cost of a model-step", "in one stack; crosses: peers")
    return made


def apart(heights: list[float], gap: float) -> list[float]:
    """Move the heights of labels up until each is a gap above the one below it."""
    moved = list(heights)
    least = -np.inf
    for place in np.argsort(heights):
        moved[place] = least = max(heights[place], least + gap)
    return moved


def noise(content: dict[str, Any]) -> Figure:
    """Every round's ratio of the engine to itself: what this machine's noise alone does."""
    seconds = content["peers"]["seconds"]
    ratios = np.array(seconds[AGAIN]) / np.array(seconds[OURS])
    middle = statistics.median(ratios)
    with house_style():
        made = new_figure(7.0, 2.4)
        ax = made.subplots()
        ax.axhline(1.0, color=RULE)
        ax.plot(np.arange(1, len(ratios) + 1), ratios, "o", color=ACCENT, markersize=4)
        ax.axhline(middle, color=INK, linestyle="--", linewidth=1)
        ax.set_xlabel("round")
        ax.set_ylabel("time over time")
        heading(
            ax, "Noise", f"the engine against itself, round by round; dashed: median {middle:.3f}"
        )
    return made
