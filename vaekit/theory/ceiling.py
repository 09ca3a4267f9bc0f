"""The information that one noisy image holds about its truth, which no code can exceed."""

from __future__ import annotations

import math

import numpy as np

from vaekit.theory.intensity import Array, Generator, sigmoid

# The trapezoid rule on these meshes is accurate to rounding: what it sums is smooth on the scale 1.
REACH = 9.0
STEP = 0.02
# Below this share of the intensities' own scale the noise sees their density as smooth, and
# Gauss-Hermite integrates it; above it the noise is wide on the mesh of truths.
SMOOTH = 0.1
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(60)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


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
        nats, to 1e-6 relative or 1e-12; infinite without noise.

    Source: Cover and Thomas, "Elements of Information Theory", chapters 2 and 8.
    """
    if noise_variance == 0:
        return math.inf
    noise = math.sqrt(noise_variance) / tile
    if generator == "linear":
        return factors * 0.5 * math.log1p(1.0 / noise**2)
    # Rounding may leave a channel that holds nothing a little below it.
    return factors * max(0.0, _channel_information(mu, noise))


def _channel_information(mu: float, noise: float) -> float:
    """Information of sigmoid(N(mu, 1)) + N(0, noise^2) on the sigmoid: h(y) - h(noise), in nats."""
    # The channel is the same upside down, and near 0 an intensity keeps all of its digits.
    mu = -abs(mu)
    u = np.arange(-REACH, REACH + STEP, STEP)
    s = sigmoid(mu + u)
    # Where y moves with the intensities it is fine where they are dense, elsewhere with the noise.
    y = s + noise * u
    density = _density(y, mu, noise)
    weight = density * (s * (1.0 - s) + noise) * STEP
    known = density > 0
    entropy = -float(weight[known] @ np.log(noise * density[known]))
    return entropy - 0.5 * math.log(2.0 * math.pi * math.e)


def _density(y: Array, mu: float, noise: float) -> Array:
    """Density of s + N(0, noise^2) at y, s = sigmoid(N(mu, 1))."""
    z = np.arange(-REACH, REACH + STEP, STEP)
    prior = np.exp(-0.5 * z**2)
    prior /= prior.sum()
    kernel = np.exp(-0.5 * np.square((y[:, None] - sigmoid(mu + z)) / noise))
    wide = kernel @ prior / (noise * math.sqrt(2.0 * math.pi))
    fine = noise < SMOOTH * y * (1.0 - y)
    wide[fine] = _intensity_density(y[fine, None] - noise * _NODES, mu) @ _WEIGHTS
    return wide


def _intensity_density(s: Array, mu: float) -> Array:
    """Density of sigmoid(N(mu, 1)) at s; 0 outside of (0, 1)."""
    inside = (s > 0) & (s < 1)
    held = np.where(inside, s, 0.5)
    z = np.log(held) - np.log1p(-held) - mu
    return np.where(
        inside, np.exp(-0.5 * z**2) / (math.sqrt(2.0 * math.pi) * held * (1.0 - held)), 0.0
    )
