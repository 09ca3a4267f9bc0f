"""The training objective: per model and sample -log p(x|z) + beta KL, in nats.

The loss that is differentiated is the sum over models of the mean over samples. A mean over models
would divide every gradient by M and tie each model to its neighbours.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vaekit.config import SweepConfig
from vaekit.model import Layer, mlp
from vaekit_kernels import Draw, Stream, float_ids, pixel_nll, reparameterise
from vaekit_kernels.philox import normals


def beta_at(beta: Tensor, steps: Tensor, warmup: int) -> Tensor:
    """Betas in force at some steps: linear from 0 over the first `warmup` steps, then constant.

    Args:
        beta: [M].
        steps: [T], 1 is the first.
        warmup: number of steps; 0 for constant from the first.

    Returns:
        [T, M], in the dtype of beta.
    """
    share = (steps.double() / max(warmup, 1)).clamp(max=1.0)
    return (share[:, None] * beta.double()).to(beta.dtype)


def latent_noise(
    config: SweepConfig, seeds: Tensor, beta: Tensor, step: int | Tensor, *, evaluate: bool = False
) -> Tensor:
    """Noise of the reparameterisation, keyed by seed and beta: [M, B, L].

    Args:
        config: batch and latents.
        seeds, beta: [M].
        step: one for all models, or an int64 tensor [M].
        evaluate: draw from the counters that training never touches.
    """
    stream = Stream.EVALUATION_LATENT if evaluate else Stream.LATENT
    return normals(seeds, float_ids(beta), step, stream, config.batch, config.latents)


def terms(
    config: SweepConfig,
    layers: list[Layer],
    images: Tensor,
    noise: Tensor | Draw,
) -> tuple[Tensor, Tensor]:
    """Compute the two terms of the objective for every model and sample, by the ops' definitions.

    Args:
        config: likelihood, decoder variance and KL.
        layers: the stack's layers, encoder first.
        images: [S, B, P], stream s shared by models s K .. s K + K - 1.
        noise: [M, B, L], or the labels to draw it from.

    Returns:
        nll [M, B] and kl [M, B].
    """
    half = len(layers) // 2
    models, streams = len(layers[0][0]), len(images)
    x = images[:, None].expand(streams, models // streams, *images.shape[1:])
    mean, logvar = mlp(layers[:half], x.reshape(models, *images.shape[1:])).chunk(2, dim=-1)
    z, kl = reparameterise(
        mean.contiguous(), logvar.contiguous(), noise, kl=config.kl, backend="torch"
    )
    nll = pixel_nll(
        mlp(layers[half:], z),
        images,
        likelihood=config.likelihood,
        decoder_variance=config.decoder_variance,
        linear=config.decoder_output == "linear",
        backend="torch",
    )
    return nll, kl


def loss(nll: Tensor, kl: Tensor, beta: Tensor) -> Tensor:
    """Scalar to differentiate: sum over models of the mean over samples of nll + beta kl."""
    return torch.sum((nll + beta[:, None] * kl).mean(dim=1))
