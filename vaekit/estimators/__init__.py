"""Estimators of the information between truth and code, in nats, all called alike.

    gaussian  from canonical correlations, less the bias of so many draws: without bias for Gaussian
              pairs, else a lower bound on average where the truth is Gaussian
    ksg       from distances to nearest neighbours; no model, but it starves in many dimensions
    mine      a trained critic and the Donsker-Varadhan bound
    infonce   a trained critic that picks the right code out of a batch

What N draws can prove without assumptions grows as ln N alone: the Donsker-Varadhan bound proves no
more than ln N, KSG never gives more than psi(N) - psi(k + 1), and InfoNCE no more than ln of its
batch. `Estimate.limit` lies a nat below that, or at 0 where KSG's neighbours are no neighbours, and
`Estimate.supported` says whether an estimate stays below the limit: one that does not is no
evidence. `reports/estimators/` holds their bias and error on channels whose information is known.

Source: McAllester and Stratos 2020, arXiv:1811.04251 (what N draws can prove).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from vaekit.config import DRAWS_PER_COLUMN, Estimator
from vaekit.estimators.critic import INFONCE_BATCH, infonce, mine
from vaekit.estimators.neighbours import NEIGHBOURS, ksg, largest
from vaekit.metrics import canonical_correlations, gaussian_information
from vaekit.probe import moments_of

ESTIMATORS: tuple[Estimator, ...] = get_args(Estimator)
# Bounds bend before they saturate: what is less than this below the limit is at best "at least".
MARGIN = 1.0
# A search for neighbours is quadratic in many dimensions, and more rows would help it little.
KSG_ROWS = 4096
# (N / k)^(1 / columns), how many neighbourhoods lie side by side: in each of them KSG takes the
# density for constant. On Gaussian pairs with a nat each it misses 4 % at 4.3, 16 % at 2.6, 29 % at
# 2.1 and 68 % at 1.4, which is 9 pairs and 1,024 draws.
RESOLUTION = 2.5


@dataclass(frozen=True)
class Estimate:
    """Information of M pairs of truth and code.

    Attributes:
        nats: [M]; 0 where the code is constant.
        limit: nats that this many draws can support at most; infinite for an estimator that
            assumes a family.
    """

    nats: Tensor
    limit: float

    @property
    def supported(self) -> Tensor:
        """Whether the number of draws supports each estimate, bool [M]."""
        return self.nats <= self.limit


def estimate(name: Estimator, truth: Tensor, code: Tensor, seeds: Tensor) -> Estimate:
    """Estimate I(truth; code) of M pairs from N joint draws.

    Columns of a code that do not vary say nothing and are harmless; a code of such columns alone
    has 0 nats.

    Args:
        name: of the estimator.
        truth: [M, N, F].
        code: [M, N, L].
        seeds: [M] int64, of the critics' initial weights and the neighbours' ties.

    Returns:
        See `Estimate`.

    Raises:
        ValueError: there is no such estimator, or there are too few draws for it.
    """
    if name not in ESTIMATORS:
        raise ValueError(f"estimator: got {name!r}; allowed: {', '.join(ESTIMATORS)}")
    rows = truth.shape[1]
    each = DRAWS_PER_COLUMN
    if rows < (least := each * (truth.shape[2] + code.shape[2])):
        raise ValueError(
            f"truth: got {rows} draws; allowed: at least {least}, {each} for each column"
        )
    varies = (code.amax(dim=1) > code.amin(dim=1)).any(dim=-1)
    nats = _run(name, truth, code, seeds)
    return Estimate(
        torch.where(varies, nats, 0.0), limit(name, rows, truth.shape[2] + code.shape[2])
    )


def limit(name: Estimator, rows: int, columns: int) -> float:
    """Nats that an estimator can support from `rows` draws: the most it can show less `MARGIN`.

    That is ln N for MINE and InfoNCE, of the quarter that MINE is scored on and of InfoNCE's batch,
    and psi(N) - psi(k + 1) for the rows that KSG uses. In so many columns that its neighbours are
    hardly nearer than everything else KSG supports nothing: 0. The Gaussian measure assumes a
    family and has no limit.

    Args:
        name: of the estimator.
        rows: N draws.
        columns: of truth and code together.

    Source of KSG's: Gao, Ver Steeg and Galstyan 2015, arXiv:1411.2003 (it takes the density for
    constant within a neighbourhood).
    """
    near = min(rows, KSG_ROWS)
    if name == "ksg" and (near / NEIGHBOURS) ** (1.0 / columns) < RESOLUTION:
        return 0.0
    most = {
        "gaussian": math.inf,
        "ksg": largest(near),
        "mine": math.log(rows // 4),
        "infonce": math.log(min(INFONCE_BATCH, rows // 4)),
    }
    return most[name] - MARGIN


def gaussian_bias(rows: int, first: Tensor, second: Tensor) -> Tensor:
    """What sample canonical correlations of N Gaussian draws show above I(x; y), whatever it is.

        E[I'] - I = 1/2 [A(F) + A(L) - A(F + L)],  A(p) = sum_{i < p} psi((N - 1 - i) / 2)

    since ln det of a Wishart matrix exceeds that of its scale by A(p) + p ln 2 on average. It is
    about F L / (2 N).

    Args:
        rows: N.
        first, second: columns F and L that vary, [M] int64.

    Returns:
        nats [M].

    Source: Misra, Singh and Demchuk 2005, Journal of Multivariate Analysis 92, 324-342.
    """
    most = int((first + second).max())
    terms = torch.special.digamma(0.5 * (rows - 1 - torch.arange(most, dtype=torch.float64)))
    sums = torch.cat([terms.new_zeros(1), terms.cumsum(0)]).to(first.device)
    return 0.5 * (sums[first] + sums[second] - sums[first + second])


def _run(name: Estimator, truth: Tensor, code: Tensor, seeds: Tensor) -> Tensor:
    """Run an estimator: nats [M]."""
    if name == "gaussian":
        covariance = moments_of(truth, code).covariance
        kept = torch.ones(code.shape[0], code.shape[2], dtype=torch.bool, device=code.device)
        shown = gaussian_information(canonical_correlations(covariance, truth.shape[2], kept))
        first, second = ((side.amax(1) > side.amin(1)).sum(-1) for side in (truth, code))
        return shown - gaussian_bias(truth.shape[1], first, second)
    if name == "ksg":
        sides = (side[:, :KSG_ROWS].double().cpu().numpy() for side in (truth, code))
        pairs = zip(*sides, seeds.tolist(), strict=True)
        return torch.tensor([ksg(t, c, seed=seed) for t, c, seed in pairs], device=code.device)
    if name == "mine":
        return mine(truth, code, seeds)
    return infonce(truth, code, seeds, batch=min(INFONCE_BATCH, truth.shape[1] // 4))
