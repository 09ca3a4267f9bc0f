"""Float32 matrix products on the CPU by the fastest library that is as accurate.

PyTorch multiplies float32 matrices with MKL by default and with oneDNN when the float32 precision
is set to "medium". On AMD parts oneDNN is more than twice as fast at float32 accuracy; on parts
with bfloat16 matrix units the same setting really computes in bfloat16. So the error is measured
first, and the setting, which is global to the process, is held only inside a `with`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

# A float32 product of this size errs by about 3e-7 of its largest element, a bfloat16 one by 3e-3.
FLOAT32_ERROR = 5e-6


@contextmanager
def _precision(setting: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(setting)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@cache
def product_error() -> float:
    """Largest error of a 128 x 441 x 256 product through oneDNN, over its largest element."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(2, 128, 441, generator=generator)
    b = torch.randn(2, 441, 256, generator=generator)
    exact = a.double() @ b.double()
    with _precision("medium"):
        error = (torch.bmm(a, b).double() - exact).abs().max() / exact.abs().max()
    return float(error)


def product_library(device: torch.device) -> str:
    """Name the library that `fast_products` takes: "onednn" or "mkl" on a CPU, "cublas" on CUDA."""
    if device.type != "cpu":
        return "cublas"
    # The choice rests on accuracy alone: a timing would make it, and so the bits, a matter of luck.
    usable = torch.backends.mkldnn.is_available() and product_error() <= FLOAT32_ERROR
    return "onednn" if usable else "mkl"


@contextmanager
def fast_products(device: torch.device) -> Iterator[None]:
    """Take the fastest float32 products inside a `with`; do nothing where there is no choice."""
    if product_library(device) == "onednn":
        with _precision("medium"):
            yield
    else:
        yield
