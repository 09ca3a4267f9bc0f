"""The rule that a kernel is held to, in one place.

oracle   the definition, in float64
control  the definition, in the op's own dtype
pass     max|out - oracle| <= 2 max|control - oracle| + FLOOR max|oracle|

for every output and every gradient, where a random cotangent comes in. The floor is a few units in
the last place of the largest value: it lets a kernel sum in another order where the control happens
to be exact. An output may be non-finite only where the oracle, rounded to the output's dtype, is.

The op must leave its inputs and all memory around its outputs alone, and write every output in
full: what it gets from `torch.empty` is full of NaN and has guard bands on both sides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor

Op = Callable[..., Tensor | tuple[Tensor, ...]]

FLOOR = {
    torch.float64: 2.0**-50,
    torch.float32: 2.0**-21,  # 4 units in the last place
    torch.bfloat16: 2.0**-8,  # half a unit: the interpreter truncates where a card rounds
    torch.float16: 2.0**-11,
}
GUARD_BYTES = 4096
GUARD, POISON = 0xA5, 0xFF  # POISON in every byte is a NaN in every floating dtype


@contextmanager
def poisoned() -> Iterator[list[Tensor]]:
    """Fill what `torch.empty` returns with NaN between guard bands; check the bands at the end.

    Yields:
        The buffers handed out so far, bands included.
    """
    buffers: list[Tensor] = []

    def empty(*shape: Any, dtype: torch.dtype = torch.float32, device: Any = "cpu") -> Tensor:
        size = torch.Size(shape[0] if shape and not isinstance(shape[0], int) else shape)
        count = size.numel() * dtype.itemsize
        buffer = torch.full((count + 2 * GUARD_BYTES,), GUARD, dtype=torch.uint8, device=device)
        inside = buffer[GUARD_BYTES : GUARD_BYTES + count]
        inside.fill_(POISON)
        buffers.append(buffer)
        return inside.view(dtype).view(size)

    with mock.patch.object(torch, "empty", empty):
        yield buffers
    for number, buffer in enumerate(buffers):
        bands = torch.cat((buffer[:GUARD_BYTES], buffer[-GUARD_BYTES:]))
        assert (bands == GUARD).all(), f"allocation {number}: written outside of its memory"


def run(
    op: Op, inputs: Mapping[str, Tensor], cotangents: list[Tensor] | None = None
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Call an op and differentiate it.

    Args:
        op: takes the inputs by name.
        inputs: those that require grad are differentiated.
        cotangents: one for each output; random if None.

    Returns:
        Outputs in order and gradients by input name, detached.
    """
    wanted = {name: tensor for name, tensor in inputs.items() if tensor.requires_grad}
    result = op(**inputs)
    outputs = [result] if isinstance(result, Tensor) else list(result)
    if cotangents is None:
        cotangents = random_like(outputs)
    assert len(outputs) == len(cotangents), f"{len(outputs)} outputs, not {len(cotangents)}"
    for index, (out, seed) in enumerate(zip(outputs, cotangents, strict=True)):
        assert out.shape == seed.shape, (
            f"output {index}: shape {list(out.shape)}, not {list(seed.shape)}"
        )
    if not wanted:
        return outputs, {}
    pairs = [
        (out, seed) for out, seed in zip(outputs, cotangents, strict=True) if out.requires_grad
    ]
    assert pairs, "no output depends on the inputs that require grad"
    grads = torch.autograd.grad(
        [out for out, _ in pairs],
        list(wanted.values()),
        [seed.to(out) for out, seed in pairs],
        allow_unused=True,
        materialize_grads=True,
    )
    return [out.detach() for out in outputs], dict(zip(wanted, grads, strict=True))


def random_like(outputs: list[Tensor]) -> list[Tensor]:
    """Cotangents of the outputs, the same on every call and every device."""
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(out.shape, generator=generator).to(device=out.device, dtype=out.dtype)
        for out in outputs
    ]


def widen(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy the inputs, floating-point ones to float64."""
    return {
        name: (tensor.detach().double() if tensor.is_floating_point() else tensor.clone())
        .clone()
        .requires_grad_(tensor.requires_grad)
        for name, tensor in inputs.items()
    }


def assert_matches(
    op: Op,
    reference: Op,
    inputs: Mapping[str, Tensor],
    *,
    oracle: Op | None = None,
    non_finite: bool = False,
) -> None:
    """Hold an op to its definition by the rule of this module.

    Args:
        op: what is tested.
        reference: its definition, which must take float64 too.
        inputs: by name; gradients are checked for those that require grad.
        oracle: takes the place of the reference in float64, for a definition that draws float32.
        non_finite: whether the oracle may be other than finite somewhere.

    Raises:
        AssertionError: the rule is broken.
    """
    control, control_grads = run(reference, inputs)
    cotangents = random_like(control)
    exact, exact_grads = run(oracle or reference, widen(inputs), cotangents)
    storages = {name: _bytes(tensor).clone() for name, tensor in inputs.items()}
    with poisoned() as buffers:
        out, grads = run(op, inputs, cotangents)
    del buffers
    for name, tensor in inputs.items():
        assert torch.equal(_bytes(tensor), storages[name]), f"input {name} was written to"
    for index, parts in enumerate(zip(out, exact, control, strict=True)):
        compare(f"output {index}", *parts, non_finite=non_finite)
    for name in exact_grads:
        parts = grads[name], exact_grads[name], control_grads[name]
        compare(f"gradient of {name}", *parts, non_finite=non_finite)


def compare(name: str, out: Tensor, oracle: Tensor, control: Tensor, *, non_finite: bool) -> None:
    """Hold one tensor to the rule; see the module."""
    assert out.shape == control.shape, f"{name}: shape {list(out.shape)}, not {list(control.shape)}"
    assert out.dtype == control.dtype, f"{name}: {out.dtype}, not {control.dtype}"
    assert out.device == control.device, f"{name}: on {out.device}, not {control.device}"
    rounded = oracle.to(out.dtype)
    finite = rounded.isfinite()
    assert non_finite or finite.all(), f"{name}: the oracle itself is not finite"
    same = (out == rounded) | (out.isnan() & rounded.isnan())
    wrong = torch.where(finite, ~out.isfinite(), ~same)
    assert not wrong.any(), f"{name}: {_at(wrong.double(), out, oracle)}"
    if not finite.any():
        return
    error = torch.where(finite, (out.double() - oracle).abs(), 0.0)
    control_error = torch.where(finite, (control.double() - oracle).abs(), 0.0).max().item()
    scale = torch.where(finite, oracle.abs(), 0.0).max().item()
    allowed = 2.0 * control_error + FLOOR[out.dtype] * scale
    assert not math.isnan(allowed), f"{name}: the control is not finite where the oracle is"
    assert error.max().item() <= allowed, (
        f"{name}: {_at(error, out, oracle)}, error {error.max().item():.3g}, allowed {allowed:.3g} "
        f"(the definition's own {control_error:.3g}, largest value {scale:.3g})"
    )


def assert_same_bits(op: Op, inputs: Mapping[str, Tensor], calls: int = 3) -> None:
    """Require the same bits of every output and gradient from repeated calls."""
    first, first_grads = run(op, inputs)
    for number in range(2, calls + 1):
        with poisoned():
            again, again_grads = run(op, inputs)
        for index, (a, b) in enumerate(zip(first, again, strict=True)):
            assert same_bits(a, b), f"output {index} differs in call {number}"
        for name, grad in first_grads.items():
            assert same_bits(grad, again_grads[name]), f"gradient of {name} differs in {number}"


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors agree in every bit, NaNs and signs of zero included."""
    if (a.shape, a.dtype) != (b.shape, b.dtype):
        return False
    flat = (tensor.detach().contiguous().flatten().view(torch.uint8) for tensor in (a, b))
    return torch.equal(*flat)


def _bytes(tensor: Tensor) -> Tensor:
    """All bytes of the storage that a tensor lies in."""
    storage = tensor.detach().untyped_storage()
    return torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(storage)


def _at(error: Tensor, out: Tensor, oracle: Tensor) -> str:
    index = tuple(int(i) for i in torch.unravel_index(error.argmax(), error.shape))
    return f"at {index} got {out[index].item():.9g}, not {oracle[index].item():.9g}"
