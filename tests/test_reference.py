"""The definitions against closed forms: nothing else would notice if they were wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from vaekit_kernels import Draw, Stream, float_ids
from vaekit_kernels.philox import normals
from vaekit_kernels.reference import Kl, pixel_nll, render, reparameterise, sigmoid_grid

GENERATOR = torch.Generator().manual_seed(0)


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=GENERATOR)


def analytic(mean: float, logvar: float, latents: int = 9) -> float:
    full = torch.full((1, 1, latents), 1.0, dtype=torch.float64)
    _, kl = reparameterise(mean * full, logvar * full, 0 * full)
    return kl.item()


def test_analytic_kl_is_its_closed_form() -> None:
    assert analytic(0, 0) == 0
    assert analytic(1, 0) == pytest.approx(9 / 2)
    assert analytic(0, 1) == pytest.approx(9 * (math.e - 2) / 2)
    assert analytic(2, -3) == pytest.approx(9 * (4 + math.exp(-3) - 1 + 3) / 2)


def test_sampled_kl_is_the_ratio_of_the_two_densities() -> None:
    mean, logvar, noise = randn(2, 3, 4), randn(2, 3, 4), randn(2, 3, 4)
    z, kl = reparameterise(mean, logvar, noise, kl="sample")
    posterior = torch.distributions.Normal(mean, torch.exp(0.5 * logvar))
    prior = torch.distributions.Normal(torch.zeros_like(mean), 1.0)
    expected = (posterior.log_prob(z) - prior.log_prob(z)).sum(-1)
    torch.testing.assert_close(kl, expected)


def test_sampled_kl_and_its_gradient_average_to_the_analytic_one() -> None:
    count = 100_000
    start = torch.tensor([[0.7, -1.2]], dtype=torch.float64)
    found = {}
    for kl in ("analytic", "sample"):
        mean = start[:, :1].requires_grad_()
        logvar = start[:, 1:].requires_grad_()
        noise = normals(torch.tensor([1]), torch.tensor([0]), 0, 0, count, 1).double()
        _, terms = reparameterise(
            mean[None].expand(1, count, 1), logvar[None].expand(1, count, 1), noise, kl=kl
        )
        grads = torch.autograd.grad(terms.mean(), (mean, logvar))
        found[kl] = torch.stack((terms.mean().detach(), *(g.squeeze() for g in grads)))
        if kl == "sample":
            spread = terms.std().item()
    # The gradients' integrands spread no more than 4 times the value's here.
    limits = torch.tensor([4.0, 16.0, 16.0]) * spread / math.sqrt(count)
    assert ((found["sample"] - found["analytic"]).abs() <= limits).all()


def test_gaussian_nll_is_the_density() -> None:
    output, image = randn(6, 2, 5), randn(3, 2, 5)
    shared = image.repeat_interleave(2, dim=0)
    for linear in (False, True):
        y = output if linear else torch.sigmoid(output)
        density = torch.distributions.Normal(y, math.sqrt(0.3)).log_prob(shared).sum(-1)
        nll = pixel_nll(output, image, decoder_variance=0.3, linear=linear)
        torch.testing.assert_close(nll, -density)


def test_bernoulli_nll_is_the_density_and_stays_finite() -> None:
    output, image = randn(6, 2, 5), (randn(3, 2, 5) > 0).double()
    shared = image.repeat_interleave(2, dim=0)
    density = torch.distributions.Bernoulli(logits=output).log_prob(shared).sum(-1)
    torch.testing.assert_close(pixel_nll(output, image, likelihood="bernoulli"), -density)
    zero = torch.zeros(1, 1, 441)
    nll = pixel_nll(zero, zero + 0.3, likelihood="bernoulli")
    assert nll.item() == pytest.approx(441 * math.log(2))
    extreme = torch.tensor([[[1000.0, -1000.0]]])
    assert pixel_nll(extreme, extreme * 0, likelihood="bernoulli").item() == 1000


def test_the_slope_of_the_bernoulli_nll_has_no_kink_at_zero() -> None:
    """Of millions of normals one is 0, where max(a, 0) and |a| have no slope of their own."""
    output = torch.tensor([[[0.0, -0.0, 1e-30, -1e-30]]], requires_grad=True)
    nll = pixel_nll(output, torch.full((1, 1, 4), 0.25), likelihood="bernoulli")
    (slope,) = torch.autograd.grad(nll.sum(), output)
    torch.testing.assert_close(slope, torch.full_like(slope, 0.5 - 0.25))


def test_the_least_bernoulli_nll_is_the_entropy_of_the_image() -> None:
    image = torch.rand(1, 1, 50, dtype=torch.float64, generator=GENERATOR)
    entropy = -(image * image.log() + (1 - image) * (1 - image).log()).sum()
    best = pixel_nll(torch.logit(image), image, likelihood="bernoulli")
    assert best.item() == pytest.approx(entropy.item())
    worse = pixel_nll(torch.logit(image) + 0.1, image, likelihood="bernoulli")
    assert worse > best


@pytest.mark.parametrize("kl", ["analytic", "sample"])
def test_gradients_of_the_latent_side(kl: Kl) -> None:
    mean, logvar, noise = (randn(2, 3, 4).requires_grad_() for _ in range(3))
    assert torch.autograd.gradcheck(
        lambda *args: reparameterise(*args, kl=kl), (mean, logvar, noise)
    )


@pytest.mark.parametrize("options", [{}, {"linear": True}, {"likelihood": "bernoulli"}], ids=str)
def test_gradients_of_the_pixel_side(options: dict) -> None:
    output, image = randn(4, 2, 3).requires_grad_(), randn(2, 2, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda *args: pixel_nll(*args, **options), (output, image))


def test_narrow_inputs_are_computed_in_float32() -> None:
    for dtype in (torch.bfloat16, torch.float16):
        mean, logvar, noise = (randn(2, 3, 4).to(dtype) for _ in range(3))
        z, kl = reparameterise(mean, logvar, noise)
        wide_z, wide_kl = reparameterise(mean.float(), logvar.float(), noise.float())
        assert (z.dtype, kl.dtype) == (dtype, torch.float32)
        assert torch.equal(z, wide_z.to(dtype))
        assert torch.equal(kl, wide_kl)
        output, image = randn(4, 2, 441).to(dtype), randn(2, 2, 441).to(dtype)
        nll = pixel_nll(output, image)
        assert torch.equal(nll, pixel_nll(output.float(), image.float()))


def test_noise_may_be_given_as_its_labels() -> None:
    mean, logvar = randn(2, 3, 5).float(), randn(2, 3, 5).float()
    seeds, ids = torch.tensor([4, -4]), float_ids(torch.tensor([0.5, 2.0]))
    drawn = normals(seeds, ids, 6, Stream.LATENT, 3, 5)
    for a, b in zip(
        reparameterise(mean, logvar, Draw(seeds, ids, 6)),
        reparameterise(mean, logvar, drawn),
        strict=True,
    ):
        assert torch.equal(a, b)


def test_a_rendered_image_is_its_tiles() -> None:
    tiles = torch.arange(4.0)
    image = render(tiles, grid=2, tile=2).view(4, 4)
    assert image.tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]


def expected_intensity(mu: float) -> float:
    """E[sigmoid(N(mu, 1))] by Gauss-Hermite quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    return float(weights @ (1 / (1 + np.exp(-(nodes + mu)))) / math.sqrt(2 * math.pi))


def test_images_have_the_mean_and_the_noise_that_the_model_says() -> None:
    mu = torch.tensor([0.0, 3.0, -2.0])
    batch = 20_000
    images, z = sigmoid_grid(
        mu, torch.tensor([1, 2, 3]), float_ids(mu), 0, batch=batch, grid=2, tile=2
    )
    s = torch.sigmoid(z)
    for stream, value in enumerate(mu.tolist()):
        error = s[stream].std() / math.sqrt(4 * batch)
        assert abs(s[stream].mean() - expected_intensity(value)) <= 4 * error
    residual = images - render(s, grid=2, tile=2)
    count = residual.numel()
    assert abs(residual.mean()) <= 4 * 0.5 / math.sqrt(count)
    assert abs(residual.var() - 0.25) <= 4 * 0.25 * math.sqrt(2 / count)
    flat = residual.flatten(0, 1).double()
    correlation = torch.corrcoef(flat.T) - torch.eye(16)
    assert correlation.abs().max() <= 6 / math.sqrt(len(flat))


@pytest.mark.parametrize("geometry", [{"grid": 1, "tile": 5}, {"grid": 5, "tile": 1}], ids=str)
def test_images_share_no_memory_with_their_truths(geometry: dict) -> None:
    """A tile of one pixel, or a grid of one tile, is where rendering is a view and not a copy."""
    mu = torch.tensor([0.5])
    options = {"batch": 4, "linear": True, **geometry}
    images, z = sigmoid_grid(mu, mu.long(), float_ids(mu), 1, noise_variance=1.0, **options)
    quiet, same_z = sigmoid_grid(mu, mu.long(), float_ids(mu), 1, noise_variance=0.0, **options)
    assert torch.equal(z, same_z)
    assert torch.equal(quiet, render(z, **geometry))
    assert not torch.isclose(images, quiet).any()
