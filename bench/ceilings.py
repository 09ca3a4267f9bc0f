"""What this machine can do, measured in the run that quotes it: copies, products, a call's cost."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch

from bench.timing import interleave
from vaekit.model import StackedVAE
from vaekit.products import fast_products

CPU = torch.device("cpu")
# Far beyond a CPU's cache, and small enough for a laptop.
COPY_BYTES = 2**28
# Square products of this size are at the peak of both libraries, and take some milliseconds.
PRODUCT = 1024
CALLS = 1000
# Rounding of the clock and of the ceilings' own medians; beyond it a share is not believed.
BELIEVED = 1.05


def cpu_ceilings(rounds: int = 9) -> dict[str, Any]:
    """Measure the ceilings of a CPU with the threads that torch uses.

    Returns:
        copy_bytes_per_second (read and written), product_flops_per_second of float32 as the engine
        multiplies ("float32"), of torch's default library ("float32, default") and of bfloat16, and
        seconds_per_call of an operation on one number. All from the fastest round, since a ceiling
        is what the machine can do and noise only slows it; the samples are beside them.
    """
    source = torch.rand(COPY_BYTES // 4)
    target = torch.empty_like(source)
    a, b = torch.randn(2, PRODUCT, PRODUCT)
    out = torch.empty(PRODUCT, PRODUCT)
    low_a, low_b, low_out = a.bfloat16(), b.bfloat16(), out.bfloat16()
    one = torch.zeros(1)

    def product(library: Any, *tensors: torch.Tensor) -> Callable[[], object]:
        def run() -> object:
            with library:
                return torch.mm(tensors[0], tensors[1], out=tensors[2])

        return run

    def calls() -> None:
        for _ in range(CALLS):
            one.add_(1.0)

    functions: dict[str, Callable[[], object]] = {
        "copy": lambda: target.copy_(source),
        "float32": lambda: product(fast_products(CPU), a, b, out)(),
        "float32, default": product(nullcontext(), a, b, out),
        "bfloat16": product(nullcontext(), low_a, low_b, low_out),
        "call": calls,
    }
    samples = interleave(functions, rounds, warmup=2)
    best = {name: min(seconds) for name, seconds in samples.items()}
    return {
        "copy_bytes_per_second": 2 * COPY_BYTES / best["copy"],
        "product_flops_per_second": {
            name: 2 * PRODUCT**3 / best[name]
            for name in ("float32", "float32, default", "bfloat16")
        },
        "seconds_per_call": best["call"] / CALLS,
        "seconds": samples,
    }


def step_flops(vae: StackedVAE, batch: int) -> int:
    """Floating-point operations of the products of one model's training step.

    Forward and weight gradient of every layer, and the data gradient of all but the first: each
    is 2 B I O.
    """
    sizes = vae.architecture.sizes
    return sum(2 * batch * i * o * (3 if index else 2) for index, (i, o) in enumerate(sizes))


def share(flops: float, seconds: list[float], flops_per_second: float) -> float:
    """Share of the measured rate of products that a median time amounts to.

    Raises:
        RuntimeError: it is more than the machine can do, so the benchmark is wrong.
    """
    found = flops / statistics.median(seconds) / flops_per_second
    if found > BELIEVED:
        raise RuntimeError(
            f"{flops:.3g} operations in {statistics.median(seconds) * 1e3:.3f} ms are {found:.0%} "
            "of the measured rate of products: this time cannot be right, and nothing is stored"
        )
    return found
