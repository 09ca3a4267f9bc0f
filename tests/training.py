"""A short training of stacked beta-VAEs through the ops, on either backend."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

import vaekit_kernels as ops
from vaekit_kernels import Draw, float_ids


def mlp(x: Tensor, weights: list[Tensor]) -> Tensor:
    """Stacked layers [M, in, out] without biases, ReLU between them."""
    for index, weight in enumerate(weights):
        x = x @ weight if index == len(weights) - 1 else torch.relu(x @ weight)
    return x


def train(
    backend: ops.Backend,
    *,
    device: str,
    steps: int,
    models: int,
    batch: int,
    grid: int,
    tile: int,
    hidden: tuple[int, ...],
) -> list[float]:
    """Losses of every step: images, noise and both sides of the ELBO come from the ops.

    Args:
        backend: of every op.
        device: where.
        steps: number of Adam steps.
        models: betas, all on one stream of images.
        batch, grid, tile: of the images.
        hidden: widths of the encoder; the decoder mirrors them.
    """
    pixels, latents = (grid * tile) ** 2, grid**2
    mu = torch.tensor([0.5], device=device)
    seeds = torch.tensor([3], device=device)
    beta = torch.linspace(0.5, 4.0, models, device=device)
    draw = seeds.repeat(models), float_ids(beta)
    generator = torch.Generator().manual_seed(0)

    def layers(*widths: int) -> list[Tensor]:
        return [
            (torch.randn(models, i, o, generator=generator) / math.sqrt(i))
            .to(device)
            .requires_grad_()
            for i, o in itertools.pairwise(widths)
        ]

    encoder = layers(pixels, *hidden, 2 * latents)
    decoder = layers(latents, *reversed(hidden), pixels)
    adam = torch.optim.Adam([*encoder, *decoder], lr=1e-3)
    losses = []
    for step in range(1, steps + 1):
        images, _ = ops.sigmoid_grid(
            mu, seeds, float_ids(mu), step, batch=batch, grid=grid, tile=tile, backend=backend
        )
        mean, logvar = mlp(images, encoder).chunk(2, dim=-1)
        z, kl = ops.reparameterise(
            mean.contiguous(), logvar.contiguous(), Draw(*draw, step), backend=backend
        )
        nll = ops.pixel_nll(mlp(z, decoder), images, backend=backend)
        loss = (nll + beta[:, None] * kl).mean(1).sum()
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    return losses
