"""Speed of every kernel on this machine's card, beside torch.compile of its definition.

    python -m bench.bench_kernels [--quick] [--sweep]

Each implementation is first held to the definition by the tests' own rule, in this process and at
the size that is timed, and once more after timing; one that fails stops the benchmark before a
figure of it is printed. 100 % is the copy bandwidth measured here, in this run. Times are of the
device: cold (a buffer larger than L2 is overwritten before every call) and warm (the call is
repeated, so its memory may be in L2). A cold time below what the bytes allow is an error of the
benchmark and is reported as one. `--sweep` times other block sizes than the pinned ones instead;
a person copies a winner to `vaekit_kernels/launch.py` with card, date and figure.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import re
import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any
from unittest import mock

import torch
from torch._dynamo.exc import TorchDynamoException

from bench.ceilings import believed
from bench.kernel_ops import kernel_operations
from bench.operation import Operation, Timed, checked, directions, module_of_tests
from bench.provenance import provenance
from bench.storage import store
from bench.timing import orders, ratio
from vaekit_kernels import launch

ROUNDS, QUICK_ROUNDS = 60, 12
WARM_CALLS = 20
# Cycles, some milliseconds, that the card waits before a time begins: the host queues the calls
# meanwhile, which takes it longer than the card needs for them.
HEAD_START = 2**24
CAUSE = re.compile(r"[\w.]+(Error|Exception): .")
COPY_BYTES = 2**30


class Clock:
    """Times calls on the current card with its own events."""

    def __init__(self) -> None:
        size = torch.cuda.get_device_properties(0).L2_cache_size
        self.flush = torch.empty(max(4 * size, 2**28), dtype=torch.uint8, device="cuda")

    def cold(self, call: Timed) -> float:
        """Seconds of one call whose memory is not in cache."""
        self.flush.zero_()
        return self._seconds(call, 1)

    def warm(self, call: Timed) -> float:
        """Seconds of a call among many."""
        return self._seconds(call, WARM_CALLS) / WARM_CALLS

    def _seconds(self, call: Timed, count: int) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda._sleep(HEAD_START)
        start.record()
        for _ in range(count):
            call()
        end.record()
        torch.cuda.synchronize()
        return float(start.elapsed_time(end)) * 1e-3


def interleave(
    calls: Mapping[str, Timed], timer: Callable[[Timed], float], rounds: int
) -> dict[str, list[float]]:
    """Time every call once a round, in `orders`; three rounds are not counted."""
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for number, order in enumerate(orders(list(calls), 3 + rounds), -3):
        for name in order:
            seconds = timer(calls[name])
            if number >= 0:
                samples[name].append(seconds)
    return samples


def copy_bandwidth(clock: Clock, rounds: int) -> float:
    """Bytes a second, read and written, of a copy far larger than L2."""
    source = torch.randint(256, (COPY_BYTES,), dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    samples = interleave({"copy": lambda: target.copy_(source)}, clock.cold, rounds)
    return 2 * COPY_BYTES / statistics.median(samples["copy"])


def compare(
    clock: Clock, operation: Operation, bandwidth: float, rounds: int
) -> list[dict[str, Any]]:
    """Check, time and check again one operation; print its rows and return them with samples."""
    implementations = {name: operation.implementation(name) for name in ("triton", "compile")}
    reason = refused(operation, implementations["compile"])
    if reason:
        print(f"{operation.name:32}torch.compile left out: {reason}")
        del implementations["compile"]
    checked(operation, implementations)
    # The kernel twice: what two runs of one thing differ by is the noise of this machine.
    timed = implementations | {"triton (A/A)": implementations["triton"]}
    calls = {name: directions(operation, run) for name, run in timed.items()}
    rows = []
    for direction in calls["triton"]:
        row = {name: call[direction] for name, call in calls.items()}
        moved = operation.backward_bytes if direction == "backward" else operation.forward_bytes
        cold = interleave(row, clock.cold, rounds)
        warm = interleave(row, clock.warm, max(3, rounds // 4))
        rows.append(
            {
                "operation": operation.name,
                "direction": direction,
                "bytes": moved,
                "share_of_copy": {
                    name: believed(moved / bandwidth, statistics.median(samples))
                    for name, samples in cold.items()
                },
                "compile_over_triton": None if reason else ratio(cold["compile"], cold["triton"]),
                "compile_left_out": reason,
                "again_over_triton": ratio(cold["triton (A/A)"], cold["triton"]),
                "cold_seconds": cold,
                "warm_seconds": warm,
            }
        )
    checked(operation, implementations)
    for made in rows:
        print_row(made)
    return rows


def refused(operation: Operation, compiled: Callable[..., Any]) -> str:
    """Say why torch.compile cannot build a definition; an empty text where it can."""
    try:
        compiled(**operation.inputs)
    except TorchDynamoException as error:
        lines = str(error).strip().splitlines()
        # Where a process of the compiler failed, the first line says that alone, and the last line
        # of that process's traceback says why.
        return [lines[0], *filter(CAUSE.match, lines)][-1]
    return ""


def print_row(row: Mapping[str, Any]) -> None:
    """Print one line of the table."""
    cold = {name: statistics.median(s) * 1e6 for name, s in row["cold_seconds"].items()}
    warm = statistics.median(row["warm_seconds"]["triton"]) * 1e6
    beside, share = "left out", "-"
    if row["compile_over_triton"]:
        beside = "{:.2f} ({:.2f} to {:.2f})".format(*row["compile_over_triton"])
        share = f"{row['share_of_copy']['compile']:.0%}"
    _, same_low, same_high = row["again_over_triton"]
    print(
        f"{row['operation']:32}{row['direction']:10}{cold['triton']:10.1f}{warm:10.1f}"
        f"{row['share_of_copy']['triton']:9.0%}{share:>9}"
        f"{beside:>24}{f'{same_low:.2f} to {same_high:.2f}':>16}"
    )


HEADER = (
    f"{'':42}{'cold us':>10}{'warm us':>10}{'of copy':>9}{'compile':>9}"
    f"{'compile/triton':>24}{'A/A':>16}"
)


def candidates(name: str) -> list[launch.Launch]:
    """Block sizes worth timing for a row of `launch.PINNED`."""
    tiles = {
        "sigmoid_grid": ([4, 8, 16, 32], [32, 64, 128]),
        "render": ([4, 16, 64], [64, 128, 512]),
        "reparameterise": ([16, 32, 64, 128], [16]),
        "reparameterise_backward": ([16, 32, 64, 128], [16]),
        "pixel_nll": ([1, 2, 4, 8], [128, 512]),
        "pixel_nll_backward": ([1], [512, 1024, 2048, 4096]),
    }[name]
    return [
        launch.Launch(rows, cols, warps)
        for rows, cols, warps in itertools.product(*tiles, [2, 4, 8])
    ]


def sweep(
    clock: Clock, operation: Operation, bandwidth: float, rounds: int
) -> list[dict[str, Any]]:
    """Check and time every candidate of an operation's rows; print the best of each."""
    found = []
    for name, direction in zip(operation.pinned, ("forward", "backward"), strict=False):
        moved = operation.backward_bytes if direction == "backward" else operation.forward_bytes
        for candidate in candidates(name):
            rows = dict(launch.PINNED[name]) | {
                launch.FALLBACK: candidate,
                launch.architecture(torch.device("cuda")): candidate,
            }
            with mock.patch.object(launch, "PINNED", dict(launch.PINNED) | {name: rows}):
                kernel = operation.implementation("triton")
                checked(operation, {"triton": kernel})
                call = directions(operation, kernel)[direction]
                cold = interleave({"triton": call}, clock.cold, rounds)["triton"]
            share = believed(moved / bandwidth, statistics.median(cold))
            found.append(
                {"operation": operation.name, "row": name, **asdict(candidate), "share": share,
                 "cold_seconds": cold}
            )  # fmt: skip
        mine = [row for row in found if row["row"] == name]
        best = max(mine, key=lambda row: row["share"])
        print(
            f"{operation.name:32}{name:26}{best['share']:6.0%} of copy: "
            f"{best['rows']} x {best['cols']}, {best['warps']} warps"
        )
    return found


def card() -> dict[str, str]:
    """Name, driver and toolkit of the card."""
    properties = torch.cuda.get_device_properties(0)
    return {
        "name": properties.name,
        "architecture": launch.architecture(torch.device("cuda")),
        "memory_bytes": str(properties.total_memory),
        "l2_bytes": str(properties.L2_cache_size),
        "multiprocessors": str(properties.multi_processor_count),
        "cuda": str(torch.version.cuda),
        "hip": str(torch.version.hip),
    }


def measure_kernels(*, quick: bool, sweeping: bool = False) -> dict[str, Any]:
    """Time everything on this machine's card and print the table.

    Args:
        quick: small sizes, a fifth of the rounds.
        sweeping: time other block sizes instead.

    Returns:
        The card, its copy bandwidth, and the rows with every raw sample; or why there are none.
    """
    lacking = [
        word
        for word, there in (
            ("no CUDA device", torch.cuda.is_available()),
            ("no Triton", importlib.util.find_spec("triton") is not None),
        )
        if not there
    ]
    if lacking:
        return {"skipped": {"kernels on a card": f"there is {' and '.join(lacking)}"}}
    rounds = QUICK_ROUNDS if quick else ROUNDS
    noise = module_of_tests("oracle").normals
    clock = Clock()
    bandwidth = copy_bandwidth(clock, rounds)
    print(f"{card()['name']}: copies at {bandwidth / 1e9:.0f} GB/s\n")
    if not sweeping:
        print(HEADER)
    rows = []
    sizes = ("a sweep",) if quick else ("a sweep", "beyond L2")
    for operation in kernel_operations(torch.device("cuda"), sizes, noise):
        rows += (sweep if sweeping else compare)(clock, operation, bandwidth, rounds)
    return {"card": card(), "copy_bytes_per_second": bandwidth, "rows": rows}


def main() -> None:
    """Time everything on this machine's card and store the samples."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, a fifth of the rounds")
    parser.add_argument("--sweep", action="store_true", help="time other block sizes instead")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit(
            "bench_kernels: torch sees no CUDA device, so there is nothing to time. Without a card "
            "the kernels are checked by `nox -s interpret` and `nox -s compile`."
        )
    flags = [f"--{name}" for name in ("quick", "sweep") if getattr(options, name)]
    made = {"provenance": provenance(" ".join(["python -m bench.bench_kernels", *flags]))}
    content = made | measure_kernels(quick=options.quick, sweeping=options.sweep)
    name = "kernels-sweep" if options.sweep else "kernels"
    path = store(name, content, quick=options.quick)
    print(f"\nraw samples: {path}")


if __name__ == "__main__":
    main()
