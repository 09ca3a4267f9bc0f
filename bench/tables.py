"""The benchmark's tables, each a head and rows of text, made from the stored samples alone."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np

from bench.bench_kernels import beside_the_kernel
from bench.ceilings import RATES, memory_rate, product_rate, step_flops
from bench.curves import peers_of
from bench.demonstrate import count
from bench.memory import beyond_one
from bench.paired import NEW, ROUNDS, WORDS
from bench.parts import by_short_name
from bench.peers import OURS, OURS_AGAIN, products_of
from bench.timing import ratio
from vaekit.model import Architecture

Rows = list[list[str]]
# A row whose times spread by more, from the 20 % that are lower to the 20 % that are higher, is
# marked: rows are timed one after another, so what disturbed one did not disturb its neighbour.
NOISY = 1.5
# What a sweep's dataset says of its own time, as the table has it.
STAGES = {"train": "training", "measure": "measures", "baseline": "untrained networks"}


def share_of_products(content: dict[str, Any], key: str, name: str) -> str:
    """Share of a peer's time that its products take at the peak of their precision."""
    peers = content[key]
    problem, ceilings = peers["problem"], content["ceilings"]
    precision = products_of(name, problem["precision"])
    if not {*RATES[precision]} <= {*ceilings["product_flops_per_second"]}:
        return "not measured"
    architecture = Architecture.between(problem["pixels"], problem["hidden"], problem["latents"])
    work = step_flops(architecture, problem["batch"]) * peers["steps"] * peers["models"]
    seconds = statistics.median(peers["seconds"][name])
    return f"{work / product_rate(ceilings, precision) / seconds:.0%}"


def peer_rows(content: dict[str, Any], key: str = "peers") -> Rows:
    """The table of peers: every row, the losing ones too."""
    peers = content[key]
    scale = 1e3 / (peers["steps"] * peers["models"])
    head = ["", "ms a model-step", "20 % to 80 %", "rounds", "time over vaekit's", "95 % interval"]
    found = [[*head, "of matmul peak", "worst loss difference", "with compilation, s"]]
    for name, row in peers["rows"].items():
        seconds = np.array(peers["seconds"][name]) * scale
        low, high = np.quantile(seconds, [0.2, 0.8])
        mid, ratio_low, ratio_high = row["ratio"]
        first = row.get("first_block_seconds")
        found.append(
            [
                name,
                _ms(row["ms_per_model_step"]),
                f"{_ms(low)} to {_ms(high)}",
                str(len(seconds)),
                f"{mid:.2f}",
                f"{ratio_low:.2f} to {ratio_high:.2f}",
                share_of_products(content, key, name),
                f"{row['loss_error']:.1e}",
                "not measured" if first is None else f"{first:.2f}",
            ]
        )
    return found


def curve_rows(content: dict[str, Any], key: str) -> Rows:
    """The table of times along an axis: "scaling" (models), "batch" or "width"."""
    axis = {"scaling": "models", "batch": "batch", "width": "hidden widths"}[key]
    head = [axis, "ms a model-step", "20 % to 80 %", "against itself (A/A)", "floor, ms"]
    curve = content[key]["curve"]
    peers = peers_of(curve)
    found = [[*head, "floor over time", *(f"{peer} over vaekit" for peer in peers)]]
    for name, row in curve.items():
        time, least, seconds = row["ms_per_model_step"], row["floor_ms"], row["seconds"]
        low, high = np.quantile(seconds[OURS], [0.2, 0.8]) * time / np.median(seconds[OURS])
        _, same_low, same_high = ratio(seconds[OURS_AGAIN], seconds[OURS])
        found.append(
            [
                name,
                _ms(time),
                f"{_ms(low)} to {_ms(high)}",
                f"{same_low:.2f} to {same_high:.2f}",
                _ms(least),
                f"{least / time:.0%}",
                *(
                    "{:.2f} ({:.2f} to {:.2f})".format(*ratio(seconds[peer], seconds[OURS]))
                    for peer in peers
                ),
            ]
        )
    return found


def whole_rows(content: dict[str, Any]) -> Rows:
    """The table of whole trainings."""
    whole = content["whole"]
    found = [["products", "seconds", "of each run", "floor, s", "floor over time"]]
    for name, seconds in whole["seconds"].items():
        time, least = statistics.median(seconds), whole["rows"][name]["floor_seconds"]
        each = ", ".join(f"{value:.2f}" for value in seconds)
        found.append([name, f"{time:.2f}", each, f"{least:.2f}", f"{least / time:.0%}"])
    return found


def sweep_rows(content: dict[str, Any]) -> Rows:
    """The table of whole sweeps; of their stages too, which runs from before did not keep."""
    seconds, stages = content["sweeps"]["seconds"], content["sweeps"].get("stages")
    if not stages:
        return [["products", "seconds"], *([name, f"{time:.1f}"] for name, time in seconds.items())]
    found = [["products", "seconds", *STAGES.values(), "all else"]]
    for name, time in seconds.items():
        known = [stages[name][stage] for stage in STAGES]
        found.append([name, *(f"{value:.1f}" for value in (time, *known, time - sum(known)))])
    return found


def _ms(value: float) -> str:
    """Write milliseconds to three decimals, and those of a card to five."""
    return f"{value:.3f}" if value >= 0.1 else f"{value:.5f}"


def memory_rows(content: dict[str, Any]) -> Rows:
    """The table of peak memory."""
    found = [["models", "above a stack of one, MB", "planned, MB", "measured over planned"]]
    for name, (grown, planned) in beyond_one(content["memory"]["curve"]).items():
        ratio = f"{grown / planned:.2f}"
        found.append([name, f"{grown / 1e6:.0f}", f"{planned / 1e6:.0f}", ratio])
    return found


def part_rows(content: dict[str, Any]) -> Rows:
    """The table of what a step goes to."""
    parts = content["parts"]
    rows = by_short_name(parts["seconds"])
    middles = {name: statistics.median(seconds) for name, seconds in rows.items()}
    total = sum(middles.values())
    found = [["", "ms a step", "share"]]
    found += [[name, f"{ms * 1e3:.3f}", f"{ms / total:.0%}"] for name, ms in middles.items()]
    found.append(["in all, watched", f"{total * 1e3:.3f}", "100%"])
    unwatched = statistics.median(parts["unwatched_seconds"])
    found.append(["in all, unwatched", f"{unwatched * 1e3:.3f}", ""])
    return found


def operation_rows(content: dict[str, Any]) -> Rows:
    """The table of single operations."""
    head = ["operation", "size", "pass", "implementation", "ms", "20 % to 80 %", "rounds", "GB/s"]
    found = [[*head, "of its roof", "worst error"]]
    for row in content["operations"]["rows"]:
        seconds = np.array(row["seconds"])
        low, middle, high = np.quantile(seconds, [0.2, 0.5, 0.8])
        found.append(
            [
                row["operation"],
                row["size"],
                row["direction"],
                row["implementation"],
                f"{middle * 1e3:.3f}",
                f"{low * 1e3:.3f} to {high * 1e3:.3f}" + (", noisy" if high > NOISY * low else ""),
                str(len(seconds)),
                f"{row['bytes'] / middle / 1e9:.2f}",
                f"{row['share_of_roof']:.0%}",
                f"{row['error']:.1e}",
            ]
        )
    return found


def operation_note(content: dict[str, Any]) -> str:
    """Say how single operations were timed, and what their roofs are."""
    ceilings = content["operations"]["ceilings"]
    moved, work = memory_rate(ceilings) / 1e9, product_rate(ceilings) / 1e9
    return (
        "Reference is the definition, torch what vaekit runs on a CPU, compile the definition "
        "through torch.compile. Each was held to the definition before and after it was timed, and "
        "each call reads memory that is not in cache. The error is the largest one against the "
        "definition in float64, over the largest value. The roof is the larger of two times: the "
        f"bytes at the faster of copying and reading, {moved:.1f} GB/s, and the arithmetic at the "
        f"rate of matrix products, {work:,.0f} GFLOP/s, both the best of this run. "
        "Transcendental functions and integer random numbers are slower than matrix products, so "
        "most of these cannot come near it. Rows are timed one after another: one that is marked "
        "as noisy, whose times spread by more than a half, was disturbed, and should not be "
        "compared with its neighbours."
    )


def kernel_note(content: dict[str, Any]) -> str:
    """Say what the kernels' times are and what they are shares of."""
    found = content["kernels"]
    moved, work = memory_rate(found["ceilings"]) / 1e9, product_rate(found["ceilings"]) / 1e9
    return (
        f"Times of the device on {found['card']['name']}, each implementation held to its "
        "definition before and after. Cold: a buffer larger than L2 is overwritten before every "
        "call, which also pays for writing back what that left in L2, and calls take turns with "
        "several sets of inputs; warm: the call is repeated with one. The error is the largest one "
        "against the definition in float64, over the largest value. The roof is the larger of two "
        f"times: the bytes at {moved:,.0f} GB/s, and the arithmetic at the rate of float32 matrix "
        f"products, {work:,.0f} GFLOP/s in this run; transcendental functions and integer random "
        "numbers are slower than those. Definitions that torch.compile cannot build have no row of "
        "it."
    )


def kernel_rows(content: dict[str, Any]) -> Rows:
    """The table of the kernels on a card."""
    head = ["operation", "size", "pass", "implementation", "cold, us", "warm, us", "GB/s"]
    found = [[*head, "of its roof", "time over triton's", "95 % interval", "worst error"]]
    rows = content["kernels"]["rows"]
    for row in rows:
        cold, warm = (statistics.median(row[key]) for key in ("seconds", "warm_seconds"))
        mid, low, high = beside_the_kernel(row, rows)
        found.append(
            [
                row["operation"],
                row["size"],
                row["direction"],
                row["implementation"],
                f"{cold * 1e6:.1f}",
                f"{warm * 1e6:.1f}",
                f"{row['bytes'] / cold / 1e9:,.0f}",
                f"{row['share_of_roof']:.0%}",
                f"{mid:.2f}",
                f"{low:.2f} to {high:.2f}",
                f"{row['error']:.1e}",
            ]
        )
    return found


def demonstration_note(content: dict[str, Any]) -> str:
    """Say what was compared with what."""
    made = content["demonstration"]
    times = [row["seconds"][NEW] for row in made["comparisons"]]
    sets, rounds = sorted({len(one) for one in times}), len(times[0][0])
    said = " to ".join(dict.fromkeys([str(sets[0]), str(sets[-1])]))
    now = "" if rounds == ROUNDS else f" The gate itself takes {ROUNDS} rounds by now."
    same = "a copy that has an uncalled function more" if "idle" in made else "itself"
    return (
        f"Comparisons by {said} sets of fresh processes and {rounds} rounds of "
        f"each, of a commit with {same} and with a copy of it that is "
        f"{made['planted_size']:.1%} slower, as measured; judged by the gate's rule of today. "
        "Dashes: the limit that an interval must lie above." + now
    )


def demonstration_rows(content: dict[str, Any]) -> Rows:
    """The table of what the gate said."""
    made = content["demonstration"]
    found = [["trees", "comparisons", *WORDS]]
    for kind, words in count(made["comparisons"]).items():
        found.append([kind, str(sum(words.values())), *map(str, words.values())])
    return found
