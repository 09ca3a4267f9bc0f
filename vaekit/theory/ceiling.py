"""The information that one noisy image holds about its truth, which no code can exceed."""

from __future__ import annotations

import math

import numpy as np

from vaekit.theory.intensity import Array, Generator, sigmoid

MESH_POINTS = 2**21
SMALL_NOISE = 1e-3


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
        # Rounding may leave a channel that holds nothing a little below it.
        return factors * max(0.0, _channel_information(mu, noise))
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
