"""Fast products are float32-accurate and leave the process as they found it."""

from __future__ import annotations

import pytest
import torch

from vaekit import products


@pytest.fixture(autouse=True)
def fresh_measurement() -> None:
    products.product_error.cache_clear()


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


def test_a_library_that_rounds_to_bfloat16_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    bmm = torch.bmm
    monkeypatch.setattr(torch, "bmm", lambda a, b: bmm(a.bfloat16(), b.bfloat16()).float())
    assert products.product_error() > 100 * products.FLOAT32_ERROR
    assert products.product_library(torch.device("cpu")) == "mkl"
    with products.fast_products(torch.device("cpu")):
        assert torch.get_float32_matmul_precision() == "highest"
