"""The checker under test: ops that are known to be wrong must be rejected, and why must be said."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from checks import FLOOR, assert_matches, assert_same_bits, poisoned
from vaekit_kernels.reference import pixel_nll, reparameterise

SHAPE = (2, 5, 9)
MEAN, LOGVAR, NOISE = torch.randn((3, *SHAPE), generator=torch.Generator().manual_seed(0))


def inputs(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    return {
        "mean": MEAN.to(dtype, copy=True).requires_grad_(),
        "logvar": LOGVAR.to(dtype, copy=True).requires_grad_(),
        "noise": NOISE.to(dtype, copy=True),
    }


def right(mean: Tensor, logvar: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    z, kl = reparameterise(mean, logvar, noise)
    return z.clone(), kl.clone()


def without_the_half(mean: Tensor, logvar: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    z, kl = right(mean, logvar, noise)
    return z, 2 * kl


def in_bf16(mean: Tensor, logvar: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    z, kl = right(mean.bfloat16(), logvar.bfloat16(), noise.bfloat16())
    return z.float(), kl


def right_in_the_mean_only(mean: Tensor, logvar: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    z, kl = right(mean, logvar, noise)
    return z, kl.mean(1, keepdim=True).expand_as(kl).clone()


def uninitialised(mean: Tensor, logvar: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    z, kl = right(mean, logvar, noise)
    out = torch.empty(kl.shape, dtype=kl.dtype)
    out[:, :-1] = kl.detach()[:, :-1]
    return z, out


def out_of_bounds(mean: Tensor, logvar: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    z, kl = right(mean, logvar, noise)
    out = torch.empty(kl.shape, dtype=kl.dtype)
    out.copy_(kl.detach())
    torch.as_strided(out, (1,), (1,), out.storage_offset() + out.numel()).fill_(0.0)
    return z, kl


def in_place(mean: Tensor, logvar: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    result = right(mean, logvar, noise)
    noise.data.zero_()  # behind autograd's back, as a kernel writes
    return result


def all_zero(mean: Tensor, logvar: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Zeroes its inputs, so that a reference run on them afterwards would agree."""
    with torch.no_grad():
        for tensor in (mean, logvar, noise):
            tensor.zero_()
    return right(mean, logvar, noise)


def one_nan(mean: Tensor, logvar: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    z, kl = right(mean, logvar, noise)
    return z, torch.where(torch.arange(5) == 3, torch.nan, kl)


def stopped_gradient(mean: Tensor, logvar: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    z, _ = right(mean, logvar.detach(), noise)
    return z, right(mean, logvar, noise)[1]


def averaged_over_models(mean: Tensor, logvar: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Right values whose gradient is divided by the number of models."""

    def divided(x: Tensor) -> Tensor:
        return x / 2 + x.detach() / 2

    return right(divided(mean), divided(logvar), noise)


def shorter(mean: Tensor, logvar: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    z, kl = right(mean, logvar, noise)
    return z, kl[:, :-1]


def wider(mean: Tensor, logvar: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    z, kl = right(mean, logvar, noise)
    return z, kl.double()


def one_output(mean: Tensor, logvar: Tensor, noise: Tensor) -> Tensor:
    return right(mean, logvar, noise)[0]


WRONG = {
    without_the_half: r"^output 1: at \(\d, \d\) got .*, allowed",
    in_bf16: r"^output 0: at .*, allowed",
    right_in_the_mean_only: r"^output 1: at .*, allowed",
    uninitialised: r"^output 1: at \(0, 4\) got nan",
    out_of_bounds: r"^allocation 0: written outside",
    in_place: r"^input noise was written to",
    all_zero: r"^input mean was written to",
    one_nan: r"^output 1: at \(0, 3\) got nan",
    stopped_gradient: r"^gradient of logvar: at",
    averaged_over_models: r"^gradient of mean: at",
    shorter: r"^output 1: shape \[2, 4\], not \[2, 5\]",
    wider: r"^output 1: torch.float64, not torch.float32",
    one_output: r"^1 outputs, not 2",
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_right_op_passes(dtype: torch.dtype) -> None:
    assert_matches(right, reparameterise, inputs(dtype))


@pytest.mark.parametrize("wrong", WRONG, ids=lambda op: op.__name__)
def test_a_wrong_op_is_rejected_for_its_reason(wrong) -> None:
    with pytest.raises(AssertionError, match=WRONG[wrong]):
        assert_matches(wrong, reparameterise, inputs())


def test_a_few_roundings_are_allowed_and_many_are_not() -> None:
    """What the floor is for: the control may be exact by luck."""
    exact = {"x": torch.ones(8)}
    for units, fine in ((1, True), (4, True), (6, False), (64, False)):
        off = partial(lambda x, by: x * (1 + by * 2**-23), by=units)
        if fine:
            assert_matches(off, lambda x: x, exact)
        else:
            with pytest.raises(AssertionError, match="allowed"):
                assert_matches(off, lambda x: x, exact)


def test_a_sum_in_bf16_is_rejected_where_the_sum_is_float32() -> None:
    """Narrow inputs are no excuse: terms are float32 whatever the inputs are."""
    output = torch.randn(2, 3, 441, generator=torch.Generator().manual_seed(1)).bfloat16()
    values = {"output": output, "image": torch.full((1, 3, 441), 0.3).bfloat16()}

    def narrow(output: Tensor, image: Tensor) -> Tensor:
        return pixel_nll(output, image).bfloat16().float()

    assert_matches(pixel_nll, pixel_nll, values)
    with pytest.raises(AssertionError, match="allowed"):
        assert_matches(narrow, pixel_nll, values)


def test_an_oracle_that_is_not_finite_is_an_error_unless_it_is_meant() -> None:
    values = {"x": torch.tensor([1.0, torch.inf, -torch.inf, torch.nan])}
    with pytest.raises(AssertionError, match="oracle itself is not finite"):
        assert_matches(lambda x: 1 * x, lambda x: x, values)
    assert_matches(lambda x: 1 * x, lambda x: x, values, non_finite=True)
    for wrong in (lambda x: -x, lambda x: x.nan_to_num(), lambda x: x.sum().expand(4)):
        with pytest.raises(AssertionError, match=r"output 0: at"):
            assert_matches(wrong, lambda x: x, values, non_finite=True)


def test_an_op_that_gives_other_bits_the_second_time_is_rejected() -> None:
    calls = []

    def moving(x: Tensor) -> Tensor:
        calls.append(1)
        return x + len(calls) * 2**-20

    assert_same_bits(lambda x: -x, {"x": torch.zeros(3)})
    with pytest.raises(AssertionError, match="output 0 differs in call 2"):
        assert_same_bits(moving, {"x": torch.zeros(3)})


def test_poison_is_nan_in_every_dtype() -> None:
    with poisoned() as buffers:
        for dtype in FLOOR:
            made = torch.empty(2, 3, dtype=dtype)
            assert made.isnan().all()
            assert made.data_ptr() % 16 == 0
    assert len(buffers) == len(FLOOR)
