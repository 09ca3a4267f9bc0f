"""What every peer is given: models, images, noise; and the default network's problem."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaekit.config import SweepConfig
from vaekit.data import draw
from vaekit.model import StackedVAE
from vaekit.objective import latent_noise
from vaekit.state import State

CPU = torch.device("cpu")
# A peer is made ready once and then trains the problem's block of steps each time it is called,
# returning the loss of every model at the block's last step.
Block = Callable[[], Tensor]


@dataclass(frozen=True)
class Problem:
    """M models of one data stream, and a block of T steps of images and noise to train them on.

    Attributes:
        config: of the models, one for each of its betas.
        steps: T.
        device: where everything lies.
    """

    config: SweepConfig
    steps: int
    device: torch.device = CPU

    @cached_property
    def models(self) -> int:
        """Number of models."""
        return len(self.config.beta)

    @cached_property
    def beta(self) -> Tensor:
        """Beta of each model, [M]."""
        return torch.tensor(self.config.beta, device=self.device)

    @cached_property
    def seeds(self) -> Tensor:
        """Seed of each model, [M]."""
        return torch.zeros(self.models, dtype=torch.int64, device=self.device)

    @cached_property
    def images(self) -> Tensor:
        """Images of every step, shared by the models: [T, 1, B, P]."""
        mu = torch.tensor(self.config.mu[:1], device=self.device)
        return torch.stack(
            [
                draw(self.config, mu, self.seeds[:1], t, batch=self.config.batch)[0]
                for t in range(1, self.steps + 1)
            ]
        )

    @cached_property
    def noise(self) -> Tensor:
        """Noise of every step: [T, M, B, L]."""
        return torch.stack(
            [latent_noise(self.config, self.seeds, self.beta, t) for t in range(1, self.steps + 1)]
        )

    def described(self) -> dict[str, object]:
        """What must be the same of two runs whose times are compared."""
        config = self.config
        return {
            "models": self.models,
            "steps": self.steps,
            "batch": config.batch,
            "hidden": list(config.hidden),
            "pixels": config.pixels,
            "latents": config.latents,
            "likelihood": config.likelihood,
            "precision": config.precision,
        }

    def stack(self) -> StackedVAE:
        """Return the models untrained."""
        return StackedVAE.initial(self.config, self.seeds)

    def state(self) -> State:
        """Return the models before their first step."""
        return State.initial(self.stack(), self.config.learning_rate)


def default_config(models: int, steps: int = 1, **changes: Any) -> SweepConfig:
    """Configure the default network for betas evenly spread from 0.25 to 10 at mu = 0.

    Args:
        models: M.
        steps: of a training.
        changes: to the default configuration.
    """
    betas = tuple(float(beta) for beta in np.linspace(0.25, 10.0, models))
    return SweepConfig(mu=(0.0,), beta=betas, steps=steps, **changes)


def default_problem(models: int, steps: int, device: torch.device = CPU, **changes: Any) -> Problem:
    """Make the problem of a default configuration, with a block of steps; see `default_config`."""
    return Problem(default_config(models, **changes), steps, device)
