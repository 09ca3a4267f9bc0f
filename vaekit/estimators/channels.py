"""Channels whose information is known, for estimators to be scored on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vaekit.theory import information_ceiling, sigmoid

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Channel:
    """A pair of random vectors whose information is known.

    Attributes:
        name: for tables.
        nats: I(x; y), exact.
        draw: (generator, rows) -> x [rows, F] and y [rows, L].
    """

    name: str
    nats: float
    draw: Callable[[np.random.Generator, int], tuple[Array, Array]]


def gaussian_channel(dims: int, nats: float) -> Channel:
    """Return independent Gaussian pairs, turned by a rotation that hides them.

    Every pair has rho^2 = 1 - exp(-2 nats / dims), so that -dims/2 ln(1 - rho^2) = nats.
    """
    rho2 = -math.expm1(-2.0 * nats / dims)

    def draw(rng: np.random.Generator, rows: int) -> tuple[Array, Array]:
        x = rng.standard_normal((rows, dims))
        y = math.sqrt(rho2) * x + math.sqrt(1 - rho2) * rng.standard_normal((rows, dims))
        # The rotation is the channel's, not the draw's.
        turn = np.linalg.qr(np.random.default_rng(dims).standard_normal((dims, dims)))[0]
        return x, y @ turn

    return Channel(f"Gaussian, {dims} pair{'s' * (dims > 1)}", nats, draw)


def tile_channel(mu: float, tiles: int, *, tile: int = 7, noise_variance: float = 0.25) -> Channel:
    """Return the experiment's own channel: truths, and the noisy means of their tiles.

    The information is the ceiling of `vaekit.theory`, by quadrature.
    """
    noise = math.sqrt(noise_variance) / tile

    def draw(rng: np.random.Generator, rows: int) -> tuple[Array, Array]:
        z = rng.normal(mu, 1.0, (rows, tiles))
        return z, sigmoid(z) + rng.normal(0.0, noise, z.shape)

    nats = information_ceiling(mu, factors=tiles, tile=tile, noise_variance=noise_variance)
    return Channel(f"{tiles} tile{'s' * (tiles > 1)} at mu = {mu:g}", nats, draw)


def fold_channel(bins: int = 8) -> Channel:
    """Return a channel without correlation: y says how far x is from 0, in bins of equal chance.

    y is uniform within its bin, so I = ln(bins), all of which a linear measure misses.
    """

    def draw(rng: np.random.Generator, rows: int) -> tuple[Array, Array]:
        x = rng.uniform(-1.0, 1.0, (rows, 1))
        bin_ = np.floor(np.abs(x) * bins)
        return x, bin_ + rng.uniform(0.0, 1.0, x.shape)

    return Channel(f"folded, {bins} bins", math.log(bins), draw)


def league() -> list[Channel]:
    """Return the channels of the committed table: nothing, little, much, and the experiment's."""
    return [
        gaussian_channel(1, 0.0),
        gaussian_channel(1, 1.0),
        gaussian_channel(1, 4.0),
        gaussian_channel(9, 0.0),
        gaussian_channel(9, 1.0),
        gaussian_channel(9, 10.0),
        tile_channel(0.0, 1),
        tile_channel(0.0, 9),
        tile_channel(3.0, 9),
        fold_channel(),
    ]
