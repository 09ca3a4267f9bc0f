"""Linear beta-VAEs trained by the stack on data of any covariance, and their exact objective.

The trainer's own images come from the grid, so these are given to its engine by hand. A batch and
its noise are whitened together: their joint sample covariance is the population's to rounding, so
the part of the gradient that a finite batch would blur is exact, and Adam settles on the optimum
instead of hovering around it.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from vaekit.config import SweepConfig
from vaekit.model import StackedVAE
from vaekit.state import State
from vaekit.step import TorchStep


def linear_config(**changes: object) -> SweepConfig:
    """A stack of linear VAEs on 16 pixels."""
    fields = {
        "mu": (0.0,),
        "beta": (1.0,),
        "steps": 16_000,
        "batch": 64,
        "learning_rate": 3e-2,
        "hidden": (),
        "grid": 1,
        "tile": 4,
        "latents": 5,
        "decoder_output": "linear",
    }
    return SweepConfig(**{**fields, **changes})


def whitened(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """Draw [rows, columns] with mean 0 and covariance I, both exactly."""
    draw = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    draw -= draw.mean(dim=0)
    return torch.linalg.qr(draw)[0] * math.sqrt(rows)


def train_linear(
    config: SweepConfig, covariances: Tensor, betas: Tensor, means: Tensor | None = None
) -> StackedVAE:
    """Train model m on data of covariance m with beta m, all in one stack.

    Args:
        config: geometry, decoder variance and optimiser; its mu and betas play no part.
        covariances: [M, P, P] float64.
        betas: [M].
        means: [M] of every pixel, 0 unless given.

    Returns:
        The trained stack.
    """
    models = len(betas)
    vae = StackedVAE.initial(config, torch.arange(models))
    state = State.initial(vae, config.learning_rate)
    step = TorchStep(config, state, streams=models)
    roots = torch.linalg.cholesky(covariances).transpose(1, 2)
    level = torch.zeros(models) if means is None else means
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for t in range(config.steps):
            # Down to a thousandth over the second half: the last steps are smaller than any bound.
            late = max(0.0, 2.0 * t / config.steps - 1.0)
            state.learning_rate.fill_(config.learning_rate * 1e-3**late)
            joint = whitened(config.batch, config.pixels + config.latents, generator)
            images = joint[:, : config.pixels] @ roots + level[:, None, None]
            noise = joint[:, config.pixels :].expand(models, -1, -1)
            step(images.float(), noise.float().contiguous(), betas.float())
    return vae


def population(
    vae: StackedVAE, config: SweepConfig, covariance: Tensor, model: int, beta: float
) -> tuple[float, np.ndarray, np.ndarray]:
    """Objective, KL and code variance of each latent of a linear model, in expectation over data.

    With x ~ N(0, S), a mean V x + b and a log-variance a x + c, E exp(a x + c) is
    exp(c + a S a^T / 2): nothing is sampled.
    """
    (encoder, encoder_bias), (decoder, decoder_bias) = (
        (weight[model].double(), bias[model].double()) for weight, bias in vae.layers
    )
    latents = config.latents
    mean_map, logvar_map = encoder[:, :latents].T, encoder[:, latents:].T
    shift, log_level = encoder_bias[:latents], encoder_bias[latents:]
    code_variance = (mean_map @ covariance * mean_map).sum(-1)
    variance = torch.exp(log_level + 0.5 * (logvar_map @ covariance * logvar_map).sum(-1))
    kl = 0.5 * (code_variance + shift.square() + variance - 1.0 - log_level)
    residual = torch.eye(config.pixels, dtype=torch.float64) - decoder.T @ mean_map
    error = (residual @ covariance * residual).sum()
    error += (shift @ decoder + decoder_bias).square().sum()
    error += (decoder.square().sum(-1) * variance).sum()
    noise = config.decoder_variance
    distortion = 0.5 * config.pixels * math.log(2.0 * math.pi * noise) + error / (2.0 * noise)
    objective = distortion + beta * kl.sum()
    return float(objective), kl.numpy(), code_variance.numpy()
