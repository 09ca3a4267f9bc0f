"""Closed forms that the measurements are held against: no training, no files.

For a linear beta-VAE a latent direction is worth learning iff the data's variance along it exceeds
beta times the decoder's variance. On the grid each tile is one such direction, with variance
tile^2 Var[s] plus the noise, so the boundary is a curve in the (mu, beta) plane.

Sources: Tipping and Bishop, "Probabilistic principal component analysis", 1999; Lucas et al.,
"Don't blame the ELBO!", 2019, arXiv:1911.02469. Dividing the beta-objective by beta turns it into
the ordinary one with the decoder variance multiplied by beta, and both results carry over.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, overload

import numpy as np
import numpy.typing as npt

Generator = Literal["sigmoid", "linear"]
Array = npt.NDArray[np.float64]

# Gauss-Hermite on this many nodes integrates a sigmoid against a Gaussian to rounding error.
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(160)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()
MESH_POINTS = 2**21
SMALL_NOISE = 1e-3


def sigmoid(z: npt.ArrayLike) -> Array:
    """The logistic function 1 / (1 + exp(-z)), without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * np.asarray(z, dtype=np.float64)))


def _moments(mu: npt.ArrayLike, generator: Generator) -> tuple[Array, Array]:
    mu = np.asarray(mu, dtype=np.float64)
    if generator == "linear":
        return mu, np.ones_like(mu)
    values = sigmoid(mu[..., None] + _NODES)
    mean = values @ _WEIGHTS
    return mean, np.square(values - mean[..., None]) @ _WEIGHTS


def intensity_mean(mu: npt.ArrayLike, *, generator: Generator = "sigmoid") -> Array:
    """Mean of a tile's intensity, E[sigmoid(N(mu, 1))] (mu itself on the linear grid)."""
    return _moments(mu, generator)[0]


def intensity_variance(mu: npt.ArrayLike, *, generator: Generator = "sigmoid") -> Array:
    """Variance of a tile's intensity, Var[sigmoid(N(mu, 1))] (1 on the linear grid)."""
    return _moments(mu, generator)[1]


@overload
def critical_beta(
    mu: float,
    *,
    tile: int = ...,
    noise_variance: float = ...,
    decoder_variance: float = ...,
    generator: Generator = ...,
) -> float: ...
@overload
def critical_beta(
    mu: npt.ArrayLike,
    *,
    tile: int = ...,
    noise_variance: float = ...,
    decoder_variance: float = ...,
    generator: Generator = ...,
) -> Array: ...
def critical_beta(
    mu: npt.ArrayLike,
    *,
    tile: int = 7,
    noise_variance: float = 0.25,
    decoder_variance: float = 0.25,
    generator: Generator = "sigmoid",
) -> float | Array:
    """Beta above which the collapsed model is stable: the boundary of the objective.

        critical_beta(mu) = (tile^2 Var[sigmoid(N(mu, 1))] + noise_variance) / decoder_variance

    Args:
        mu: mean of the truths before the sigmoid; a number or an array.
        tile: pixels along a tile's side.
        noise_variance: of the pixels.
        decoder_variance: of the Gaussian likelihood.
        generator: what turns a truth into an intensity.

    Returns:
        A float for a number, else an array of mu's shape; exact to 1e-6 relative and better.

    Source: Lucas et al. 2019, section 4, with decoder variance replaced by beta times itself.
    """
    signal = tile**2 * intensity_variance(mu, generator=generator)
    critical = (signal + noise_variance) / decoder_variance
    return float(critical) if np.ndim(critical) == 0 else critical


def constant_predictor_mse(
    mu: npt.ArrayLike, levels: npt.ArrayLike, *, generator: Generator = "sigmoid"
) -> Array:
    """Decode MSE per pixel of a decoder that always draws the training distribution's mean image.

    Args:
        mu: mean of the truths before the sigmoid.
        levels: intensities of the test grid.
        generator: what turns a truth into an intensity.

    Returns:
        mean over the levels of (level - E[s])^2, of mu's shape.
    """
    mean = intensity_mean(mu, generator=generator)
    return np.square(np.asarray(levels, dtype=np.float64) - mean[..., None]).mean(-1)


def information_ceiling(
    mu: float,
    *,
    factors: int = 9,
    tile: int = 7,
    noise_variance: float = 0.25,
    generator: Generator = "sigmoid",
) -> float:
    """Mutual information I(z; x) of truth and image in nats, which no code can exceed.

    The mean of a tile's pixels is sufficient for its truth, so the ceiling is `factors` times the
    information of y = s + N(0, noise_variance / tile^2) on s, by quadrature over s and y.

    Args:
        mu: mean of the truths before the sigmoid.
        factors: independent tiles.
        tile: pixels along a tile's side.
        noise_variance: of the pixels.
        generator: what turns a truth into an intensity.

    Returns:
        nats, to 1e-6 relative (to 0.5 % where the noise of a tile falls below 1e-3); infinite
        without noise.

    Source: Cover and Thomas, "Elements of Information Theory", chapters 2 and 8.
    """
    if noise_variance == 0:
        return math.inf
    noise = math.sqrt(noise_variance) / tile
    if generator == "linear":
        return factors * 0.5 * math.log1p(1.0 / noise**2)
    if noise >= SMALL_NOISE:
        return factors * _channel_information(mu, noise)
    # With little noise I = h - ln(noise) - c noise^2, and the mesh would grow without bound: take
    # h and c from two noises that are small enough for that and large enough for a mesh.
    near, far = (
        _channel_information(mu, scale * SMALL_NOISE) + math.log(scale * SMALL_NOISE)
        for scale in (1, 2)
    )
    curvature = (near - far) / (3.0 * SMALL_NOISE**2)
    entropy = near + curvature * SMALL_NOISE**2
    return factors * (entropy - math.log(noise) - curvature * noise**2)


def _channel_information(mu: float, noise: float) -> float:
    """Information of sigmoid(N(mu, 1)) + N(0, noise^2) on the sigmoid, in nats."""
    # The trapezoid rule is accurate to rounding once its step is below the kernel's width.
    step = min(0.05, noise)
    z = np.arange(-9.0, 9.0 + step, step)
    prior = np.exp(-0.5 * z**2)
    prior /= prior.sum()
    s = sigmoid(mu + z)
    y = np.arange(s.min() - 9.0 * noise, s.max() + 9.0 * noise, noise / 6.0)
    # In pieces: with little noise the mesh of all s against all y would not fit in memory.
    pieces = np.array_split(np.arange(len(s)), math.ceil(len(s) * len(y) / MESH_POINTS))
    marginal = sum(prior[rows] @ np.exp(_log_kernel(y, s[rows], noise)) for rows in pieces)
    log_marginal = np.log(np.maximum(marginal, np.finfo(np.float64).tiny))
    total = 0.0
    for rows in pieces:
        log_kernel = _log_kernel(y, s[rows], noise)
        kernel = np.exp(log_kernel)
        gain = (kernel * (log_kernel - log_marginal)).sum(axis=1) / kernel.sum(axis=1)
        total += float(prior[rows] @ gain)
    return total


def _log_kernel(y: Array, s: Array, noise: float) -> Array:
    """Ln p(y|s) on the mesh, without the constant that cancels."""
    return -0.5 * np.square((y - s[:, None]) / noise)


@dataclass(frozen=True)
class LinearOptimum:
    """The optimum of a linear beta-VAE. Arrays have one entry a latent, active ones first.

    Attributes:
        active_units: latents in use, k.
        weights: singular values of the decoder, sqrt(lambda - beta v), 0 where inactive.
        posterior_variances: beta v / lambda, 1 where inactive.
        kl: nats a latent, 1/2 ln(lambda / (beta v)), 0 where inactive.
        rate: their sum.
        squared_error: E||x - y||^2 with z drawn from the posterior.
        squared_error_mean: the same with z the posterior's mean.
        distortion: E[-log p(x|z)] in nats, constants included.
        objective: distortion + beta rate, the minimum of the training loss.
        elbo: -(distortion + rate).
    """

    active_units: int
    weights: Array
    posterior_variances: Array
    kl: Array
    rate: float
    squared_error: float
    squared_error_mean: float
    distortion: float
    objective: float
    elbo: float


def linear_optimum(
    eigenvalues: npt.ArrayLike, *, beta: float, decoder_variance: float, latents: int
) -> LinearOptimum:
    """Solve the linear beta-VAE with fixed decoder variance exactly.

    With data eigenvalues lambda_1 >= lambda_2 >= ... and the water level t = beta decoder_variance,
    the first k latents are active, k = #{j <= latents: lambda_j > t}.

    Args:
        eigenvalues: all D of the data covariance, any order.
        beta: weight of the KL, > 0.
        decoder_variance: v of the Gaussian likelihood.
        latents: number of latents.

    Returns:
        See `LinearOptimum`.

    Source: Tipping and Bishop 1999, equations 7 and 8; Lucas et al. 2019, theorem 1.
    """
    spectrum = np.sort(np.asarray(eigenvalues, dtype=np.float64))[::-1]
    water = beta * decoder_variance
    active = int(np.count_nonzero(spectrum[:latents] > water))
    kept = spectrum[:active]

    def padded(values: Array, rest: float) -> Array:
        return np.concatenate([values, np.full(latents - active, rest)])

    kl = padded(0.5 * np.log(kept / water), 0.0)
    rate = float(kl.sum())
    missed = float(spectrum[active:].sum())
    squared_error = active * water + missed
    constant = 0.5 * len(spectrum) * math.log(2.0 * math.pi * decoder_variance)
    distortion = constant + squared_error / (2.0 * decoder_variance)
    return LinearOptimum(
        active_units=active,
        weights=padded(np.sqrt(kept - water), 0.0),
        posterior_variances=padded(water / kept, 1.0),
        kl=kl,
        rate=rate,
        squared_error=squared_error,
        squared_error_mean=float((water**2 / kept).sum()) + missed,
        distortion=distortion,
        objective=distortion + beta * rate,
        elbo=-(distortion + rate),
    )
