"""The experiment's images: truths, training draws, evaluation draws, and the whole test grid."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from vaekit.config import SweepConfig
from vaekit_kernels import Stream, float_ids, render, sigmoid_grid

Purpose = Literal["train", "evaluate"]
_STREAMS = {
    "train": (Stream.IMAGE_TRUTH, Stream.IMAGE_NOISE),
    "evaluate": (Stream.EVALUATION_TRUTH, Stream.EVALUATION_NOISE),
}


def draw(
    config: SweepConfig,
    mu: Tensor,
    seeds: Tensor,
    step: int | Tensor,
    *,
    batch: int,
    purpose: Purpose = "train",
) -> tuple[Tensor, Tensor]:
    """Draw noisy images of S data streams at one step.

    A stream is one (mu, seed): its noise is keyed by the seed and by mu's value, never by its place
    in the sweep. Evaluation draws come from counters that training never touches.

    Args:
        config: geometry, generator and noise variance.
        mu: [S] means of the truths before the sigmoid.
        seeds: [S] int64.
        step: one for all streams, or an int64 tensor [S].
        batch: images a stream, B.
        purpose: which of the two disjoint families of draws.

    Returns:
        images [S, B, P] and truths z [S, B, F], float32.
    """
    truth_stream, noise_stream = _STREAMS[purpose]
    return sigmoid_grid(
        mu,
        seeds,
        float_ids(mu),
        step,
        batch=batch,
        grid=config.grid,
        tile=config.tile,
        noise_variance=config.noise_variance,
        linear=config.generator == "linear",
        truth_stream=truth_stream,
        noise_stream=noise_stream,
    )


def intensity(config: SweepConfig, z: Tensor) -> Tensor:
    """Tile intensities of truths z: sigmoid(z), or z itself on the linear grid."""
    return z if config.generator == "linear" else torch.sigmoid(z)


def grid_truth(config: SweepConfig) -> Tensor:
    """Enumerate every combination of the test levels: intensities [T, F], last factor fastest."""
    levels = torch.tensor(config.test_levels, dtype=torch.float32)
    return torch.cartesian_prod(*[levels] * config.factors).reshape(-1, config.factors)


def render_truth(config: SweepConfig, truth: Tensor) -> Tensor:
    """Draw the clean images G of intensities [..., F]: [..., P]."""
    return render(truth, grid=config.grid, tile=config.tile)
