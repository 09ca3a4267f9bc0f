"""The loss by hand, and noise that belongs to one model and one step alone."""

from __future__ import annotations

import pytest
import torch

from vaekit.config import SweepConfig
from vaekit.objective import latent_noise, loss


def config() -> SweepConfig:
    return SweepConfig(mu=(0.0,), beta=(1.0,), steps=1, batch=64, latents=4)


def test_the_loss_is_a_sum_over_models_of_means_over_samples() -> None:
    nll, kl = torch.tensor([[1.0, 3.0], [10.0, 20.0]]), torch.tensor([[2.0, 4.0], [1.0, 5.0]])
    found = loss(nll, kl, torch.tensor([0.5, 2.0]))
    assert found.item() == pytest.approx((2 + 0.5 * 3) + (15 + 2 * 3))


def test_no_two_models_share_their_noise() -> None:
    """Other seed, other beta, other step, training or measuring: other noise, and uncorrelated."""
    seeds, beta = torch.tensor([0, 0, 1]), torch.tensor([1.0, 2.0, 1.0])
    draws = [
        latent_noise(config(), seeds, beta, 1),
        latent_noise(config(), seeds, beta, 2),
        latent_noise(config(), seeds, beta, 1, evaluate=True),
    ]
    rows = torch.cat(draws).flatten(1)
    correlation = torch.corrcoef(rows) - torch.eye(9)
    # Of 256 numbers: five standard errors.
    assert correlation.abs().max() < 5 / 16
    assert torch.equal(latent_noise(config(), seeds[1:], beta[1:], 1), draws[0][1:])
