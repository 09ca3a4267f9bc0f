"""What a stack makes of fresh noisy images of the training distribution: codes, terms, recovery."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vaekit import metrics
from vaekit.config import SweepConfig
from vaekit.data import draw, intensity
from vaekit.estimators import estimate
from vaekit.model import StackedVAE, chunks, mlp
from vaekit.probe import fit_exact, moments_of, mse_and_r2
from vaekit_kernels import Stream, float_ids, pixel_nll
from vaekit_kernels.philox import normals

# Draws come in blocks of this many rows, block i from step i: part of what the draws are.
DRAW_ROWS = 1024
# Draws that untrained networks are measured on at every mu, and what is compared with them: all
# draws of twenty networks would take as long as training a small sweep, and a probe that is fitted
# on fewer scores less, so both sides of a comparison have these.
BASELINE_DRAWS = 2048


@dataclass(frozen=True)
class Draws:
    """What the fresh draws of a stack came to: z [S, N, F], code and mean [M, N, L], means over N.

    `mean` is the posterior's mean, `code` what the probes read: it, or a sample.
    """

    z: Tensor
    code: Tensor
    mean: Tensor
    variance: Tensor
    kl: Tensor
    code_variance: Tensor
    distortion: Tensor

    @property
    def finite(self) -> Tensor:
        """Which models gave numbers throughout, bool [M]."""
        parts = (self.code, self.kl, self.code_variance)
        return torch.stack([torch.isfinite(part).flatten(1).all(1) for part in parts]).all(0)

    def without(self, bad: Tensor) -> Draws:
        """Replace the codes of bad models by 0: LAPACK refuses a batch that holds one infinity."""
        code, mean = (torch.where(bad[:, None, None], 0.0, part) for part in (self.code, self.mean))
        return replace(self, code=code, mean=mean)


def fresh_draws(
    vae: StackedVAE,
    config: SweepConfig,
    mu: Tensor,
    stream_seeds: Tensor,
    seeds: Tensor,
    beta: Tensor,
) -> Draws:
    """Encode and decode `config.evaluation_draws` fresh noisy images of every stream."""
    streams, models, count = len(mu), vae.models, config.evaluation_draws
    # Filled block by block: small tensors that are kept among large ones that are freed would leave
    # holes in the heap, of many times their size.
    z = torch.empty(streams, count, config.factors, device=mu.device)
    mean = torch.empty(models, count, config.latents, device=mu.device)
    code = torch.empty_like(mean) if config.code == "sample" else mean
    kl = torch.zeros(models, config.latents, dtype=torch.float64, device=mu.device)
    variance = torch.zeros_like(kl)
    distortion = torch.zeros(models, dtype=torch.float64, device=mu.device)
    for index, first in enumerate(range(0, count, DRAW_ROWS)):
        rows = min(DRAW_ROWS, count - first)
        images, truth = draw(config, mu, stream_seeds, index, batch=rows, purpose="evaluate")
        z[:, first : first + rows] = truth
        noise = normals(
            seeds, float_ids(beta), index, Stream.EVALUATION_LATENT, rows, config.latents
        )
        for part in chunks(rows, vae, config):
            x = images[:, None, part].expand(streams, models // streams, -1, -1).flatten(0, 1)
            centre, logvar = vae.encode(x)
            sample = centre + torch.exp(0.5 * logvar) * noise[:, part]
            kept = slice(first + part.start, first + part.stop)
            mean[:, kept] = centre
            if code is not mean:
                code[:, kept] = sample
            variance += logvar.double().exp().sum(dim=1)
            kl += metrics.kl_per_latent(centre.double(), logvar.double()).sum(dim=1)
            distortion += (
                pixel_nll(
                    mlp(vae.decoder, sample),
                    images[:, part].contiguous(),
                    likelihood=config.likelihood,
                    decoder_variance=config.decoder_variance,
                    linear=config.decoder_output == "linear",
                )
                .double()
                .sum(dim=1)
            )
    return Draws(
        z=z,
        code=code,
        mean=mean,
        variance=variance / count,
        kl=kl / count,
        # Of the mean, whatever the probes read: a sample of a dead latent varies by 1.
        code_variance=mean.double().var(dim=1, unbiased=False),
        distortion=distortion / count,
    )


def recovery(config: SweepConfig, draws: Draws, active: Tensor) -> dict[str, Tensor]:
    """Measure how much of the truth the active latents of fresh draws hold."""
    models, streams = draws.code.shape[0], draws.z.shape[0]
    z = draws.z[:, None].expand(streams, models // streams, -1, -1).flatten(0, 1)
    truth = intensity(config, z)
    kept = draws.code * active[:, None]
    recovered = {
        name: torch.where(active.any(-1), _held_out_r2(kept[:, :rows], truth[:, :rows]), 0.0)
        for name, rows in (("recovery_r2", kept.shape[1]), ("recovery_r2_few", BASELINE_DRAWS))
    }
    moments = moments_of(z, draws.code)
    correlations = metrics.canonical_correlations(moments.covariance, config.factors, active)
    padded = correlations.new_zeros(models, config.latents)
    padded[:, : correlations.shape[1]] = correlations
    return {
        **recovered,
        "canonical_correlation": padded,
        "information": metrics.gaussian_information(correlations),
    }


def estimates(config: SweepConfig, draws: Draws, active: Tensor, seeds: Tensor) -> Tensor:
    """Information of truth and active latents by every estimator asked for, [M, E]."""
    models, streams = draws.code.shape[0], draws.z.shape[0]
    z = draws.z[:, None].expand(streams, models // streams, -1, -1).flatten(0, 1)
    kept = draws.code * active[:, None]
    found = [estimate(name, z, kept, seeds).nats for name in config.estimators]
    return torch.stack(found, dim=-1)


def untrained_recovery(vae: StackedVAE, config: SweepConfig, mu: float, seeds: Tensor) -> Tensor:
    """R2 code -> truth of untrained networks on the first fresh noisy draws of one mu, [M]."""
    device = vae.flat.device
    stream = torch.tensor([mu], device=device), torch.tensor([config.first_seed], device=device)
    truths, codes = [], []
    for index in range(0, min(BASELINE_DRAWS, config.evaluation_draws), DRAW_ROWS):
        rows, block = min(DRAW_ROWS, config.evaluation_draws - index), index // DRAW_ROWS
        images, z = draw(config, *stream, block, batch=rows, purpose="evaluate")
        code, logvar = vae.encode(images[0])
        if config.code == "sample":
            ids = torch.zeros_like(seeds)
            code = code + torch.exp(0.5 * logvar) * normals(
                seeds, ids, block, Stream.EVALUATION_LATENT, rows, config.latents
            )
        truths.append(intensity(config, z[0]))
        codes.append(code)
    return _held_out_r2(torch.cat(codes, dim=1), torch.cat(truths).expand(vae.models, -1, -1))


def _held_out_r2(code: Tensor, truth: Tensor) -> Tensor:
    """R2 code -> truth of a probe fitted on the first half of the draws, on the second: [M]."""
    half = code.shape[1] // 2
    probe = fit_exact(code[:, :half], truth[:, :half])
    return mse_and_r2(probe, code[:, half:], truth[:, half:])[1]
