"""A tile's intensity: its mean and variance, and what a decoder without a code makes of it."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

Generator = Literal["sigmoid", "linear"]
Array = npt.NDArray[np.float64]

# Gauss-Hermite on this many nodes integrates a sigmoid against a Gaussian to rounding error.
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(160)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


def sigmoid(z: npt.ArrayLike) -> Array:
    """The logistic function 1 / (1 + exp(-z)), without overflow and with all digits near 0."""
    return np.exp(-np.logaddexp(0.0, -np.asarray(z, dtype=np.float64)))


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
