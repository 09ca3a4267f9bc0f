"""What this machine can do, measured in the run that quotes it: copies, products, a call's cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench.clock import Clock
from bench.errors import BenchError
from bench.timing import interleave
from vaekit.model import Architecture
from vaekit.products import fast_products, float32_products

CPU = torch.device("cpu")
# The least that is copied; twice the last cache where that is more.
COPY_BYTES = 2**28
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
# Square products of this size are at the peak of their libraries, and take some milliseconds.
PRODUCT = {"cpu": 1024, "cuda": 8192}
CALLS = 1000
# Products of float32 are by the faster of two libraries; a precision's own otherwise.
RATES = {"float32": ("float32", "float32, default"), "tf32": ("tf32",), "bf16": ("bfloat16",)}
# For the rounding of the clock and the noise of the ceilings; beyond it a share is not believed.
BELIEVED = 1.05


def beyond_cache(device: torch.device = CPU) -> int:
    """Bytes far beyond the largest cache, as Linux or the card tells it."""
    if device.type == "cuda":
        # A copy of less would be mostly its launch.
        return max(4 * COPY_BYTES, 4 * torch.cuda.get_device_properties(device).L2_cache_size)
    sizes = [path.read_text().strip() for path in CACHES.glob("index*/size")]
    largest = max((int(size.removesuffix("K")) for size in sizes), default=0)
    return max(COPY_BYTES, 2048 * largest)


def measure_ceilings(
    device: torch.device = CPU, rounds: int = 9, before: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Measure the ceilings of a card, or of the CPU with the threads that torch uses.

    Args:
        device: whose they are.
        rounds: of each.
        before: ceilings of this device that were measured earlier in the run; their rounds count
            too, as a machine that was disturbed then may not be now.

    Returns:
        copy_bytes_per_second (read and written), read_bytes_per_second (of a sum),
        product_flops_per_second of float32 as the engine multiplies ("float32"), of torch's default
        library ("float32, default"), of bfloat16 and, on a card, of tf32; and seconds_per_call of
        an operation on one number. All from the fastest round, since a ceiling is what the machine
        can do and noise only slows it; the samples are beside them.
    """
    copied, size = beyond_cache(device), PRODUCT[device.type]
    source = torch.rand(copied // 4, device=device)
    target = torch.empty_like(source)
    a, b = torch.randn(2, size, size, device=device)
    out = torch.empty_like(a)
    low_a, low_b, low_out = a.bfloat16(), b.bfloat16(), out.bfloat16()
    one = torch.zeros(1, device=device)

    def product(library: Callable[[], Any], *tensors: torch.Tensor) -> Callable[[], object]:
        def run() -> object:
            with library():
                return torch.mm(tensors[0], tensors[1], out=tensors[2])

        return run

    def calls() -> None:
        for _ in range(CALLS):
            one.add_(1.0)

    products = {
        "float32": product(partial(fast_products, device), a, b, out),
        "float32, default": product(nullcontext, a, b, out),
        "bfloat16": product(nullcontext, low_a, low_b, low_out),
    }
    if device.type == "cuda":
        products["tf32"] = product(partial(float32_products, "high"), a, b, out)
    functions: dict[str, Callable[[], object]] = {
        "copy": lambda: target.copy_(source),
        "read": source.sum,
        **products,
    }
    # By the clock that kernels are timed with: the host's would add what a launch takes.
    timer = Clock().cold if device.type == "cuda" else None
    samples = interleave(functions, rounds, warmup=2, device=device, timer=timer)
    samples |= interleave({"call": calls}, rounds, warmup=2, device=device)
    for name, seconds in (before or {}).get("seconds", {}).items():
        samples[name] = seconds + samples[name]
    best = {name: min(seconds) for name, seconds in samples.items()}
    return {
        "copy_bytes_per_second": 2 * copied / best["copy"],
        "read_bytes_per_second": copied / best["read"],
        "product_flops_per_second": {name: 2 * size**3 / best[name] for name in products},
        "seconds_per_call": best["call"] / CALLS,
        "seconds": samples,
    }


def memory_rate(ceilings: Mapping[str, Any]) -> float:
    """Bytes a second of the faster of copying and reading: nothing that moves bytes is quicker."""
    return float(max(ceilings["copy_bytes_per_second"], ceilings["read_bytes_per_second"]))


def product_rate(ceilings: Mapping[str, Any], precision: str = "float32") -> float:
    """Operations a second of large products of a precision."""
    rates = ceilings["product_flops_per_second"]
    return float(max(rates[name] for name in RATES[precision]))


def roof(moved: int, work: int, ceilings: Mapping[str, Any]) -> float:
    """Seconds that bytes and float32 operations take at the least, whichever is slower."""
    return max(moved / memory_rate(ceilings), work / product_rate(ceilings))


def step_flops(architecture: Architecture, batch: int) -> int:
    """Floating-point operations of the products of one model's training step.

    Forward and weight gradient of every layer, and the data gradient of all but the first: each
    is 2 B I O.
    """
    sizes = enumerate(architecture.sizes)
    return sum(2 * batch * i * o * (3 if index else 2) for index, (i, o) in sizes)


def believed(least: float, seconds: float) -> float:
    """Share of a time that the machine's measured rates account for.

    Args:
        least: seconds that the work takes at those rates.
        seconds: that it was measured to take.

    Raises:
        BenchError: it is quicker than the machine can be, so the benchmark is wrong.
    """
    found = least / seconds
    if not found <= BELIEVED:
        raise BenchError(
            f"{seconds * 1e6:.4g} us for what takes {least * 1e6:.4g} us at the measured rates, "
            f"{found:.0%} of the ceiling: this time cannot be right, and is not stored"
        )
    return found
