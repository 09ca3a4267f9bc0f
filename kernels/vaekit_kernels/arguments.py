"""The door: what every op checks of its arguments, with errors that name the argument."""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor

from .philox import WORD, Draw
from .reference import Kl, Likelihood

KERNEL_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_FLOATS = (*KERNEL_DTYPES, torch.float64)
# Offsets inside one model's or stream's block are 32-bit in the kernels; its base is 64-bit.
_BLOCK_LIMIT = 2**31


def describe(tensor: Tensor) -> str:
    """Say what a tensor is: shape, dtype, device, and strides where they are not the plain ones."""
    strides = "" if tensor.is_contiguous() else f" with strides {list(tensor.stride())}"
    return f"{list(tensor.shape)} {tensor.dtype} on {tensor.device}{strides}"


def _refuse(name: str, tensor: Tensor, allowed: str) -> ValueError:
    return ValueError(f"{name}: got {describe(tensor)}; allowed: {allowed}")


def _floating(name: str, tensor: Tensor, device: torch.device) -> None:
    if tensor.dtype not in _FLOATS or tensor.device != device:
        raise _refuse(name, tensor, f"a floating-point tensor on {device}")


def _like(name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    if (tensor.shape, tensor.dtype, tensor.device) != (other.shape, other.dtype, other.device):
        raise _refuse(name, tensor, f"the same as {other_name}, {describe(other)}")


def _labels(name: str, tensor: Tensor, count: int, device: torch.device) -> None:
    if (tensor.shape, tensor.dtype, tensor.device) != ((count,), torch.int64, device):
        raise _refuse(name, tensor, f"[{count}] torch.int64 on {device}")


def _step(step: int | Tensor, count: int, device: torch.device) -> None:
    if isinstance(step, Tensor):
        _labels("step", step, count, device)
    elif not 0 <= step <= WORD:
        raise ValueError(f"step: got {step}; allowed: 0 to {WORD}")


def _choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}: got {value!r}; allowed: {', '.join(allowed)}")


def _positive(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{name}: got {value}; allowed: more than 0")


def check_render(intensity: Tensor, grid: int, tile: int) -> None:
    """Check the arguments of `render`."""
    _positive("grid", grid)
    _positive("tile", tile)
    _floating("intensity", intensity, intensity.device)
    if intensity.ndim < 1 or intensity.shape[-1] != grid * grid:
        raise _refuse("intensity", intensity, f"[..., {grid * grid}]")


def check_sigmoid_grid(
    mu: Tensor,
    seeds: Tensor,
    ids: Tensor,
    step: int | Tensor,
    batch: int,
    grid: int,
    tile: int,
    noise_variance: float,
) -> None:
    """Check the arguments of `sigmoid_grid`."""
    _positive("grid", grid)
    _positive("tile", tile)
    _floating("mu", mu, mu.device)
    if mu.ndim != 1:
        raise _refuse("mu", mu, "[S]")
    _labels("seeds", seeds, len(mu), mu.device)
    _labels("ids", ids, len(mu), mu.device)
    _step(step, len(mu), mu.device)
    if not noise_variance >= 0:
        raise ValueError(f"noise_variance: got {noise_variance}; allowed: 0 or more")
    if not 0 <= batch * (grid * tile) ** 2 < _BLOCK_LIMIT:
        raise ValueError(f"batch: got {batch}; allowed: fewer than 2**31 pixels a stream")


def check_reparameterise(mean: Tensor, logvar: Tensor, noise: Tensor | Draw, kl: str) -> None:
    """Check the arguments of `reparameterise`."""
    _choice("kl", kl, get_args(Kl))
    _floating("mean", mean, mean.device)
    if mean.ndim != 3:
        raise _refuse("mean", mean, "[M, B, L]")
    if mean.shape[1:].numel() >= _BLOCK_LIMIT:
        raise _refuse("mean", mean, "fewer than 2**31 values a model")
    _like("logvar", logvar, "mean", mean)
    if isinstance(noise, Draw):
        _labels("noise.seeds", noise.seeds, len(mean), mean.device)
        _labels("noise.ids", noise.ids, len(mean), mean.device)
        _step(noise.step, len(mean), mean.device)
        return
    _floating("noise", noise, mean.device)
    if noise.shape != mean.shape:
        raise _refuse("noise", noise, f"the shape of mean, {list(mean.shape)}")


def check_pixel_nll(
    output: Tensor, image: Tensor, likelihood: str, decoder_variance: float
) -> None:
    """Check the arguments of `pixel_nll`."""
    _choice("likelihood", likelihood, get_args(Likelihood))
    _positive("decoder_variance", decoder_variance)
    _floating("output", output, output.device)
    if output.ndim != 3:
        raise _refuse("output", output, "[M, B, P]")
    if output.shape[1:].numel() >= _BLOCK_LIMIT:
        raise _refuse("output", output, "fewer than 2**31 pixels a model")
    _floating("image", image, output.device)
    models, batch, pixels = output.shape
    if image.ndim != 3 or image.shape[1:] != (batch, pixels) or models % max(len(image), 1):
        raise _refuse(
            "image", image, f"[S, {batch}, {pixels}] with {models} models a multiple of S"
        )


def each_step(step: int | Tensor, count: int, device: torch.device) -> Tensor:
    """Give every stream or model its step: int64 [count], made on the device without a copy."""
    if isinstance(step, Tensor):
        return step
    return torch.full((count,), step, dtype=torch.int64, device=device)


def check_kernel(**tensors: Tensor) -> None:
    """Check what a kernel asks for beyond the definition: its dtypes, and plain strides."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.dtype not in KERNEL_DTYPES:
            raise _refuse(
                name, tensor, "float32, bfloat16 or float16 by Triton (backend='torch' takes more)"
            )
        if not tensor.is_contiguous():
            raise _refuse(name, tensor, "a contiguous tensor by Triton")


def check_constant(**tensors: Tensor) -> None:
    """Refuse gradients that a kernel would silently not give."""
    for name, tensor in tensors.items():
        if tensor.requires_grad:
            raise ValueError(
                f"{name}: got a tensor that requires grad; allowed: one that does not, "
                "by Triton (backend='torch' differentiates it)"
            )
