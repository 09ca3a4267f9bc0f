"""Times of other block sizes than the pinned ones, on this machine's card.

    python -m bench.block_sizes

Every candidate is held to the definition before it is timed. A person copies a winner to
`vaekit_kernels/launch.py` with card, date and figure.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from bench.bench_kernels import KERNEL, ROUNDS, WARMUP, card_facts, lacking
from bench.ceilings import believed, measure_ceilings, roof
from bench.clock import Clock
from bench.errors import BenchError
from bench.kernel_ops import kernel_operations
from bench.operation import (
    ROTATED,
    Implementation,
    Operation,
    checked,
    module_of_tests,
    turning,
)
from bench.provenance import provenance
from bench.storage import store
from bench.timing import interleave
from vaekit_kernels import launch

TILES = {
    "sigmoid_grid": ([4, 8, 16, 32], [32, 64, 128]),
    "reparameterise": ([16, 32, 64, 128], [16]),
    "reparameterise_backward": ([16, 32, 64, 128], [16]),
    "pixel_nll": ([1, 2, 4, 8], [128, 512]),
    "pixel_nll_backward": ([1], [512, 1024, 2048, 4096]),
}
WARPS = (2, 4, 8)


def candidates(name: str) -> list[launch.Launch]:
    """Block sizes worth timing for a row of `launch.PINNED`."""
    made = [launch.Launch(*sizes) for sizes in itertools.product(*TILES[name], WARPS)]
    # Triton 3.6 aborts the process where a gather of the generator's has more warps than these.
    return [one for one in made if name != "sigmoid_grid" or one.warps <= max(2, one.rows // 2)]


def remembered(noise: Implementation) -> Implementation:
    """Draw noise once for all candidates of an operation: in float64 that takes many seconds."""
    drawn: dict[tuple[object, ...], Tensor] = {}

    def draw(seeds: Tensor, ids: Tensor, step: Tensor, *sizes: int) -> Tensor:
        labels = (tensor.cpu().numpy().tobytes() for tensor in (seeds, ids, step))
        key = (*labels, *sizes)
        if key not in drawn:
            drawn[key] = noise(seeds, ids, step, *sizes)
        return drawn[key]

    return draw


def sweep(
    clock: Clock, operation: Operation, ceilings: Mapping[str, Any], rounds: int
) -> list[dict[str, Any]]:
    """Check and time every candidate of an operation's rows; print the best of each."""
    found = []
    for name, direction in zip(operation.pinned, ("forward", "backward"), strict=False):
        least = roof(*operation.work(direction), ceilings)
        for candidate in candidates(name):
            rows = dict(launch.PINNED[name]) | {
                launch.FALLBACK: candidate,
                launch.architecture(torch.device("cuda")): candidate,
            }
            with mock.patch.object(launch, "PINNED", dict(launch.PINNED) | {name: rows}):
                kernel = operation.implementation(KERNEL)
                checked(operation, {KERNEL: kernel})
                call = turning(operation.rotated(ROTATED), kernel)[direction]
                cold = interleave({KERNEL: call}, rounds, WARMUP, timer=clock.cold)[KERNEL]
            share = believed(least, statistics.median(cold))
            found.append(
                {"operation": operation.name, "op": name, **asdict(candidate), "share": share,
                 "cold_seconds": cold}
            )  # fmt: skip
        best = max((row for row in found if row["op"] == name), key=lambda row: row["share"])
        print(
            f"{operation.name:32}{name:26}{best['share']:6.0%} of its roof: "
            f"{best['rows']} x {best['cols']}, {best['warps']} warps"
        )
    return found


def main() -> None:
    """Time every candidate on this machine's card and store the samples."""
    argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0]).parse_args()
    if lacking():
        raise SystemExit(f"block_sizes: there is {lacking()}, so there is nothing to time.")
    device, clock = torch.device("cuda"), Clock()
    ceilings, noise = measure_ceilings(device), remembered(module_of_tests("oracle").normals)
    made = {"provenance": provenance("python -m bench.block_sizes"), "card": card_facts()}
    rows: list[dict[str, Any]] = []
    for operation in kernel_operations(device, ("a sweep", "beyond L2"), noise):
        try:
            rows += sweep(clock, operation, ceilings, ROUNDS)
        except BenchError as error:
            raise SystemExit(f"block_sizes: {error}") from None
        # After every operation: all of them take many minutes.
        path = store("block-sizes", made | {"ceilings": ceilings, "rows": rows})
    print(f"\nraw samples: {path}")


if __name__ == "__main__":
    main()
