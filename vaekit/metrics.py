"""Measures of what a model kept: active units, canonical correlations, information, status."""

from __future__ import annotations

import torch
from torch import Tensor

from vaekit.probe import RELATIVE_CUTOFF

# A latent counts as active when its mean varies by more than this over the data.
# Source: Burda, Grosse, Salakhutdinov 2016, arXiv:1509.00519, section 5.3.
ACTIVE_VARIANCE = 0.01


def active(code_variance: Tensor) -> Tensor:
    """Which latents are active: Var_x(mean_l) > 0.01. [M, L] -> bool [M, L]."""
    return code_variance > ACTIVE_VARIANCE


def kl_per_latent(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL of each latent's posterior from N(0, 1) in nats: [.., L] -> [.., L]."""
    return 0.5 * (mean.square() + torch.expm1(logvar) - logvar)


def aggregate_kl(mean: Tensor, covariance: Tensor) -> Tensor:
    """KL of the aggregate posterior's Gaussian part from N(0, I), in nats.

        1/2 [ tr(C) + |m|^2 - L - ln det C ],  m and C of q(z) = E_x q(z|x)

    The rate is I_q(x; z) + KL(q(z) || p(z)), and that KL is this part plus the distance of q(z)
    from the Gaussian of its own moments: what is given here is a lower bound of it, exact if q(z)
    is Gaussian, and the rate less this an upper bound of what the code says about the image.

    Args:
        mean: [M, L], float64.
        covariance: [M, L, L]: of the posteriors' means, plus their average variances.

    Returns:
        [M].

    Source: Hoffman and Johnson 2016, "ELBO surgery", equation 7.
    """
    trace = covariance.diagonal(dim1=1, dim2=2).sum(-1)
    logdet = torch.linalg.slogdet(covariance).logabsdet
    return 0.5 * (trace + mean.square().sum(-1) - mean.shape[1] - logdet)


def _inverse_root(covariance: Tensor) -> Tensor:
    """Pseudo-inverse square root of symmetric matrices, absent directions mapped to 0."""
    values, vectors = torch.linalg.eigh(covariance)
    kept = values > RELATIVE_CUTOFF * values[:, -1:].clamp(min=1e-300)
    root = torch.where(kept, torch.where(kept, values, 1.0).rsqrt(), 0.0)
    return vectors @ (root[:, :, None] * vectors.transpose(1, 2))


def canonical_correlations(covariance: Tensor, first: int, kept: Tensor) -> Tensor:
    """Canonical correlations of two groups of columns, largest first.

    The singular values of C_xx^-1/2 C_xy C_yy^-1/2; columns of the second group that are not `kept`
    (inactive latents) are dropped, so a collapsed code has none but zeros.

    Args:
        covariance: [M, F + L, F + L], float64.
        first: number of columns F of the first group.
        kept: bool [M, L].

    Returns:
        [M, min(F, L)] in [0, 1].

    Source: Hotelling 1936, "Relations between two sets of variates".
    """
    mask = kept.to(covariance.dtype)
    xx, xy = covariance[:, :first, :first], covariance[:, :first, first:] * mask[:, None]
    yy = covariance[:, first:, first:] * mask[:, None] * mask[:, :, None]
    whitened = _inverse_root(xx) @ xy @ _inverse_root(yy)
    return torch.linalg.svdvals(whitened).clamp(0.0, 1.0)


def gaussian_information(correlations: Tensor) -> Tensor:
    """Mutual information in nats that canonical correlations prove: -1/2 sum ln(1 - rho^2).

    With a Gaussian truth z this is a lower bound on I(z; code), since among all joint distributions
    with these correlations and a Gaussian z the Gaussian one has the least information; so it can
    not pass the ceiling I(z; x). That is why the truth is z here and not the intensities.

    Args:
        correlations: [M, C].

    Returns:
        [M]; infinite where a correlation is 1.
    """
    # Adding 0.0 turns -0.0 into 0.0.
    return -0.5 * torch.log1p(-correlations.square()).sum(dim=-1) + 0.0


def status(active_units: Tensor, finite: Tensor) -> list[str]:
    """Say of each model whether it is ok, collapsed (no active unit) or diverged (not finite)."""
    return [
        "diverged" if not good else "collapsed" if units == 0 else "ok"
        for units, good in zip(active_units.tolist(), finite.tolist(), strict=True)
    ]
