"""Scores of whether single latents follow single truths. All of them depend on the axes.

On the grid all tiles are alike, so the directions that a beta-VAE takes within their block are
chance: a code that holds everything, turned by a rotation, scores low, and what a sweep shows in
these scores is the noise of its seeds. They are measured only when asked for, and named so that
nobody takes them for recovery, which no rotation changes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vaekit.config import AxisScore, SweepConfig
from vaekit.data import intensity, render_truth
from vaekit.estimators.neighbours import NOISE, ksg
from vaekit.model import StackedVAE
from vaekit.theory import information_ceiling
from vaekit_kernels import float_ids

Array = npt.NDArray[np.float64]
# What each is called in the dataset, one name for each number.
LABELS: dict[AxisScore, tuple[str, ...]] = {
    "mig": ("mig",),
    "sap": ("sap",),
    "dci": ("dci_disentanglement", "dci_completeness"),
    "higgins": ("higgins",),
    "factorvae": ("factorvae",),
}
# Information of single pairs needs no more, and there are latents x factors of them.
MIG_ROWS = 1000
# Standard errors below which the information of a pair is none: at large mu an image holds less
# than KSG errs by, and a gap of noise over such a ceiling would be the score of a perfect code.
MIG_ERRORS = 4.0
DCI_ROWS = 4096
# Standard errors of a correlation that the lasso's penalty takes off each weight, on columns of
# variance 1, so that noise gets no weights, whose shares would look disentangled.
DCI_ERRORS = 3.0
# Interventions: so many batches, each with one truth held, two thirds of them to learn from.
VOTES = 450
BATCH = 64


def labels(names: tuple[AxisScore, ...]) -> tuple[str, ...]:
    """Names of the numbers that some scores give, in order."""
    return tuple(label for name in names for label in LABELS[name])


def axis_scores(
    vae: StackedVAE,
    config: SweepConfig,
    mu: Tensor,
    stream_seeds: Tensor,
    z: Tensor,
    code: Tensor,
    active: Tensor,
) -> Tensor:
    """Score every model of a stack by `config.axis_scores`.

    Inactive latents do not count; a model without an active one scores 0.

    Args:
        vae: M models.
        config: which scores, and the data.
        mu, stream_seeds: [S], of the streams.
        z: [S, N, F], truths of fresh noisy draws.
        code: [M, N, L], means of their posteriors.
        active: bool [M, L].

    Returns:
        [M, C], columns as `labels(config.axis_scores)`.
    """
    betas = vae.models // len(mu)
    factor, batches = np.empty(0, dtype=np.int64), np.empty(0)
    if {"higgins", "factorvae"} & set(config.axis_scores):
        factor, batches = _interventions(vae, config, mu, stream_seeds)
    ceilings = (
        [_ceiling(config, float(value)) for value in mu] if "mig" in config.axis_scores else []
    )
    found = np.zeros((vae.models, len(labels(config.axis_scores))))
    for model in np.flatnonzero(active.any(dim=-1).cpu().numpy()).tolist():
        kept, stream = active[model].cpu().numpy(), model // betas
        truth = z[stream].double().cpu().numpy()
        latent = code[model].double().cpu().numpy()[:, kept]
        values: list[float] = []
        for name in config.axis_scores:
            if name == "mig":
                values.append(mig(truth, latent, ceilings[stream]))
            elif name == "sap":
                values.append(sap(truth, latent))
            elif name == "dci":
                values += dci(truth, latent, config.latents)
            elif name == "higgins":
                values.append(higgins(batches[model][..., kept], factor[stream]))
            else:
                values.append(factorvae(batches[model][..., kept], factor[stream]))
        found[model] = values
    return torch.tensor(found, device=code.device)


def _ceiling(config: SweepConfig, mu: float) -> float:
    """Nats that an image holds about one of its truths."""
    return information_ceiling(
        mu,
        factors=1,
        tile=config.tile,
        noise_variance=config.noise_variance,
        generator=config.generator,
    )


def mig(truth: Array, code: Array, ceiling: float) -> float:
    """Mutual information gap for continuous truths.

        mean_k [ I(z_k; best latent) - I(z_k; second best) ] / I(z_k; x)

    The entropy of Chen et al.'s discrete factors is replaced by the information in the image, which
    no latent exceeds; the information of a pair is KSG's, on the first `MIG_ROWS` rows, and 0 where
    it is within `MIG_ERRORS` standard errors of none.

    Args:
        truth: [N, F].
        code: [N, L], varying columns.
        ceiling: nats that the image holds about one truth; none or infinitely many give 0.

    Source: Chen et al. 2018, arXiv:1802.04942, equation 6.
    """
    if not ceiling > 0:
        return 0.0
    truth, code = truth[:MIG_ROWS], code[:MIG_ROWS]
    found = np.array([[ksg(t[:, None], c[:, None]) for c in code.T] for t in truth.T])
    found[found < MIG_ERRORS * NOISE / len(truth) ** 0.5] = 0.0
    return float((_gap(np.minimum(found, ceiling)) / ceiling).mean())


def sap(truth: Array, code: Array) -> float:
    """Separated attribute predictability: mean gap of the two best squared correlations.

    Args:
        truth: [N, F].
        code: [N, L], varying columns.

    Source: Kumar et al. 2018, arXiv:1711.00848, section 3.
    """
    factors = truth.shape[1]
    correlation = np.corrcoef(truth.T, code.T)[:factors, factors:]
    return float(_gap(np.square(correlation)).mean())


def dci(truth: Array, code: Array, latents: int) -> tuple[float, float]:
    """Disentanglement and completeness of the lasso's weights R [L, F] from code to truth.

        D = sum_l w_l (1 - H_F(R_l / sum R_l)),  C = sum_k w_k (1 - H_L(R_k / sum R_k))

    H_F and H_L are entropies to the base of the truths and of all latents; the weights w are shares
    of all of R. The third of the three, informativeness, needs no axes: it is the recovery.

    Args:
        truth: [N, F].
        code: [N, K], varying columns.
        latents: L; those that do not vary are no columns of the code.

    Returns:
        D and C; 0 and 0 if no weight is left.

    Source: Eastwood and Williams 2018, ICLR, "A framework for the quantitative evaluation of
    disentangled representations", section 2.
    """
    # Late, here and below: it takes seconds to load, and most runs never ask for it.
    from sklearn.linear_model import Lasso

    truth, code = (
        (side - side.mean(axis=0)) / side.std(axis=0)
        for side in (truth[:DCI_ROWS], code[:DCI_ROWS])
    )
    lasso = Lasso(alpha=DCI_ERRORS / len(truth) ** 0.5).fit(code, truth)
    weights = np.abs(np.atleast_2d(lasso.coef_)).T
    if not weights.sum() > 0:
        return 0.0, 0.0
    return _concentration(weights, truth.shape[1]), _concentration(weights.T, latents)


def higgins(batches: Array, factor: npt.NDArray[np.int64]) -> float:
    """Accuracy of a linear classifier that says which truth a batch's pairs have in common.

    It sees the mean absolute difference of the two halves of a batch; 1 / F is chance, which a
    single truth makes 1.

    Args:
        batches: [V, B, L], codes of images that share one truth.
        factor: [V], which one.

    Source: Higgins et al. 2017, ICLR, "beta-VAE", section 3 (there a truth is shared by a pair,
    here by its batch).
    """
    from sklearn.linear_model import LogisticRegression

    # There is one truth alone, and a classifier asks for two.
    if not factor.any():
        return 1.0
    half = batches.shape[1] // 2
    seen = np.abs(batches[:, :half] - batches[:, half : 2 * half]).mean(axis=1)
    cut = 2 * len(factor) // 3
    seen /= np.maximum(seen[:cut].std(axis=0), np.finfo(float).tiny)
    classifier = LogisticRegression(max_iter=2000).fit(seen[:cut], factor[:cut])
    return float(classifier.score(seen[cut:], factor[cut:]))


def factorvae(batches: Array, factor: npt.NDArray[np.int64]) -> float:
    """Accuracy of the majority vote of the latent that varies least while a truth is held.

    Args:
        batches: [V, B, L], codes of images that share one truth.
        factor: [V], which one.

    Source: Kim and Mnih 2018, arXiv:1802.05983, section 4.
    """
    spread = batches.reshape(-1, batches.shape[2]).var(axis=0)
    vote = (batches.var(axis=1) / np.maximum(spread, np.finfo(float).tiny)).argmin(axis=1)
    cut = 2 * len(factor) // 3
    table = np.zeros((batches.shape[2], factor.max() + 1))
    np.add.at(table, (vote[:cut], factor[:cut]), 1)
    return float((table.argmax(axis=1)[vote[cut:]] == factor[cut:]).mean())


def _gap(scores: Array) -> Array:
    """Best minus second best of each row; a single column has no second."""
    ordered = np.sort(scores, axis=1)
    return ordered[:, -1] - (ordered[:, -2] if scores.shape[1] > 1 else 0.0)


def _concentration(weights: Array, base: int) -> float:
    """Average of 1 - entropy of the rows to a base, by the rows' share of all weights."""
    total = weights.sum(axis=1, keepdims=True)
    share = weights / np.maximum(total, np.finfo(float).tiny)
    logarithm = np.log(np.where(share > 0, share, 1.0))
    entropy = -(share * logarithm).sum(axis=1) / np.log(max(base, 2))
    return float((total[:, 0] / total.sum()) @ (1.0 - entropy))


def _interventions(
    vae: StackedVAE, config: SweepConfig, mu: Tensor, stream_seeds: Tensor
) -> tuple[npt.NDArray[np.int64], Array]:
    """Encode batches of noisy images that share one truth.

    Returns:
        which truth [S, V], and the codes' means [M, V, B, L].
    """
    streams, betas = len(mu), vae.models // len(mu)
    keys = zip(stream_seeds.tolist(), float_ids(mu).tolist(), mu.tolist(), strict=True)
    parts = [_held(config, np.random.default_rng(key[:2]), key[2]) for key in keys]
    factor = np.stack([held for held, _ in parts])
    codes = np.empty((vae.models, VOTES, BATCH, config.latents))
    drawn = [images for _, images in parts]
    for vote in range(0, VOTES, 10):
        x = torch.cat([next(images) for images in drawn]).to(vae.flat.device)
        x = x[:, None].expand(streams, betas, -1, -1).flatten(0, 1)
        codes[:, vote : vote + 10] = vae.encode(x)[0].unflatten(1, (10, BATCH)).cpu().numpy()
    return factor, codes


def _held(
    config: SweepConfig, rng: np.random.Generator, mu: float
) -> tuple[npt.NDArray[np.int64], Iterator[Tensor]]:
    """Choose the truths that are held, and draw the images of ten votes at a time [1, 10 B, P]."""
    factor = rng.integers(0, config.factors, VOTES)

    def images() -> Iterator[Tensor]:
        for vote in range(0, VOTES, 10):
            z = rng.normal(mu, 1.0, (10, BATCH, config.factors))
            row = np.arange(10)
            z[row, :, factor[vote : vote + 10]] = z[row, :1, factor[vote : vote + 10]]
            clean = render_truth(config, intensity(config, torch.tensor(z).float().flatten(0, 1)))
            noise = rng.normal(0.0, config.noise_variance**0.5, clean.shape)
            yield (clean + torch.tensor(noise).float())[None]

    return factor, images()
