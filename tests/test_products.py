"""Fast products are float32-accurate and leave the process as they found it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor

from vaekit import products


@pytest.fixture(autouse=True)
def fresh_measurement() -> Iterator[None]:
    measure = products.product_error
    measure.cache_clear()
    yield
    measure.cache_clear()


def test_products_inside_are_float32_accurate() -> None:
    generator = torch.Generator().manual_seed(1)
    a = torch.randn(3, 128, 256, generator=generator)
    b = torch.randn(3, 256, 64, generator=generator)
    exact = a.double() @ b.double()
    with products.fast_products(torch.device("cpu")):
        error = (torch.bmm(a, b).double() - exact).abs().max() / exact.abs().max()
    assert error < products.FLOAT32_ERROR


@pytest.mark.parametrize("before", ["highest", "high", "medium"])
def test_the_global_setting_is_restored(before: str) -> None:
    outside = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(before)
    try:
        with pytest.raises(KeyError), products.fast_products(torch.device("cpu")):
            raise KeyError
        assert torch.get_float32_matmul_precision() == before
    finally:
        torch.set_float32_matmul_precision(outside)


@pytest.mark.parametrize("product", ["forward", "weights' gradient", "inputs' gradient"])
def test_a_library_that_rounds_to_bfloat16_is_refused(
    product: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In whichever of the three products it does."""
    bmm, baddbmm = torch.bmm, torch.baddbmm

    def rounding_bmm(a: Tensor, b: Tensor, out: Tensor) -> Tensor:
        turned = a if product == "weights' gradient" else b
        wanted = product != "forward" and not turned.is_contiguous()
        a, b = (a.bfloat16().float(), b.bfloat16().float()) if wanted else (a, b)
        return bmm(a, b, out=out)

    def rounding_baddbmm(bias: Tensor, a: Tensor, b: Tensor, out: Tensor) -> Tensor:
        a = a.bfloat16().float() if product == "forward" else a
        return baddbmm(bias, a, b, out=out)

    monkeypatch.setattr(torch, "bmm", rounding_bmm)
    monkeypatch.setattr(torch, "baddbmm", rounding_baddbmm)
    # The library of a machine that rounds anyway would hide which product was seen.
    monkeypatch.setattr(products, "float32_products", lambda setting: nullcontext())
    assert products.product_error() > 100 * products.FLOAT32_ERROR
    assert products.product_library(torch.device("cpu")) == "mkl"


def test_a_library_that_is_refused_is_not_switched_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "product_error", lambda: 2 * products.FLOAT32_ERROR)
    with products.fast_products(torch.device("cpu")):
        assert torch.get_float32_matmul_precision() == "highest"
