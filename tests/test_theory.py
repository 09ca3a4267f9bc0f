"""The closed forms, held against other closed forms, simulation, and published values."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import integrate, stats

from vaekit.theory import (
    ceiling,
    constant_predictor_mse,
    critical_beta,
    grid_measures,
    information_ceiling,
    intensity_mean,
    intensity_variance,
    linear_optimum,
    linear_solution,
    sigmoid,
)


def by_adaptive_quadrature(mu: float) -> tuple[float, float]:
    """Mean and variance of sigmoid(N(mu, 1)) by an integrator of another kind."""
    density = stats.norm(mu).pdf

    def moment(power: int) -> float:
        value, _ = integrate.quad(
            lambda z: float(sigmoid(z)) ** power * density(z), mu - 12, mu + 12, epsabs=1e-13
        )
        return value

    return moment(1), moment(2) - moment(1) ** 2


@pytest.mark.parametrize("mu", [-3.0, 0.0, 0.5, 2.0, 5.0])
def test_intensity_moments(mu: float) -> None:
    mean, variance = by_adaptive_quadrature(mu)
    assert float(intensity_mean(mu)) == pytest.approx(mean, rel=1e-9)
    assert float(intensity_variance(mu)) == pytest.approx(variance, rel=1e-6)


def test_critical_beta_has_the_known_values() -> None:
    known = [9.50, 7.54, 4.05, 1.92, 1.20, 1.03]
    assert critical_beta(np.arange(6.0)) == pytest.approx(known, abs=0.006)
    _, variance = by_adaptive_quadrature(1.5)
    assert critical_beta(1.5) == pytest.approx((49 * variance + 0.25) / 0.25, rel=1e-6)
    assert isinstance(critical_beta(0.0), float)


def test_critical_beta_scales() -> None:
    assert critical_beta(1.0, decoder_variance=0.5) == pytest.approx(critical_beta(1.0) / 2)
    assert critical_beta(7.0, tile=3, generator="linear") == pytest.approx((9 + 0.25) / 0.25)
    assert critical_beta(-2.0) == pytest.approx(critical_beta(2.0))


def test_critical_beta_of_the_bernoulli_likelihood() -> None:
    mean, variance = by_adaptive_quadrature(2.0)
    expected = (49 * variance + 0.25) / (mean * (1 - mean))
    assert critical_beta(2.0, likelihood="bernoulli") == pytest.approx(expected, rel=1e-6)
    # At mu = 0 the best constant is 1/2, whose Fisher information is that of variance 1/4.
    assert critical_beta(0.0, likelihood="bernoulli") == pytest.approx(critical_beta(0.0))
    beyond = critical_beta([0.5, 1.5], likelihood="bernoulli", generator="linear")
    assert np.isnan(beyond).tolist() == [False, True]


def test_the_ceiling_of_a_gaussian_channel_is_its_capacity() -> None:
    assert information_ceiling(3.0, generator="linear", factors=2) == pytest.approx(
        math.log1p(49 / 0.25)
    )
    assert information_ceiling(0.0, noise_variance=0.0) == math.inf


def test_the_ceiling_of_images_that_hold_nothing_is_nothing() -> None:
    """Far out on the sigmoid and under much noise, where rounding is all that is left."""
    found = information_ceiling(20.0, noise_variance=1e6)
    assert 0.0 <= found < 1e-12


@pytest.mark.parametrize("mu", [0.0, 2.0, 5.0])
def test_the_ceiling_by_simulation(mu: float) -> None:
    """I = E[ln p(y|s) - ln p(y)] over draws, p(y) by a mixture over other draws."""
    rng = np.random.default_rng(0)
    noise = 0.5 / 7
    s = sigmoid(rng.normal(mu, 1.0, 5_000))
    y = s + rng.normal(0.0, noise, s.size)
    nodes = sigmoid(mu + stats.norm.ppf((np.arange(4000) + 0.5) / 4000))
    marginal = stats.norm.pdf(y[:, None], nodes, noise).mean(1)
    gains = stats.norm.logpdf(y, s, noise) - np.log(marginal)
    error = gains.std() / math.sqrt(gains.size)
    assert information_ceiling(mu, factors=1) == pytest.approx(gains.mean(), abs=4 * error)


def test_the_ceiling_lies_below_the_gaussian_bound_and_falls_with_mu() -> None:
    ceilings = [information_ceiling(mu) for mu in range(6)]
    bounds = 4.5 * np.log1p(49 * intensity_variance(np.arange(6.0)) / 0.25)
    assert (np.array(ceilings) < bounds).all()
    assert ceilings == sorted(ceilings, reverse=True)
    assert ceilings[5] == pytest.approx(bounds[5], rel=0.02)


def by_brute_force(mu: float, noise: float) -> float:
    """I(s; y) of one tile by plain sums over s and y; s near 0, where it has all of its digits."""
    z = np.arange(-6.5, 6.5, 2e-3)
    prior = stats.norm.pdf(z) / stats.norm.pdf(z).sum()
    s = sigmoid(z - mu)
    y = np.arange(-9 * noise, s[-1] + 9 * noise, noise / 6)
    marginal = np.array([prior @ stats.norm.pdf(value, s, noise) for value in y])
    known = marginal > 0
    entropy = -(marginal[known] * np.log(noise * marginal[known])).sum() * noise / 6
    return float(entropy - 0.5 * math.log(2 * math.pi * math.e))


@pytest.mark.parametrize(("mu", "noise"), [(3.0, 5e-3), (8.0, 5e-4), (12.0, 2e-5), (20.0, 1e-8)])
def test_the_ceiling_far_out_on_the_sigmoid(mu: float, noise: float) -> None:
    """Noise that is small, but not beside intensities which spread by as little: mu = 8, 5e-4.

    The sums leave out what lies beyond 6.5 standard deviations, 8e-11 of the truths.
    """
    found = information_ceiling(mu, factors=1, noise_variance=(7 * noise) ** 2)
    assert found == pytest.approx(by_brute_force(mu, noise), rel=1e-6, abs=1e-8)


def test_the_ceiling_never_passes_the_gaussian_bound() -> None:
    """Of all intensities of a variance Gaussian ones hold most: 1/2 ln(1 + SNR)."""
    for mu in (0.0, 4.0, 7.0, 10.0, 15.0, 20.0, -20.0):
        for noise in (1.0, 1e-2, 1e-3, 5e-4, 1e-5, 1e-8, 1e-10):
            found = information_ceiling(mu, factors=1, noise_variance=(7 * noise) ** 2)
            bound = 0.5 * math.log1p(float(intensity_variance(mu)) / noise**2)
            assert 0.5 * bound - 1e-12 < found < bound * (1 + 1e-6) + 1e-12, (mu, noise)


def test_the_ceiling_grows_by_the_logarithm_of_ever_smaller_noise() -> None:
    tiny, tinier = (information_ceiling(0.0, noise_variance=v) for v in (1e-12, 1e-14))
    assert tinier - tiny == pytest.approx(9 * math.log(10))


@pytest.mark.parametrize("noise", [1e-3, 1e-2, 0.25, 4.0])
def test_the_ceiling_does_not_depend_on_the_mesh(
    noise: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    coarse = information_ceiling(1.0, noise_variance=noise)
    monkeypatch.setattr(ceiling, "STEP", ceiling.STEP / 2)
    monkeypatch.setattr(ceiling, "SMOOTH", ceiling.SMOOTH / 2)
    assert information_ceiling(1.0, noise_variance=noise) == pytest.approx(coarse, rel=1e-9)


def test_constant_predictor() -> None:
    levels = (0.1, 0.5, 0.9)
    assert float(constant_predictor_mse(0.0, levels)) == pytest.approx(0.32 / 3)
    assert float(constant_predictor_mse(5.0, levels)) == pytest.approx(0.346, abs=5e-4)


def test_linear_optimum_worked_example() -> None:
    """Methods D3.3: nine tiles of 49 pixels, beta = 1."""
    optimum = linear_optimum([49.25] * 9 + [0.25] * 432, beta=1.0, decoder_variance=0.25, latents=9)
    assert optimum.active_units == 9
    assert optimum.posterior_variances == pytest.approx([0.005076] * 9, rel=1e-3)
    assert optimum.kl == pytest.approx([2.642] * 9, abs=5e-4)
    assert optimum.rate == pytest.approx(23.77, abs=5e-3)
    assert optimum.squared_error == pytest.approx(110.25)
    assert optimum.elbo == pytest.approx(-343.85, abs=5e-3)


def test_at_beta_one_the_objective_is_the_exact_likelihood() -> None:
    """The ELBO is tight at the pPCA optimum: -E ln p(x) = 1/2 [ln det(2 pi C) + tr(C^-1 S)]."""
    rng = np.random.default_rng(0)
    spectrum = rng.gamma(1.0, 3.0, 12)
    optimum = linear_optimum(spectrum, beta=1.0, decoder_variance=0.7, latents=5)
    ordered = np.sort(spectrum)[::-1]
    model = np.where(np.arange(12) < optimum.active_units, ordered, 0.7)
    exact = 0.5 * np.sum(np.log(2 * np.pi * model) + ordered / model)
    assert optimum.objective == pytest.approx(exact)


@pytest.mark.parametrize("beta", [0.3, 1.0, 2.5, 40.0])
def test_the_optimum_cannot_be_improved(beta: float) -> None:
    """Among linear VAEs with scaled axes, every perturbed one has a higher objective."""
    rng = np.random.default_rng(1)
    spectrum = np.array([9.0, 4.0, 1.0, 0.4])
    variance = 0.5
    best = linear_optimum(spectrum, beta=beta, decoder_variance=variance, latents=3)

    def objective(w: np.ndarray, v: np.ndarray, tau: np.ndarray) -> float:
        """Axis j encodes with v_j and posterior variance tau_j, and decodes with w_j."""
        kept = spectrum[:3]
        error = (1 - w * v) ** 2 * kept + w**2 * tau
        kl = 0.5 * (v**2 * kept + tau - 1 - np.log(tau))
        distortion = (error.sum() + spectrum[3]) / (2 * variance)
        return 2 * math.log(2 * math.pi * variance) + distortion + beta * kl.sum()

    active = np.arange(3) < best.active_units
    encoder = np.where(active, best.weights / spectrum[:3], 0.0)
    at_best = objective(best.weights, encoder, best.posterior_variances)
    assert at_best == pytest.approx(best.objective)
    for _ in range(200):
        shift = rng.normal(0, 0.05, (3, 3))
        tau = best.posterior_variances * np.exp(shift[2])
        assert objective(best.weights + shift[0], encoder + shift[1], tau) >= at_best - 1e-12


@pytest.mark.parametrize("seed", range(20))
def test_a_learned_variance_is_the_best_fixed_one(seed: int) -> None:
    """Over a fine scan of fixed variances none has a lower objective; the error is D times it."""
    rng = np.random.default_rng(seed)
    spectrum = np.exp(rng.normal(0.0, 1.5, 12))
    beta, latents = float(np.exp(rng.uniform(-2, 2.5))), int(rng.integers(1, 11))
    learned = linear_optimum(spectrum, beta=beta, decoder_variance=None, latents=latents)
    scan = np.exp(np.linspace(-8, 6, 4001))
    objectives = [
        linear_optimum(spectrum, beta=beta, decoder_variance=v, latents=latents).objective
        for v in scan
    ]
    assert learned.objective <= min(objectives) + 1e-9
    assert learned.objective == pytest.approx(min(objectives), abs=1e-3)
    assert learned.squared_error / 12 == pytest.approx(learned.decoder_variance)


@pytest.mark.parametrize("latents", range(1, 10))
@pytest.mark.parametrize("level", [0.1, 0.3, 0.7])
def test_equal_eigenvalues_at_the_water_level_have_a_learned_variance(
    latents: int, level: float
) -> None:
    """At beta 1 every level of an isotropic spectrum is the eigenvalue itself, to rounding."""
    learned = linear_optimum(np.full(10, level), beta=1.0, decoder_variance=None, latents=latents)
    assert learned.decoder_variance == pytest.approx(level)
    expected = 5.0 * (math.log(2.0 * math.pi * level) + 1.0)
    assert learned.objective == pytest.approx(expected)


def test_the_learned_variance_of_a_plain_vae_is_that_of_ppca() -> None:
    """Tipping and Bishop 1999, equation 8: the mean of the eigenvalues left out."""
    spectrum = [9.0, 4.0, 1.0, 0.5, 0.3]
    found = linear_optimum(spectrum, beta=1.0, decoder_variance=None, latents=2)
    assert found.decoder_variance == pytest.approx(0.6)


def test_what_has_no_optimum_is_refused() -> None:
    with pytest.raises(ValueError, match="latents: got 3 for data of rank 2"):
        linear_optimum([2.0, 1.0, 0.0], beta=1.0, decoder_variance=None, latents=3)
    with pytest.raises(ValueError, match="beta: got 0"):
        linear_optimum([2.0, 1.0], beta=0.0, decoder_variance=1.0, latents=1)
    with pytest.raises(ValueError, match="decoder_variance: got -1"):
        linear_optimum([2.0, 1.0], beta=1.0, decoder_variance=-1.0, latents=1)
    with pytest.raises(ValueError, match="at least one for each of 9 tiles"):
        grid_measures(0.0, (0.1, 0.9), beta=1.0, decoder_variance=1.0, latents=8)


def test_the_weights_have_the_optimums_distortion_and_rate() -> None:
    """The matrices, put into the definitions: error, KL and code variance of the closed form."""
    rng = np.random.default_rng(2)
    mixed = rng.normal(size=(6, 6))
    covariance = mixed @ mixed.T
    solution = linear_solution(covariance, beta=1.5, decoder_variance=0.4, latents=8)
    best, w, v = solution.optimum, solution.decoder, solution.encoder
    assert 0 < best.active_units < 6
    missed = np.eye(6) - w @ v
    error = (
        np.trace(missed @ covariance @ missed.T) + np.square(w).sum(0) @ best.posterior_variances
    )
    assert error == pytest.approx(best.squared_error)
    code = np.diag(v @ covariance @ v.T)
    assert code == pytest.approx(best.code_variances)
    tau = best.posterior_variances
    assert 0.5 * (code + tau - 1 - np.log(tau)) == pytest.approx(best.kl)


def test_the_grids_measures_have_the_worked_values() -> None:
    """Methods D3.3: nine tiles of 49 pixels, both variances 1/4, beta = 1."""
    levels = (0.1, 0.5, 0.9)
    by_mean = grid_measures(0.0, levels, beta=1.0, decoder_variance=0.25, latents=9)
    by_sample = grid_measures(
        0.0, levels, beta=1.0, decoder_variance=0.25, latents=9, code="sample"
    )
    assert by_mean.recovery_r2 == pytest.approx(0.99492, abs=5e-6)
    assert by_sample.recovery_r2 == pytest.approx(0.98987, abs=5e-6)
    assert by_mean.information == pytest.approx(9 * 2.642, abs=5e-3)
    assert by_sample.information == pytest.approx(9 * 2.296, abs=5e-3)
    assert by_sample.truth_to_code_mse == pytest.approx(0.25 / 49.25)
    assert by_mean.decode_mse == pytest.approx((0.25 / 49.25) ** 2 * by_mean.constant_mse)
    collapsed = grid_measures(2.0, levels, beta=198.0, decoder_variance=0.25, latents=9)
    assert collapsed.optimum.active_units == 0
    assert collapsed.decode_mse == collapsed.constant_mse == pytest.approx(2.25 + 0.32 / 3)
    assert collapsed.code_to_truth_r2 == collapsed.recovery_r2 == collapsed.information == 0.0
    assert collapsed.truth_to_code_mse == 0.0


def test_the_grids_measures_do_not_depend_on_mu_but_for_the_image() -> None:
    options = {"beta": 3.0, "decoder_variance": None, "latents": 9, "noise_variance": 0.5}
    here, there = (grid_measures(mu, (0.0, 1.0), **options) for mu in (0.0, 4.0))
    assert there.decode_mse > here.decode_mse
    assert replace(there, decode_mse=0.0, constant_mse=0.0, optimum=here.optimum) == replace(
        here, decode_mse=0.0, constant_mse=0.0
    )
