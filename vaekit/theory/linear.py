"""The exact optimum of the linear beta-VAE: p(x|z) = N(W z, v I), q(z|x) = N(V x, diag(tau)).

A latent direction is worth learning iff the data's variance along it exceeds the water level
t = beta v. Derived in `README.md` beside this file, section "The linear beta-VAE".
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vaekit.theory.intensity import Array


@dataclass(frozen=True)
class LinearOptimum:
    """The optimum of a linear beta-VAE. Arrays have one entry a latent, active ones first.

    Attributes:
        beta: weight of the KL.
        decoder_variance: v, given or learned.
        active_units: latents in use, k.
        weights: singular values of the decoder, sqrt(lambda - beta v), 0 where inactive.
        encoder_weights: singular values of the encoder, sqrt(lambda - beta v) / lambda.
        code_variances: variance of the encoder's mean, 1 - beta v / lambda, 0 where inactive.
        posterior_variances: beta v / lambda, 1 where inactive.
        kl: nats a latent, 1/2 ln(lambda / (beta v)), 0 where inactive.
        rate: their sum.
        squared_error: E||x - y||^2 with z drawn from the posterior.
        squared_error_mean: the same with z the posterior's mean.
        distortion: E[-log p(x|z)] in nats, constants included.
        objective: distortion + beta rate, the minimum of the training loss.
        elbo: -(distortion + rate).
    """

    beta: float
    decoder_variance: float
    active_units: int
    weights: Array
    encoder_weights: Array
    code_variances: Array
    posterior_variances: Array
    kl: Array
    rate: float
    squared_error: float
    squared_error_mean: float
    distortion: float
    objective: float
    elbo: float


@dataclass(frozen=True)
class LinearSolution:
    """An optimum with its matrices, unique up to a sign of every latent and their order.

    Where eigenvalues are equal the axes within their block may be rotated as well.

    Attributes:
        optimum: everything that a rotation leaves alone.
        decoder: W [D, L].
        encoder: V [L, D].
    """

    optimum: LinearOptimum
    decoder: Array
    encoder: Array


def linear_optimum(
    eigenvalues: npt.ArrayLike,
    *,
    beta: float,
    decoder_variance: float | None,
    latents: int,
) -> LinearOptimum:
    """Solve the linear beta-VAE exactly.

    With data eigenvalues lambda_1 >= lambda_2 >= ... and the water level t = beta decoder_variance,
    the first k latents are active, k = #{j <= latents: lambda_j > t}. A learned decoder variance is

        v = sum_{j > k} lambda_j / (D - k beta)

    at a k that agrees with it; of several, the one with the least objective.

    Args:
        eigenvalues: all D of the data covariance, any order.
        beta: weight of the KL, > 0.
        decoder_variance: v of the Gaussian likelihood, > 0; None learns it.
        latents: number of latents.

    Returns:
        See `LinearOptimum`.

    Raises:
        ValueError: beta or decoder_variance is not above 0; or the variance is to be learned and
            the latents can hold all the data's variance, so that the objective has no minimum.

    Source: Tipping and Bishop 1999, "Probabilistic principal component analysis", equations 7
    and 8; Lucas et al. 2019, arXiv:1911.02469, theorem 1.
    """
    spectrum = np.sort(np.asarray(eigenvalues, dtype=np.float64))[::-1]
    for name, value in (("beta", beta), ("decoder_variance", decoder_variance)):
        if value is not None and not value > 0:
            raise ValueError(f"{name}: got {value}; allowed: a number above 0")
    if decoder_variance is None:
        candidates = _learned_variances(spectrum, beta, latents)
        return min(
            (_fixed(spectrum, beta, variance, latents) for variance in candidates),
            key=lambda optimum: optimum.objective,
        )
    return _fixed(spectrum, beta, decoder_variance, latents)


def linear_solution(
    covariance: npt.ArrayLike, *, beta: float, decoder_variance: float | None, latents: int
) -> LinearSolution:
    """Solve the linear beta-VAE for a data covariance, with its matrices.

        W = U_k (Lambda_k - t I)^{1/2},  V = (Lambda_k - t I)^{1/2} Lambda_k^{-1} U_k^T

    Args:
        covariance: [D, D] of the data.
        beta, decoder_variance, latents: as `linear_optimum` takes them.

    Returns:
        See `LinearSolution`; latents beyond D have columns of zeros.

    Raises:
        ValueError: as `linear_optimum`.
    """
    values, vectors = np.linalg.eigh(np.asarray(covariance, dtype=np.float64))
    optimum = linear_optimum(values, beta=beta, decoder_variance=decoder_variance, latents=latents)
    axes = np.zeros((len(values), latents))
    used = min(latents, len(values))
    axes[:, :used] = vectors[:, ::-1][:, :used]
    return LinearSolution(
        optimum=optimum,
        decoder=axes * optimum.weights,
        encoder=(axes * optimum.encoder_weights).T,
    )


# Far above the rounding of a sum of eigenvalues, far below what the objective could tell.
LEVEL = 1e-12


def _learned_variances(spectrum: Array, beta: float, latents: int) -> list[float]:
    """Every stationary decoder variance: one for each k whose own water level leaves k active."""
    missed = spectrum[min(latents, len(spectrum)) :].sum()
    if not missed > 0:
        raise ValueError(
            f"latents: got {latents} for data of rank {np.count_nonzero(spectrum > 0)}; allowed "
            "with a learned decoder_variance: fewer than the rank"
        )
    found = []
    for active in range(min(latents, len(spectrum)) + 1):
        degrees = len(spectrum) - active * beta
        if degrees <= 0:
            break
        variance = float(spectrum[active:].sum()) / degrees
        # An eigenvalue at the water level may count either way: the objective is the same, and the
        # side that rounding leaves it on is chance.
        water, lead = beta * variance, spectrum[:latents]
        fewest = np.count_nonzero(lead > water * (1 + LEVEL))
        if fewest <= active <= np.count_nonzero(lead > water * (1 - LEVEL)):
            found.append(variance)
    return found


def _fixed(spectrum: Array, beta: float, decoder_variance: float, latents: int) -> LinearOptimum:
    """Solve for a spectrum in descending order and a decoder variance."""
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
        beta=beta,
        decoder_variance=decoder_variance,
        active_units=active,
        weights=padded(np.sqrt(kept - water), 0.0),
        encoder_weights=padded(np.sqrt(kept - water) / kept, 0.0),
        code_variances=padded(1.0 - water / kept, 0.0),
        posterior_variances=padded(water / kept, 1.0),
        kl=kl,
        rate=rate,
        squared_error=squared_error,
        squared_error_mean=float((water**2 / kept).sum()) + missed,
        distortion=distortion,
        objective=distortion + beta * rate,
        elbo=-(distortion + rate),
    )
