"""What every probe and measure reads at the optimum of a linear beta-VAE on the linear grid.

The linear grid is x = T z + noise with z ~ N(mu, I) and every column of T the `tile`^2 pixels of
one tile, so the data's eigenvalues are lambda = tile^2 + noise_variance, once a tile, and
noise_variance for the rest. Derived in `README.md` beside this file, section "The probes".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from vaekit.theory.linear import LinearOptimum, linear_optimum


@dataclass(frozen=True)
class GridMeasures:
    """Exact values, named as the variables of the dataset. None of them depends on the seed.

    Attributes:
        optimum: of the model; its objective, KL and active units.
        truth_to_code_mse, truth_to_code_r2: the exact probe on the clean test grid.
        code_to_truth_mse, code_to_truth_r2: the same, the other way.
        decode_mse: D(P(truth)) against the clean image, per pixel; also that of D(encode(x)) when
            the code is the mean.
        constant_mse: the same of a decoder that draws the training distribution's mean image.
        recovery_r2: code -> truth on fresh noisy draws.
        canonical_correlation: of code and truth on those draws, once a tile.
        information: Gaussian mutual information of the two, in nats.
    """

    optimum: LinearOptimum
    truth_to_code_mse: float
    truth_to_code_r2: float
    code_to_truth_mse: float
    code_to_truth_r2: float
    decode_mse: float
    constant_mse: float
    recovery_r2: float
    canonical_correlation: float
    information: float


def grid_measures(
    mu: float,
    levels: npt.ArrayLike,
    *,
    beta: float,
    decoder_variance: float | None,
    latents: int,
    grid: int = 3,
    tile: int = 7,
    noise_variance: float = 0.25,
    code: Literal["mean", "sample"] = "mean",
) -> GridMeasures:
    """Evaluate every measure at the optimum on the linear grid.

    Args:
        mu: mean of the truths; it moves `decode_mse` and `constant_mse` alone.
        levels: values of the test grid.
        beta, decoder_variance, latents: as `linear_optimum` takes them.
        grid: tiles along a side.
        tile: pixels along a tile's side.
        noise_variance: of the pixels.
        code: what the probes read.

    Returns:
        See `GridMeasures`.

    Raises:
        ValueError: there are fewer latents than tiles: which directions they take is then open,
            and so are the probes' values; or as `linear_optimum`.
    """
    tiles = grid**2
    if latents < tiles:
        raise ValueError(f"latents: got {latents}; allowed: at least one for each of {tiles} tiles")
    signal = tile**2
    eigenvalue = signal + noise_variance
    spectrum = [eigenvalue] * tiles + [noise_variance] * (tiles * signal - tiles)
    optimum = linear_optimum(
        spectrum, beta=beta, decoder_variance=decoder_variance, latents=latents
    )
    # The tiles' eigenvalues are equal, so their units live and die together.
    alive = float(optimum.active_units > 0)
    shrunk = alive * optimum.code_variances[0]
    level = np.asarray(levels, dtype=np.float64)
    spread = float(level.var())
    # Of a clean image a unit's mean is gain x truth, rotated; it varies by gain^2 times the truth.
    gain = alive * float(optimum.encoder_weights[0]) * tile
    noise = optimum.posterior_variances if code == "sample" else np.zeros(latents)
    heard = gain**2 * spread
    listened = heard / (heard + noise[0]) if heard else 0.0
    total = tiles * heard + float(noise.sum())
    # Of a noisy image the mean varies by shrunk, of which signal / eigenvalue is the truth's.
    rho2 = shrunk * signal / eigenvalue / (shrunk + noise[0]) if alive else 0.0
    distance = float(np.square(level - mu).mean())
    return GridMeasures(
        optimum=optimum,
        truth_to_code_mse=float(noise.mean()),
        truth_to_code_r2=tiles * heard / total if total else 0.0,
        code_to_truth_mse=spread * (1.0 - listened),
        code_to_truth_r2=listened,
        decode_mse=(1.0 - shrunk) ** 2 * distance,
        constant_mse=distance,
        recovery_r2=float(rho2),
        canonical_correlation=float(np.sqrt(rho2)),
        information=float(-0.5 * tiles * np.log1p(-rho2)) if rho2 < 1 else np.inf,
    )
