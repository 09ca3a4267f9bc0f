"""Speed of every kernel on this machine's card, beside torch.compile of its definition.

    python -m bench.bench_kernels [--quick]

Each implementation is first held to the definition by the tests' own rule, in this process and at
the size that is timed, and once more after timing, at other values; one that fails stops the
benchmark before a figure of it is printed. Times are of the device: cold (a buffer larger than L2
is overwritten before every call, and calls take turns with several sets of inputs) and warm (the
call is repeated with one set, so its memory may be in L2). 100 % is the roof: the slower of the
bytes at the faster of copying and reading and the arithmetic at the rate of float32 products, all
measured in this run by the same clock. A cold time below that is an error of the benchmark and is
reported as one.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import statistics
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch._dynamo.exc import TorchDynamoException

from bench.ceilings import believed, measure_ceilings, memory_rate, roof
from bench.clock import Clock
from bench.errors import BenchError
from bench.kernel_ops import kernel_operations
from bench.operation import (
    ROTATED,
    Operation,
    checked,
    directions,
    error,
    module_of_tests,
    turning,
)
from bench.provenance import provenance
from bench.storage import store
from bench.timing import interleave, ratio
from vaekit_kernels import launch

ROUNDS, QUICK_ROUNDS, WARMUP = 60, 12, 3
CAUSE = re.compile(r"[\w.]+(Error|Exception): .")
KERNEL, AGAIN, COMPILED = "triton", "triton (A/A)", "compile"
Rows = list[dict[str, Any]]


def compare(clock: Clock, operation: Operation, ceilings: Mapping[str, Any], rounds: int) -> Rows:
    """Check, time and check again one operation; print its rows and return them with samples."""
    # So that programs of the operations before it are none of those that torch allows one.
    torch.compiler.reset()
    implementations = {name: operation.implementation(name) for name in (KERNEL, COMPILED)}
    reason = refused(operation, implementations[COMPILED])
    if reason:
        print(f"{operation.name:32}torch.compile left out: {reason}")
        del implementations[COMPILED]
    first, *_, last = sets = operation.rotated(ROTATED)
    checked(first, implementations)
    # The kernel twice: what two runs of one thing differ by is the noise of this machine.
    timed = implementations | {AGAIN: implementations[KERNEL]}
    calls = {name: turning(sets, run) for name, run in timed.items()}
    # Always of one set, or the sets would drive each other out of the cache.
    warm_calls = {name: turning(sets[:1], run) for name, run in timed.items()}
    name, _, size = operation.name.rpartition(" ")
    rows: Rows = []
    for direction in calls[KERNEL]:
        row, warm_row = (
            {name: call[direction] for name, call in made.items()} for made in (calls, warm_calls)
        )
        for call in row.values():
            call()
        # Whatever was not compiled by now would be timed, and is an error instead.
        with torch.compiler.set_stance("fail_on_recompile"):
            cold = interleave(row, rounds, WARMUP, timer=clock.cold)
            warm = interleave(warm_row, max(3, rounds // 4), WARMUP, timer=clock.warm)
        moved, work = operation.work(direction)
        least = roof(moved, work, ceilings)
        rows += [
            {
                "operation": name,
                "size": size,
                "direction": direction,
                "implementation": implementation,
                "bytes": moved,
                "work": work,
                "share_of_roof": believed(least, statistics.median(seconds)),
                "seconds": seconds,
                "warm_seconds": warm[implementation],
            }
            for implementation, seconds in cold.items()
        ]
    for made in rows:
        run = timed[made["implementation"]]
        made["error"] = error(last, run, made["direction"])
    for made in rows:
        print_row(made, rows)
    return rows


def refused(operation: Operation, compiled: Callable[..., Any]) -> str:
    """Say why torch.compile cannot build a definition; an empty text where it can.

    It builds a program where nothing is differentiated, one where something is, and a backward one.
    """
    try:
        for call in directions(operation, compiled).values():
            call()
    except TorchDynamoException as unbuilt:
        lines = str(unbuilt).strip().splitlines()
        # Where a process of the compiler failed, the first line says that alone, and the last line
        # of that process's traceback says why.
        return [lines[0], *filter(CAUSE.match, lines)][-1]
    return ""


def beside_the_kernel(row: Mapping[str, Any], rows: Rows) -> tuple[float, float, float]:
    """Cold time of a row over that of the kernel at the same work, with its interval."""
    same = ("operation", "size", "direction")
    kernel = next(
        each
        for each in rows
        if each["implementation"] == KERNEL and all(each[key] == row[key] for key in same)
    )
    return ratio(row["seconds"], kernel["seconds"])


def print_row(row: Mapping[str, Any], rows: Rows) -> None:
    """Print one line of the table."""
    cold, warm = (statistics.median(row[key]) * 1e6 for key in ("seconds", "warm_seconds"))
    beside = "{:.2f} ({:.2f} to {:.2f})".format(*beside_the_kernel(row, rows))
    name = f"{row['operation']} {row['size']}"
    print(
        f"{name:32}{row['direction']:10}{row['implementation']:14}{cold:10.1f}{warm:10.1f}"
        f"{row['share_of_roof']:9.0%}{beside:>24}{row['error']:10.1e}"
    )


HEADER = (
    f"{'':56}{'cold us':>10}{'warm us':>10}{'of roof':>9}{'over triton (95 %)':>24}{'error':>10}"
)


def card_facts() -> dict[str, str]:
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


def lacking() -> str:
    """Say why there is nothing to time here; an empty text where there is."""
    here = {
        "no CUDA device": torch.cuda.is_available(),
        "no Triton": importlib.util.find_spec("triton") is not None,
    }
    return " and ".join(word for word, there in here.items() if not there)


def measure_kernels(*, quick: bool, before: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Time everything on this machine's card and print the table.

    Args:
        quick: small sizes, a fifth of the rounds.
        before: ceilings of this card that the run has measured already.

    Returns:
        The card, its ceilings, and the rows with every raw sample; or why there are none.
    """
    if lacking():
        return {"skipped": {"kernels on a card": f"there is {lacking()}"}}
    rounds = QUICK_ROUNDS if quick else ROUNDS
    device = torch.device("cuda")
    ceilings = measure_ceilings(device, before=before)
    print(f"{card_facts()['name']}: memory at {memory_rate(ceilings) / 1e9:.0f} GB/s\n\n{HEADER}")
    sizes = ("a sweep",) if quick else ("a sweep", "beyond L2")
    clock, noise = Clock(), module_of_tests("oracle").normals
    rows: Rows = []
    for operation in kernel_operations(device, sizes, noise):
        rows += compare(clock, operation, ceilings, rounds)
    return {"card": card_facts(), "ceilings": ceilings, "rows": rows}


def main() -> None:
    """Time everything on this machine's card and store the samples."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, a fifth of the rounds")
    quick = parser.parse_args().quick
    if lacking():
        raise SystemExit(
            f"bench_kernels: there is {lacking()}, so there is nothing to time. Without a card the "
            "kernels are checked by `nox -s interpret` and `nox -s compile`."
        )
    made = provenance("python -m bench.bench_kernels" + (" --quick" if quick else ""))
    try:
        found = measure_kernels(quick=quick)
    except BenchError as error:
        parser.exit(2, f"bench_kernels: {error}\n")
    print(f"\nraw samples: {store('kernels', {'provenance': made} | found, quick=quick)}")


if __name__ == "__main__":
    main()
