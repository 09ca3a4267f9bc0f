"""The benchmark's figures, drawn from the stored samples alone."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.ceilings import memory_rate, product_rate
from bench.curves import costs, peers_of
from bench.demonstrate import PLANTED, SAME
from bench.paired import judge
from bench.parts import by_short_name
from bench.peers import OURS, OURS_AGAIN, OWN
from vaekit.figures.style import ACCENT, INK, MUTED, RULE, heading, house_style, new_figure

PEER_MARKERS = "x+v^<>Dsph"
# Times that differ by more have a logarithmic axis.
WIDE = 100
LOOKS = {
    "reference": ("o", MUTED),
    "torch": ("D", ACCENT),
    "triton": ("D", ACCENT),
    "triton (A/A)": ("x", MUTED),
    "compile": ("^", INK),
}


def ladder(content: dict[str, Any], key: str = "peers") -> Figure:
    """Time of each peer as a bar, with the middle 60 % of its rounds."""
    peers = content[key]
    scale, unit = 1e3 / (peers["steps"] * peers["models"]), "ms"
    if peers["rows"][OURS]["ms_per_model_step"] < 0.1:
        scale, unit = 1e3 * scale, "µs"
    names = [name for name in peers["rows"] if name != OURS_AGAIN]
    names.sort(key=lambda name: peers["rows"][name]["ms_per_model_step"], reverse=True)
    with house_style():
        made = new_figure(7.0, 0.42 * len(names) + 1.2)
        ax = made.subplots()
        for place, name in enumerate(names):
            seconds = np.array(peers["seconds"][name]) * scale
            middle = float(np.median(seconds))
            low, high = np.quantile(seconds, [0.2, 0.8])
            ax.barh(place, middle, height=0.62, color=ACCENT if name in OWN else RULE)
            ax.plot([low, high], [place, place], color=INK, linewidth=1.2)
            ax.annotate(
                f"{middle:.2f}", (max(middle, high), place), (5, 0), textcoords="offset points",
                va="center", color=INK,
            )  # fmt: skip
        ax.set_yticks(range(len(names)), names)
        ax.set_xlabel(f"{unit} per model-step")
        ax.margins(x=0.12)
        heading(
            ax,
            f"{peers['models']} models: vaekit and its peers",
            "median of interleaved rounds; line: middle 60 % of the rounds",
        )
    return made


def scaling(content: dict[str, Any]) -> Figure:
    """Time per model-step against the number of models, with the floor and the peers.

    Those that were timed at one number of models alone stand there.
    """
    curve, peers = content["scaling"]["curve"], content["peers"]
    models = [int(name) for name in curve]
    times = [costs(row) for row in curve.values()]
    others = {name: (models, [row[name] for row in times]) for name in peers_of(curve)} | {
        name: ([peers["models"]], [row["ms_per_model_step"]])
        for name, row in peers["rows"].items()
        if name not in {OURS, OURS_AGAIN, *peers_of(curve)}
    }
    with house_style():
        made = new_figure(7.0, 3.8)
        ax = made.subplots()
        _engine_and_floor(ax, models, curve)
        for (name, (places, heights)), marker in zip(others.items(), PEER_MARKERS, strict=False):
            color = ACCENT if name in OWN else MUTED
            ax.plot(places, heights, f"{marker}:", color=color, label=name, linewidth=1.0)
        ax.set_xscale("log", base=2)
        ax.set_xticks(models, [str(count) for count in models])
        ax.minorticks_off()
        shown = [*_times(curve), *(cost for _, heights in others.values() for cost in heights)]
        if max(shown) > WIDE * min(shown):
            _decades(ax, shown)
        else:
            ax.set_ylim(0, 1.06 * max(shown))
        ax.grid(axis="y")
        ax.set_xlabel("models in the stack")
        ax.set_ylabel("ms per model-step")
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
        heading(
            ax, "Cost of a model-step", f"in one stack; single marks: at {peers['models']} models"
        )
    return made


def batch(content: dict[str, Any]) -> Figure:
    """Time per model-step against the batch."""
    return _axis(content["batch"]["curve"], "the batch", "images in a batch")


def width(content: dict[str, Any]) -> Figure:
    """Time per model-step against the width of the hidden layers."""
    return _axis(content["width"]["curve"], "the width", "hidden widths")


def _axis(curve: dict[str, Any], title: str, label: str) -> Figure:
    """Engine and floor along an axis whose values are the curve's names."""
    places = [int(name.split(",")[0]) for name in curve]
    with house_style():
        made = new_figure(7.0, 3.2)
        ax = made.subplots()
        _engine_and_floor(ax, places, curve)
        ax.set_xscale("log", base=2)
        ax.set_xticks(places, list(curve))
        _decades(ax, _times(curve))
        ax.grid(axis="y")
        ax.set_xlabel(label)
        ax.set_ylabel("ms per model-step")
        ax.legend(loc="upper left")
        heading(ax, f"Cost of a model-step against {title}", "11 models; both axes logarithmic")
    return made


def _times(curve: dict[str, Any]) -> list[float]:
    return [row[key] for row in curve.values() for key in ("ms_per_model_step", "floor_ms")]


def _decades(ax: Axes, times: list[float]) -> None:
    """Make the upright axis logarithmic, with round values written out."""
    ticks = [scale * tick for scale in (1e-3, 1e-2, 0.1, 1, 10) for tick in (1, 2, 5)] + [100]
    shown = [tick for tick in ticks if min(times) / 2 <= tick <= 2 * max(times)]
    ax.set_yscale("log")
    ax.set_yticks(shown, [f"{tick:g}" for tick in shown])
    ax.minorticks_off()


def _engine_and_floor(ax: Axes, places: list[int], curve: dict[str, Any]) -> None:
    for key, colour, label, style in (
        ("ms_per_model_step", ACCENT, "vaekit", "o-"),
        ("floor_ms", INK, "floor", "s--"),
    ):
        times = [row[key] for row in curve.values()]
        ax.plot(places, times, style, color=colour, label=label, markersize=4)


def memory(content: dict[str, Any]) -> Figure:
    """Peak memory of a training against the number of models, beside what the stack is sized by."""
    curve = content["memory"]["curve"]
    models = [int(name) for name in curve]
    with house_style():
        made = new_figure(7.0, 3.2)
        ax = made.subplots()
        peaks = np.array([row["peak"] for row in curve.values()]) / 1e6
        planned = np.array([row["planned"] for row in curve.values()]) / 1e6
        planned += peaks[0] - planned[0]
        ax.plot(models, peaks, "o-", color=ACCENT, label="measured", markersize=4)
        label = "one model's process, and what is planned for the others"
        ax.plot(models, planned, "s--", color=INK, label=label, markersize=4)
        ax.set_xlim(left=0)
        ax.set_ylim(bottom=0)
        ax.grid(axis="y")
        ax.set_xlabel("models in the stack")
        ax.set_ylabel("MB")
        ax.legend(loc="upper left")
        heading(ax, "Peak memory", "of a training, in a fresh process for each size")
    return made


def parts(content: dict[str, Any]) -> Figure:
    """Share of each part of a step."""
    seconds = by_short_name(content["parts"]["seconds"])
    with house_style():
        made = new_figure(7.0, 0.34 * len(seconds) + 1.1)
        ax = made.subplots()
        middles = {name: statistics.median(found) for name, found in seconds.items()}
        total = sum(middles.values())
        for place, (name, middle) in enumerate(reversed(middles.items())):
            share = 100 * middle / total
            most = middle == max(middles.values())
            ax.barh(place, share, height=0.62, color=ACCENT if most else RULE)
            low, high = (100 * np.quantile(seconds[name], q) / total for q in (0.2, 0.8))
            ax.plot([low, high], [place, place], color=INK, linewidth=1.2)
            ax.annotate(
                f"{share:.0f} %", (max(share, high), place), (5, 0), textcoords="offset points",
                va="center",
            )  # fmt: skip
        ax.set_yticks(range(len(middles)), list(reversed(middles)))
        ax.set_xlabel("share of a step, %")
        ax.margins(x=0.1)
        heading(
            ax,
            f"Where a step of {content['parts']['models']} models goes",
            "median of profiled blocks; line: middle 60 % of the blocks",
        )
    return made


def noise(content: dict[str, Any]) -> Figure:
    """Every round's ratio of the engine to itself: what this machine's noise alone does."""
    seconds = content["peers"]["seconds"]
    ratios = np.array(seconds[OURS_AGAIN]) / np.array(seconds[OURS])
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


def roofline(content: dict[str, Any], key: str = "operations") -> Figure:
    """Rate of every operation against its arithmetic for each byte, below the measured roof."""
    rows, ceilings = content[key]["rows"], content[key]["ceilings"]
    memory_peak, peak = memory_rate(ceilings), product_rate(ceilings)
    with house_style():
        made = new_figure(7.0, 4.8)
        ax = made.subplots()
        places = {(row["operation"], row["direction"]): row["work"] / row["bytes"] for row in rows}
        span = np.geomspace(0.6 * min(places.values()), 3.0 * max(places.values()), 200)
        ax.plot(span, np.minimum(span * memory_peak, peak) / 1e9, color=INK, linewidth=1.2)
        # Sizes come in ascending order.
        largest = {row["operation"]: row["size"] for row in rows}
        small = [row["size"] != largest[row["operation"]] for row in rows]
        looks = zip((row["implementation"] for row in rows), small, strict=True)
        for name, hollow in dict.fromkeys(looks):
            marker, colour = LOOKS[name]
            mine = [
                row
                for row, other in zip(rows, small, strict=True)
                if (row["implementation"], other) == (name, hollow)
            ]
            ax.plot(
                [row["work"] / row["bytes"] for row in mine],
                [row["work"] / statistics.median(row["seconds"]) / 1e9 for row in mine],
                marker, color=colour, label=name + ", the smaller size" * hollow, markersize=5,
                markerfacecolor="none" if hollow else colour, linestyle="", alpha=0.85,
            )  # fmt: skip
        ax.set_xscale("log")
        ax.set_yscale("log")
        lowest = min(row["work"] / statistics.median(row["seconds"]) / 1e9 for row in rows)
        top = 2 * peak / 1e9
        # The names stand below the points, in the lowest two fifths of the panel.
        ax.set_ylim((lowest / top**0.4) ** (1 / 0.6), top)
        for (operation, direction), place in places.items():
            ax.axvline(place, color=RULE, linewidth=0.6, zorder=0)
            ax.annotate(
                f"{operation}, {direction}", (place, 0), (-2, 3), rotation=90, fontsize=6.5,
                xycoords=("data", "axes fraction"), textcoords="offset points", color=MUTED,
                ha="right", va="bottom",
            )  # fmt: skip
        ax.set_xlabel("operations for each byte")
        ax.set_ylabel("10⁹ operations a second")
        ax.legend(loc="upper left")
        heading(
            ax,
            "Roofline",
            f"roof: memory at {memory_peak / 1e9:.1f} GB/s, products at {peak / 1e9:,.0f} GFLOP/s, "
            "both measured in the run",
        )
    return made


def demonstration(content: dict[str, Any]) -> Figure:
    """Interval of every comparison of the gate's trial, and the limit that it had to exceed."""
    comparisons = content["demonstration"]["comparisons"]
    kinds = (SAME, PLANTED)
    with house_style():
        made = new_figure(7.0, 3.4)
        axes = made.subplots(1, 2, sharey=True, width_ratios=[2, 1])
        for ax, kind in zip(axes, kinds, strict=True):
            found = [judge(row["seconds"]) for row in comparisons if row["kind"] == kind]
            for place, verdict in enumerate(found, 1):
                colour = ACCENT if verdict.word == "slower" else MUTED
                ax.plot([place, place], [verdict.low, verdict.high], color=colour, linewidth=1.4)
                ax.plot(place, verdict.ratio, "o", color=colour, markersize=2.5)
                ax.plot(place, verdict.limit, "_", color=INK, markersize=5)
            ax.axhline(1.0, color=RULE, zorder=0)
            ax.set_xlabel("comparison")
            ax.xaxis.get_major_locator().set_params(integer=True)
            said = sum(verdict.word == "slower" for verdict in found)
            heading(ax, kind, f"slower: {said} of {len(found)}")
        axes[0].set_ylabel("time over time")
    return made
