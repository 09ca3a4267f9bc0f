"""Training of one stack: the only loop.

A stack holds the K betas of each of S data streams, M = S K models, model m = s K + k. Images are
drawn once a stream and shared by its betas.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vaekit.block import BLOCK_STEPS, Labels, make_block
from vaekit.config import SweepConfig
from vaekit.engine import make_step
from vaekit.machine import synchronize, total_memory
from vaekit.model import Architecture, StackedVAE
from vaekit.products import fast_products
from vaekit.progress import Progress
from vaekit.state import initial_state

# On a CPU a stack of about this many models keeps its state in cache and is quickest per model.
CPU_STACK = 11
MEMORY_SHARE = 0.5


@dataclass(frozen=True)
class Stack:
    """The models trained in one pass: every beta of `beta` on every stream (mu, seed)."""

    mu: tuple[float, ...]
    seeds: tuple[int, ...]
    beta: tuple[float, ...]

    @property
    def models(self) -> int:
        """Number of models, S K."""
        return len(self.mu) * len(self.beta)

    def labels(self, device: torch.device) -> Labels:
        """Put what tells the models apart onto a device."""
        stream_seeds = torch.tensor(self.seeds, dtype=torch.int64, device=device)
        beta = torch.tensor(self.beta * len(self.mu), dtype=torch.float32, device=device)
        return Labels(
            mu=torch.tensor(self.mu, dtype=torch.float32, device=device),
            stream_seeds=stream_seeds,
            seeds=stream_seeds.repeat_interleave(len(self.beta)),
            beta=beta,
        )


@dataclass(frozen=True)
class Curves:
    """Means over each window of steps, per model: nll, kl and loss [M, C] in nats."""

    nll: Tensor
    kl: Tensor
    loss: Tensor


def model_bytes(config: SweepConfig) -> int:
    """Bytes that one model trains in: parameters, gradient, two moments, activations, noise."""
    architecture = Architecture.of(config)
    activations = 2 * sum(size for _, size in architecture.sizes) + 2 * config.pixels
    noise = BLOCK_STEPS * (config.pixels + config.latents)
    return 4 * (4 * architecture.parameters + config.batch * (activations + noise))


def stack_size(config: SweepConfig, device: torch.device) -> int:
    """Choose how many models train in one pass.

    `config.stack` if given, else what is quickest: about `CPU_STACK` models on a CPU, all of them
    on CUDA; and in either case no more than half of the device's memory holds. It rests on the
    total memory, not on what is free, so the same machine always makes the same stacks.
    """
    models = len(config.mu) * len(config.beta) * config.seeds
    wanted = config.stack or (models if device.type == "cuda" else CPU_STACK)
    fits = int(total_memory(device) * MEMORY_SHARE) // model_bytes(config)
    return max(1, min(wanted, fits, models))


def plan(config: SweepConfig, size: int) -> list[Stack]:
    """Split a sweep into stacks of at most `size` models, whole streams together where they fit."""
    streams = [(mu, seed) for mu in config.mu for seed in config.seed_values]
    chunk = max(1, size // len(config.beta))
    width = min(size, len(config.beta))
    return [
        Stack(
            mu=tuple(mu for mu, _ in streams[first : first + chunk]),
            seeds=tuple(seed for _, seed in streams[first : first + chunk]),
            beta=config.beta[start : start + width],
        )
        for first in range(0, len(streams), chunk)
        for start in range(0, len(config.beta), width)
    ]


def curve_steps(config: SweepConfig) -> list[int]:
    """Last step of each window of the training curves: evenly spread, up to the last step."""
    points = min(config.curve_points, config.steps)
    return [config.steps * (index + 1) // points for index in range(points)]


def train(
    config: SweepConfig, stack: Stack, device: torch.device, progress: Progress
) -> tuple[StackedVAE, Curves]:
    """Train every model of a stack from its initial weights.

    Args:
        config: steps, batch, objective and optimiser.
        stack: the models.
        device: where.
        progress: is told of every block of steps, in model-steps.

    Returns:
        The trained stack and its curves.
    """
    labels = stack.labels(device)
    step = make_step(config, initial_state(config, labels.seeds), streams=len(stack.mu))
    block = make_block(config, labels, step)
    ends = set(curve_steps(config))
    window = torch.zeros(3, stack.models, device=device)
    points: list[Tensor] = []
    start = 0
    with torch.no_grad(), fast_products(device):
        for first in range(1, config.steps + 1, BLOCK_STEPS):
            steps = range(first, min(first + BLOCK_STEPS, config.steps + 1))
            for t, terms in zip(steps, block(steps), strict=True):
                window += terms
                if t in ends:
                    points.append(window / (t - start))
                    window = torch.zeros_like(window)
                    start = t
                    # Progress is what the device has done, not what it has been asked for.
                    synchronize(device)
            progress.advance(len(steps) * stack.models)
    curves = torch.stack(points, dim=-1).cpu()
    return step.save().vae, Curves(nll=curves[0], kl=curves[1], loss=curves[2])
