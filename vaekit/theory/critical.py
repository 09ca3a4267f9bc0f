"""Beta at which the collapsed state stops being stable: the boundary of the objective.

Derived in `README.md` beside this file, section "The boundary of collapse".
"""

from __future__ import annotations

from typing import Literal, overload

import numpy as np
import numpy.typing as npt

from vaekit.theory.intensity import Array, Generator, intensity_mean, intensity_variance

Likelihood = Literal["gaussian", "bernoulli"]


@overload
def critical_beta(
    mu: float,
    *,
    tile: int = ...,
    noise_variance: float = ...,
    decoder_variance: float = ...,
    generator: Generator = ...,
    likelihood: Likelihood = ...,
) -> float: ...
@overload
def critical_beta(
    mu: npt.ArrayLike,
    *,
    tile: int = ...,
    noise_variance: float = ...,
    decoder_variance: float = ...,
    generator: Generator = ...,
    likelihood: Likelihood = ...,
) -> Array: ...
def critical_beta(
    mu: npt.ArrayLike,
    *,
    tile: int = 7,
    noise_variance: float = 0.25,
    decoder_variance: float = 0.25,
    generator: Generator = "sigmoid",
    likelihood: Likelihood = "gaussian",
) -> float | Array:
    """Beta above which the collapsed model is stable.

        gaussian:   (tile^2 Var[s] + noise_variance) / decoder_variance
        bernoulli:  (tile^2 Var[s] + noise_variance) / (p (1 - p)),  p = E[s]

    with s = sigmoid(N(mu, 1)), or N(mu, 1) on the linear grid.

    Args:
        mu: mean of the truths before the sigmoid; a number or an array.
        tile: pixels along a tile's side.
        noise_variance: of the pixels.
        decoder_variance: of the Gaussian likelihood; the Bernoulli one has none.
        generator: what turns a truth into an intensity.
        likelihood: of a pixel.

    Returns:
        A float for a number, else an array of mu's shape; exact to 1e-6 relative and better. NaN
        where no constant image is a Bernoulli optimum: a mean intensity outside of (0, 1).

    Source: Lucas et al. 2019, arXiv:1911.02469, section 4, with decoder variance replaced by beta
    times itself; for the Bernoulli likelihood derived in README.md.
    """
    pixel = np.asarray(decoder_variance, dtype=np.float64)
    if likelihood == "bernoulli":
        mean = intensity_mean(mu, generator=generator)
        pixel = np.where((mean > 0) & (mean < 1), mean * (1 - mean), np.nan)
    signal = tile**2 * intensity_variance(mu, generator=generator)
    critical = (signal + noise_variance) / pixel
    return float(critical) if np.ndim(critical) == 0 else critical
