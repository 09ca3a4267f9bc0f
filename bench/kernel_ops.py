"""What the kernel benchmark times, as data: ops, sizes, implementations, bytes that must move."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

import vaekit_kernels as ops
from vaekit_kernels import Draw, Stream, float_ids, reference
from vaekit_kernels.philox import normals

Implementation = Callable[..., Any]
BATCH, PIXELS, FACTORS, LATENTS, BETAS = 128, 441, 9, 9, 11


@dataclass(frozen=True)
class Problem:
    """One op at one size.

    Attributes:
        name: op and size.
        pinned: names of its forward and backward rows in `launch.PINNED`.
        inputs: by name; those that require grad make it a problem with a backward pass.
        kernel, definition: the two implementations.
        forward_bytes, backward_bytes: what must be read and written once, in bytes.
        oracle: the definition in float64 where the plain one draws float32 noise.
    """

    name: str
    pinned: tuple[str, ...]
    inputs: Mapping[str, Tensor]
    kernel: Implementation
    definition: Implementation
    forward_bytes: int
    backward_bytes: int = 0
    oracle: Implementation | None = None


def labels(count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Seeds and ids of a number of streams or models."""
    index = torch.arange(count, device=device)
    return index, float_ids(0.25 * index)


def randn(*shape: int, device: torch.device) -> Tensor:
    """Normals; never zeros or constants, which a card multiplies faster."""
    generator = torch.Generator(device).manual_seed(0)
    return torch.randn(*shape, device=device, generator=generator)


def generator(streams: int, device: torch.device, noise: Implementation | None) -> Problem:
    """The sigmoid grid of a number of streams; writes only."""
    seeds, ids = labels(streams, device)
    call = {"step": 5, "batch": BATCH}

    def oracle(mu: Tensor, seeds: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        assert noise is not None
        z = mu[:, None, None] + noise(seeds, ids, 5, Stream.IMAGE_TRUTH, BATCH, FACTORS)
        clean = reference.render(torch.sigmoid(z), grid=3, tile=7)
        return clean + 0.5 * noise(seeds, ids, 5, Stream.IMAGE_NOISE, BATCH, PIXELS), z

    return Problem(
        name=f"sigmoid_grid S={streams}",
        pinned=("sigmoid_grid",),
        inputs={"mu": 0.1 * seeds.float(), "seeds": seeds, "ids": ids},
        kernel=partial(ops.sigmoid_grid, backend="triton", **call),
        definition=partial(reference.sigmoid_grid, **call),
        forward_bytes=4 * streams * BATCH * (PIXELS + FACTORS),
        oracle=oracle if noise else None,
    )


def latent(models: int, device: torch.device, noise: Implementation | None) -> Problem:
    """Reparameterisation and KL with the noise drawn where it is used."""
    seeds, ids = labels(models, device)
    mean, logvar = randn(2, models, BATCH, LATENTS, device=device)

    def kernel(mean: Tensor, logvar: Tensor, seeds: Tensor, ids: Tensor) -> Any:
        return ops.reparameterise(mean, logvar, Draw(seeds, ids, 5), backend="triton")

    def definition(mean: Tensor, logvar: Tensor, seeds: Tensor, ids: Tensor) -> Any:
        drawn = normals(seeds, ids, 5, Stream.LATENT, BATCH, LATENTS)
        return reference.reparameterise(mean, logvar, drawn)

    def oracle(mean: Tensor, logvar: Tensor, seeds: Tensor, ids: Tensor) -> Any:
        assert noise is not None
        drawn = noise(seeds, ids, 5, Stream.LATENT, BATCH, LATENTS)
        return reference.reparameterise(mean, logvar, drawn)

    rows = models * BATCH
    return Problem(
        name=f"reparameterise M={models}",
        pinned=("reparameterise", "reparameterise_backward"),
        inputs={
            "mean": mean.clone().requires_grad_(),
            "logvar": logvar.clone().requires_grad_(),
            "seeds": seeds,
            "ids": ids,
        },
        kernel=kernel,
        definition=definition,
        forward_bytes=4 * rows * (3 * LATENTS + 1),
        backward_bytes=4 * rows * (5 * LATENTS + 1),
        oracle=oracle if noise else None,
    )


def pixel(models: int, device: torch.device, options: Mapping[str, Any]) -> Problem:
    """Pixel NLL of models that share the images of their stream by elevens."""
    streams = models // BETAS
    image = 0.5 + 0.5 * randn(streams, BATCH, PIXELS, device=device)
    rows = models * BATCH
    return Problem(
        name=f"pixel_nll {options.get('likelihood', 'gaussian')} M={models}",
        pinned=("pixel_nll", "pixel_nll_backward"),
        inputs={
            "output": (2.0 * randn(models, BATCH, PIXELS, device=device)).requires_grad_(),
            "image": image,
        },
        kernel=partial(ops.pixel_nll, backend="triton", **options),
        definition=partial(reference.pixel_nll, **options),
        forward_bytes=4 * (PIXELS * BATCH * (models + streams) + rows),
        backward_bytes=4 * (PIXELS * BATCH * (2 * models + streams) + rows),
    )


def problems(
    device: torch.device, *, quick: bool, noise: Implementation | None = None
) -> list[Problem]:
    """The sizes of a real sweep (121 models) and sizes well beyond any L2.

    Args:
        device: where the inputs lie.
        quick: small sizes only.
        noise: `normals` in float64, for the check of the ops that draw.
    """
    found = []
    # streams of the generator, models of the latent side, models of the pixel side
    for streams, wide, models in (
        [(11, 121, 121)] if quick else [(11, 121, 121), (704, 30976, 1936)]
    ):
        found += [
            generator(streams, device, noise),
            latent(wide, device, noise),
            pixel(models, device, {}),
            pixel(models, device, {"likelihood": "bernoulli"}),
        ]
    return found
