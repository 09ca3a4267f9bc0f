"""Estimators of the information between truth and code, in nats, all called alike.

    gaussian  from canonical correlations: exact for Gaussian pairs, else a lower bound where the
              truth is Gaussian
    ksg       from distances to nearest neighbours; no model, but it starves in many dimensions
    mine      a trained critic and the Donsker-Varadhan bound
    infonce   a trained critic that picks the right code out of a batch

What N draws can prove without assumptions grows as ln N alone: the Donsker-Varadhan bound proves no
more than ln N, KSG never gives more than psi(N) - psi(k + 1), and InfoNCE no more than ln of its
batch. `Estimate.limit` lies a nat below that, and `Estimate.supported` says whether an estimate
stays below the limit: one that does not is no evidence. `reports/estimators/` holds their bias and
error on channels whose information is known.

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
from vaekit.estimators.neighbours import ksg, largest
from vaekit.metrics import canonical_correlations, gaussian_information
from vaekit.probe import moments_of

ESTIMATORS: tuple[Estimator, ...] = get_args(Estimator)
# Bounds bend before they saturate: what is less than this below the limit is at best "at least".
MARGIN = 1.0
# A search for neighbours is quadratic in many dimensions, and more rows would help it little.
KSG_ROWS = 4096


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
    return Estimate(torch.where(varies, nats, 0.0), limit(name, rows))


def limit(name: Estimator, rows: int) -> float:
    """Nats that an estimator can support from `rows` draws: the most it can show less `MARGIN`.

    That is ln N for MINE and InfoNCE, of the quarter that MINE is scored on and of InfoNCE's batch,
    and psi(N) - psi(k + 1) for the rows that KSG uses. The Gaussian measure assumes a family and
    has no limit.
    """
    most = {
        "gaussian": math.inf,
        "ksg": largest(min(rows, KSG_ROWS)),
        "mine": math.log(rows // 4),
        "infonce": math.log(min(INFONCE_BATCH, rows // 4)),
    }
    return most[name] - MARGIN


def _run(name: Estimator, truth: Tensor, code: Tensor, seeds: Tensor) -> Tensor:
    """Run an estimator: nats [M]."""
    if name == "gaussian":
        covariance = moments_of(truth, code).covariance
        kept = torch.ones(code.shape[0], code.shape[2], dtype=torch.bool, device=code.device)
        return gaussian_information(canonical_correlations(covariance, truth.shape[2], kept))
    if name == "ksg":
        sides = (side[:, :KSG_ROWS].double().cpu().numpy() for side in (truth, code))
        pairs = zip(*sides, seeds.tolist(), strict=True)
        return torch.tensor([ksg(t, c, seed=seed) for t, c, seed in pairs], device=code.device)
    if name == "mine":
        return mine(truth, code, seeds)
    return infonce(truth, code, seeds, batch=min(INFONCE_BATCH, truth.shape[1] // 4))
