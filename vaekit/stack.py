"""Which models train in one pass: a stack, how large it may be, and how a sweep is cut into them.

A stack holds the K betas of each of S data streams, M = S K models, model m = s K + k.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from vaekit.block import BLOCK_STEPS, Labels
from vaekit.config import ConfigError, SweepConfig
from vaekit.engine import CPU_STACK
from vaekit.machine import free_memory
from vaekit.model import Architecture

MEMORY_SHARE = 0.5
# A block's images and noise, and what they are drawn from while that lasts. Up to 2.4 were seen.
DRAWN_COPIES = 3


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

    def cells(self) -> list[tuple[float, int, float]]:
        """Name every model by its mu, seed and beta, in order."""
        return [
            (mu, seed, beta)
            for mu, seed in zip(self.mu, self.seeds, strict=True)
            for beta in self.beta
        ]

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


def model_bytes(config: SweepConfig) -> int:
    """Bytes that one model trains in: parameters, gradient, two moments, activations, noise."""
    architecture = Architecture.of(config)
    activations = 2 * sum(size for _, size in architecture.sizes) + 2 * config.pixels
    noise = DRAWN_COPIES * BLOCK_STEPS * config.latents
    return 4 * (4 * architecture.parameters + config.batch * (activations + noise))


def stream_bytes(config: SweepConfig) -> int:
    """Bytes of a block's images of one stream, which its betas have together."""
    return 4 * DRAWN_COPIES * BLOCK_STEPS * config.batch * config.pixels


def training_bytes(config: SweepConfig, stack: Stack) -> int:
    """Bytes that a stack trains in."""
    return stack.models * model_bytes(config) + len(stack.mu) * stream_bytes(config)


def checkpoint_bytes(config: SweepConfig) -> int:
    """Bytes of a checkpoint of one model, parameters and both moments, which is made in memory."""
    return 3 * 4 * Architecture.of(config).parameters


def stack_size(config: SweepConfig, device: torch.device) -> int:
    """Choose how many models train in one pass.

    `config.stack` if given, else what is quickest: about `CPU_STACK` models on a CPU, all of them
    on CUDA; and in either case no more than `MEMORY_SHARE` of the memory that is free holds.

    Raises:
        ConfigError: not even one model fits.
    """
    models = len(config.mu) * len(config.beta) * config.seeds
    wanted = config.stack or (models if device.type == "cuda" else CPU_STACK)
    free, each, images = free_memory(device), model_bytes(config), stream_bytes(config)
    if device.type == "cpu":
        each += checkpoint_bytes(config)
    if each + images > free:
        raise ConfigError(
            "hidden",
            config.hidden,
            f"what fits: a model of this configuration trains in {each + images:,} bytes, and "
            f"{free:,} are free on {device}",
        )
    share, betas = int(free * MEMORY_SHARE), len(config.beta)
    # As `plan` has them: whole streams, or some betas of one.
    streams = share // (betas * each + images)
    fit = streams * betas if streams else (share - images) // each
    return max(1, min(wanted, fit, models))


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


def split(stack: Stack) -> tuple[Stack, Stack]:
    """Halve a stack, between streams where there are several; the order of its models stays."""
    if len(stack.mu) > 1:
        middle = len(stack.mu) // 2
        return (
            replace(stack, mu=stack.mu[:middle], seeds=stack.seeds[:middle]),
            replace(stack, mu=stack.mu[middle:], seeds=stack.seeds[middle:]),
        )
    middle = len(stack.beta) // 2
    return replace(stack, beta=stack.beta[:middle]), replace(stack, beta=stack.beta[middle:])
