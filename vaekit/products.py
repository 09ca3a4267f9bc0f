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
def float32_products(setting: str) -> Iterator[None]:
    """Set torch's float32 precision of products ("highest", "high" or "medium") inside a `with`."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(setting)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@cache
def product_error() -> float:
    """Largest error of a layer's three products through oneDNN, over the largest element of each.

    The forward product with its bias, and the two of the backward pass, which read a transposed
    tensor: of a wide layer of the default network and of its narrowest.
    """
    return max(_layer_error(*sizes) for sizes in ((441, 256), (9, 128)))


def _layer_error(width: int, height: int) -> float:
    generator = torch.Generator().manual_seed(0)
    x, weight, bias, grad = (
        torch.randn(2, *shape, generator=generator)
        for shape in ((128, width), (width, height), (1, height), (128, height))
    )
    into, back = x.transpose(1, 2), weight.transpose(1, 2)
    with float32_products("medium"):
        made = [
            torch.baddbmm(bias, x, weight, out=torch.empty_like(grad)),
            torch.bmm(into, grad, out=torch.empty_like(weight)),
            torch.bmm(grad, back, out=torch.empty_like(x)),
        ]
    exact = [bias.double() + x.double() @ weight.double()]
    exact += [a.double() @ b.double() for a, b in ((into, grad), (grad, back))]
    errors = [(a - b).abs().max() / b.abs().max() for a, b in zip(made, exact, strict=True)]
    return float(torch.stack(errors).max())


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
        with float32_products("medium"):
            yield
    else:
        yield
