"""What a model kept, on codes whose content is known."""

from __future__ import annotations

import math

import pytest
import torch

from vaekit import metrics
from vaekit.probe import moments_of

KEEP = torch.ones(1, 3, dtype=torch.bool)


def normals(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def correlations(z: torch.Tensor, code: torch.Tensor, kept: torch.Tensor = KEEP) -> torch.Tensor:
    return metrics.canonical_correlations(moments_of(z[None], code[None]).covariance, 3, kept)[0]


def test_a_gaussian_channel_has_its_known_information() -> None:
    z = normals(200_000, 3)
    rho = torch.tensor([0.9, 0.5, 0.1])
    code = rho * z + (1 - rho**2).sqrt() * normals(200_000, 3, seed=1)
    found = correlations(z, code)
    assert found.tolist() == pytest.approx(rho.tolist(), abs=0.01)
    exact = -0.5 * math.log(0.19 * 0.75 * 0.99)
    assert metrics.gaussian_information(found[None]).item() == pytest.approx(exact, abs=0.01)


def test_correlations_do_not_see_rotation_scale_or_shift() -> None:
    z = normals(5000, 3)
    code = z + normals(5000, 3, seed=1)
    mixed = code @ normals(3, 3, seed=2) * 1e-3 + 100.0
    torch.testing.assert_close(correlations(z, code), correlations(z, mixed), rtol=1e-6, atol=1e-9)


def test_identity_zeros_and_noise() -> None:
    z = normals(20_000, 3)
    assert correlations(z, z).tolist() == pytest.approx([1.0] * 3)
    assert correlations(z, torch.zeros_like(z)).tolist() == [0.0] * 3
    assert correlations(z, normals(20_000, 3, seed=1)).max() < 0.03


def test_inactive_latents_do_not_count() -> None:
    """A latent that shrinks the truth to a whisper is inactive, and adds nothing."""
    z = normals(5000, 3)
    code = z * torch.tensor([1.0, 1e-3, 1e-3])
    kept = metrics.active(code.var(dim=0))[None]
    assert kept.tolist() == [[True, False, False]]
    assert correlations(z, code, kept).tolist() == pytest.approx([1.0, 0.0, 0.0], abs=1e-6)
    none = torch.zeros(1, 3, dtype=torch.bool)
    collapsed = correlations(z, code, none)
    assert metrics.gaussian_information(collapsed[None]).item() == 0.0


def test_kl_has_its_closed_form() -> None:
    zero, one = torch.zeros(1), torch.ones(1)
    assert metrics.kl_per_latent(zero, zero).item() == 0.0
    assert metrics.kl_per_latent(one, zero).item() == 0.5
    assert metrics.kl_per_latent(zero, one).item() == pytest.approx((math.e - 2) / 2)
    assert metrics.kl_per_latent(zero, -one).item() == pytest.approx(1 / (2 * math.e))


def test_the_aggregates_kl_is_that_of_a_gaussian() -> None:
    """Against torch's own divergence of the two distributions."""
    root = normals(4, 4, seed=3)
    mean, covariance = normals(4, seed=4), root @ root.T + torch.eye(4)
    exact = torch.distributions.kl_divergence(
        torch.distributions.MultivariateNormal(mean, covariance),
        torch.distributions.MultivariateNormal(torch.zeros_like(mean), torch.eye(4).double()),
    )
    found = metrics.aggregate_kl(mean[None], covariance[None])
    torch.testing.assert_close(found[0], exact)
    prior = metrics.aggregate_kl(torch.zeros(1, 4).double(), torch.eye(4).double()[None])
    assert prior.tolist() == [0.0]


def test_the_threshold_of_activity() -> None:
    variances = torch.tensor([0.0, 0.0099, 0.0101, 1.0])
    assert metrics.active(variances).tolist() == [False, False, True, True]


def test_status() -> None:
    finite = torch.tensor([True, True, False])
    assert metrics.status(torch.tensor([3, 0, 3]), finite) == ["ok", "collapsed", "diverged"]
