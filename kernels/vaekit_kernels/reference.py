"""Every op's definition in plain torch: what the kernels must reproduce, and the laptop's path.

Axes: M models, B samples, P pixels, F factors (tiles), L latents, S data streams. A stream is one
(mu, seed); its images are shared by M / S models, so model m reads stream m // (M / S).

Inputs may be float32, bfloat16, float16 or float64; bfloat16 and float16 are computed in float32.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from .philox import Draw, Stream, normals

Kl = Literal["analytic", "sample"]
Likelihood = Literal["gaussian", "bernoulli"]


def _wide(dtype: torch.dtype) -> torch.dtype:
    """Dtype that a term is computed and returned in: float32, or float64 where that is given."""
    return torch.promote_types(dtype, torch.float32)


def render(intensity: Tensor, *, grid: int, tile: int) -> Tensor:
    """Draw tile images G(s): pixel (r, c) is the intensity of tile (r // tile, c // tile).

    Args:
        intensity: [..., F] with F = grid * grid, row by row.
        grid: tiles along a side.
        tile: pixels along a tile's side.

    Returns:
        [..., P] with P = (grid * tile)**2, row by row.
    """
    lead = intensity.shape[:-1]
    tiles = intensity.reshape(*lead, grid, 1, grid, 1)
    return tiles.expand(*lead, grid, tile, grid, tile).reshape(*lead, (grid * tile) ** 2)


def sigmoid_grid(
    mu: Tensor,
    seeds: Tensor,
    ids: Tensor,
    step: int | Tensor,
    *,
    batch: int,
    grid: int = 3,
    tile: int = 7,
    noise_variance: float = 0.25,
    linear: bool = False,
    truth_stream: int = Stream.IMAGE_TRUTH,
    noise_stream: int = Stream.IMAGE_NOISE,
) -> tuple[Tensor, Tensor]:
    """Draw noisy tile images from their counters: x = G(sigmoid(z)) + sqrt(noise_variance) e.

    z ~ N(mu, I) and e ~ N(0, I); the linear grid has the identity in place of the sigmoid.

    Args:
        mu: [S] mean of the truths before the sigmoid.
        seeds: [S] int64 keys of the noise.
        ids: [S] int64 in [0, 2**32), the counter's id field.
        step: training step, in [0, 2**32): one for all or an int64 tensor [S].
        batch: images a stream, B.
        grid, tile: geometry, see `render`.
        noise_variance: of each pixel, independent, not clipped.
        linear: identity in place of the sigmoid.
        truth_stream, noise_stream: the counter's stream field of z and of e.

    Returns:
        images [S, B, P] and truths z [S, B, F], float32.
    """
    z = mu.to(torch.float32)[:, None, None] + normals(
        seeds, ids, step, truth_stream, batch, grid * grid
    )
    images = render(z if linear else torch.sigmoid(z), grid=grid, tile=tile)
    noise = normals(seeds, ids, step, noise_stream, batch, images.shape[-1])
    # Into the noise's memory: `images` shares that of z where a tile is one pixel, and is one value
    # expanded where the grid is one tile.
    return torch.add(images, noise, alpha=math.sqrt(noise_variance), out=noise), z


def reparameterise(
    mean: Tensor, logvar: Tensor, noise: Tensor | Draw, *, kl: Kl = "analytic"
) -> tuple[Tensor, Tensor]:
    """Draw latents z = mean + exp(logvar / 2) noise and charge each sample its KL to N(0, I).

    analytic: KL = 1/2 sum_l (mean^2 + exp(logvar) - 1 - logvar)
    sample:   KL = log q(z|x) - log p(z) = 1/2 sum_l (z^2 - noise^2 - logvar) at the one z drawn

    Args:
        mean, logvar: [M, B, L].
        noise: [M, B, L], or the labels to draw it from.
        kl: which of the two.

    Returns:
        z [M, B, L] in the dtype of mean, and the KL in nats [M, B], float32 or wider.

    Source: Kingma and Welling 2014, arXiv:1312.6114, equations 4 and 10 (appendix B).
    """
    if isinstance(noise, Draw):
        noise = noise.normals(*mean.shape[1:])
    dtype, wide = mean.dtype, _wide(mean.dtype)
    mean, logvar, noise = mean.to(wide), logvar.to(wide), noise.to(wide)
    z = mean + torch.exp(0.5 * logvar) * noise
    if kl == "analytic":
        terms = mean.square() + torch.expm1(logvar) - logvar
    else:
        terms = z.square() - noise.square() - logvar
    return z.to(dtype), 0.5 * terms.sum(-1)


def pixel_nll(
    output: Tensor,
    image: Tensor,
    *,
    likelihood: Likelihood = "gaussian",
    decoder_variance: float = 0.25,
    linear: bool = False,
) -> Tensor:
    """Charge each sample its negative log likelihood -log p(x|z), summed over pixels, constants in.

    gaussian:  sum_p (x - y)^2 / (2 v) + P/2 ln(2 pi v), y = sigmoid(a) (or a, when linear)
    bernoulli: sum_p softplus(a) - a x

    Args:
        output: [M, B, P], the decoder's last layer a, before any sigmoid.
        image: [S, B, P] with M a multiple of S.
        likelihood: which of the two; Bernoulli has the sigmoid in its definition.
        decoder_variance: v, of the Gaussian.
        linear: the Gaussian's mean is a itself.

    Returns:
        [M, B] in nats, float32 or wider.
    """
    models, batch, pixels = output.shape
    streams = image.shape[0]
    wide = _wide(output.dtype)
    a = output.to(wide).view(streams, models // streams, batch, pixels)
    x = image.to(wide)[:, None]
    if likelihood == "gaussian":
        y = a if linear else torch.sigmoid(a)
        nll = (x - y).square().sum(-1) / (2.0 * decoder_variance)
        nll = nll + 0.5 * pixels * math.log(2.0 * math.pi * decoder_variance)
    else:
        # -ln sigmoid(-a) is softplus without overflow at either end, of slope 1/2 at 0, where that
        # of max(a, 0) + ln(1 + exp(-|a|)), the same value, would be 1.
        nll = (-torch.nn.functional.logsigmoid(-a) - a * x).sum(-1)
    return nll.reshape(models, batch)
