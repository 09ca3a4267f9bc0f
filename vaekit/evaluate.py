"""Everything that is measured of a trained stack, all models at once and in bounded memory.

The test grid is clean and exhaustive; probes between truth and code are fitted and scored on it, as
the post did. The fresh draws are noisy images of the training distribution that training never
saw; what a model recovered, its rate, its distortion and its information are measured on those.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vaekit import metrics
from vaekit.axis_scores import axis_scores, labels
from vaekit.config import SweepConfig
from vaekit.data import draw, grid_truth, intensity, render_truth
from vaekit.estimators import limit
from vaekit.fresh import estimates, fresh_draws, recovery, untrained_recovery
from vaekit.model import StackedVAE, chunks
from vaekit.probe import LinearProbe, fit_adam, fit_exact, moments_of, mse_and_r2
from vaekit_kernels import Stream
from vaekit_kernels.philox import normals

Arrays = dict[str, npt.NDArray[np.generic]]

# The step field of the test grid's latent noise, which no block of draws reaches.
GRID_STEP = 2**32 - 1
EXAMPLES = 21
RECONSTRUCTIONS = 8
LATENT_VALUES = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)


def evaluate_stack(
    vae: StackedVAE,
    config: SweepConfig,
    *,
    mu: Sequence[float],
    seeds: Sequence[int],
    betas: Sequence[float],
) -> Arrays:
    """Measure every model of a stack.

    A model that is not finite gets NaN everywhere and status "diverged"; it does not disturb its
    neighbours. A collapsed model recovers 0 and holds 0 nats, whatever its probes say.

    Args:
        vae: the trained stack, model s K + k trained on stream s with beta k.
        config: the sweep.
        mu, seeds: of the S streams.
        betas: the K betas.

    Returns:
        One array [M, ...] for each per-model variable of the dataset.
    """
    device = vae.flat.device
    stream_mu = torch.tensor(mu, dtype=torch.float32, device=device)
    stream_seeds = torch.tensor(seeds, dtype=torch.int64, device=device)
    model_seeds = stream_seeds.repeat_interleave(len(betas))
    beta = torch.tensor(tuple(betas) * len(mu), dtype=torch.float32, device=device)
    finite = _finite(vae)
    vae = _with_zeros_for(vae, ~finite)
    with torch.no_grad():
        draws = fresh_draws(vae, config, stream_mu, stream_seeds, model_seeds, beta)
        finite = finite & draws.finite
        vae, draws = _with_zeros_for(vae, ~finite), draws.without(~finite)
        active = metrics.active(draws.code_variance) & finite[:, None]
        measured, whole = _grid_measures(vae, config, model_seeds, active)
        finite = finite & whole
        measured |= recovery(config, draws, active)
        if config.estimators:
            measured["information_estimate"] = estimates(config, draws, active, model_seeds)
        if config.axis_scores:
            measured["axis_score"] = axis_scores(
                vae, config, stream_mu, stream_seeds, draws.z, draws.mean, active
            )
        aggregate = moments_of(draws.mean)
    rate = draws.kl.sum(-1)
    measured |= {
        "kl": draws.kl,
        "code_variance": draws.code_variance,
        "rate": rate,
        "aggregate_kl": metrics.aggregate_kl(
            aggregate.mean, aggregate.covariance + torch.diag_embed(draws.variance)
        ),
        "distortion": draws.distortion,
        "elbo": -(draws.distortion + rate),
        "objective": draws.distortion + beta.double() * rate,
    }
    arrays: Arrays = {}
    for name, values in measured.items():
        values[~finite] = torch.nan
        arrays[name] = values.cpu().numpy()
    units = torch.where(finite, active.sum(-1), 0)
    arrays["active_units"] = units.cpu().numpy()
    # As wide as the longest status, whatever this stack holds: numpy cuts what does not fit.
    arrays["status"] = np.array(metrics.status(units, finite), dtype="U9")
    return arrays


def names_of_columns(config: SweepConfig) -> Arrays:
    """Name the columns of the measures that a configuration asks for, with the estimators' limits.

    Returns:
        estimator and information_limit [E] and axis_metric [C]; nothing that is not asked for.
    """
    found: Arrays = {}
    if config.estimators:
        columns = config.factors + config.latents
        limits = [limit(name, config.evaluation_draws, columns) for name in config.estimators]
        found |= {"estimator": np.array(config.estimators), "information_limit": np.array(limits)}
    if config.axis_scores:
        found["axis_metric"] = np.array(labels(config.axis_scores))
    return found


def evaluate_baseline(config: SweepConfig, device: torch.device) -> Arrays:
    """Measure untrained networks, one for each baseline seed: what needs no training to be there.

    Returns:
        baseline_probe_mse and baseline_probe_r2 [baseline_seed, direction, fit] on the test grid,
        and baseline_recovery_r2 [mu, baseline_seed] on the first fresh noisy draws, all latents
        counted: as many as `recovery_r2_few` has of a trained model.
    """
    seeds = torch.arange(config.baseline_seeds, dtype=torch.int64, device=device)
    shape = (config.baseline_seeds, 2, 2)
    if not config.baseline_seeds:
        empty: Arrays = {
            name: np.empty(shape) for name in ("baseline_probe_mse", "baseline_probe_r2")
        }
        return empty | {"baseline_recovery_r2": np.empty((len(config.mu), 0))}
    with torch.no_grad():
        vae = StackedVAE.initial(config, seeds)
        truth = grid_truth(config).to(device)
        code = _grid_codes(vae, config, truth, seeds)
        _, mse, r2 = _probes(truth, code, seeds)
        untrained = torch.stack([untrained_recovery(vae, config, mu, seeds) for mu in config.mu])
    return {
        "baseline_probe_mse": mse.cpu().numpy(),
        "baseline_probe_r2": r2.cpu().numpy(),
        "baseline_recovery_r2": untrained.cpu().numpy(),
    }


def example_images(config: SweepConfig) -> Arrays:
    """Draw the images that the figures show: training images clean and noisy, test images.

    The test images shown are spread evenly over the grid's enumeration.
    """
    mu = torch.tensor(config.mu, dtype=torch.float32)
    seeds = torch.full((len(mu),), config.first_seed, dtype=torch.int64)
    noisy, z = draw(config, mu, seeds, 1, batch=EXAMPLES)
    truth = grid_truth(config)
    shown = truth[torch.linspace(0, len(truth) - 1, min(EXAMPLES, len(truth))).long()]
    shown = shown[torch.arange(EXAMPLES) % len(shown)]
    return {
        "example_clean": as_pictures(config, render_truth(config, intensity(config, z))),
        "example_noisy": as_pictures(config, noisy),
        "example_test": as_pictures(config, render_truth(config, shown)),
        "latent_value": np.array(LATENT_VALUES),
    }


def reconstruction_inputs(config: SweepConfig) -> Tensor:
    """Fresh noisy images that reconstructions are shown of, for the first seed: [mu, R, P]."""
    mu = torch.tensor(config.mu, dtype=torch.float32)
    seeds = torch.full((len(mu),), config.first_seed, dtype=torch.int64)
    return draw(config, mu, seeds, 0, batch=RECONSTRUCTIONS, purpose="evaluate")[0]


def model_pictures(vae: StackedVAE, config: SweepConfig, images: Tensor) -> Arrays:
    """Draw what every model of a stack makes of images, and of moving one latent at a time.

    Args:
        vae: M models.
        config: the sweep.
        images: to reconstruct, [R, P] for all models, or [M, R, P].

    Returns:
        reconstruction [M, R, row, col], and traversal [M, L, V, row, col] with one latent at each
        of `LATENT_VALUES` and the others at 0.
    """
    latents = config.latents
    values = torch.tensor(LATENT_VALUES, device=vae.flat.device)
    z = torch.zeros(latents, len(values), latents, device=vae.flat.device)
    z[torch.arange(latents), :, torch.arange(latents)] = values
    with torch.no_grad():
        reconstruction = vae.decode(vae.encode(images)[0].contiguous())
        moved = vae.decode(z.flatten(0, 1).expand(vae.models, -1, -1))
    return {
        "reconstruction": as_pictures(config, reconstruction),
        "traversal": as_pictures(config, moved.unflatten(1, (latents, len(values)))),
    }


def as_pictures(config: SweepConfig, images: Tensor) -> npt.NDArray[np.generic]:
    """Fold pixels [..., P] into pictures [..., row, col]."""
    return images.unflatten(-1, (config.image_side, config.image_side)).cpu().numpy()


def _finite(vae: StackedVAE) -> Tensor:
    """Which models have only finite parameters, [M]."""
    pieces = [torch.isfinite(piece).flatten(1).all(1) for layer in vae.layers for piece in layer]
    return torch.stack(pieces).all(0)


def _with_zeros_for(vae: StackedVAE, bad: Tensor) -> StackedVAE:
    """Copy a stack with the bad models zeroed: LAPACK refuses a batch that holds one NaN."""
    if not bad.any():
        return vae
    copy = StackedVAE(vae.architecture, vae.flat.clone())
    for layer in copy.layers:
        for piece in layer:
            piece[bad] = 0.0
    return copy


def _grid_codes(vae: StackedVAE, config: SweepConfig, truth: Tensor, seeds: Tensor) -> Tensor:
    """Codes of the clean test grid, [M, T, L]."""
    code = torch.empty(vae.models, len(truth), config.latents, device=truth.device)
    code_std = torch.empty_like(code)
    for rows in chunks(len(truth), vae, config):
        mean, logvar = vae.encode(render_truth(config, truth[rows]))
        code[:, rows] = mean
        code_std[:, rows] = torch.exp(0.5 * logvar)
    if config.code == "sample":
        # Drawn at once and not chunk by chunk, which would tie the draw to the chunk's size.
        ids = torch.zeros_like(seeds)
        code += code_std * normals(
            seeds, ids, GRID_STEP, Stream.EVALUATION_LATENT, len(truth), config.latents
        )
    return code


def _probes(truth: Tensor, code: Tensor, seeds: Tensor) -> tuple[list[LinearProbe], Tensor, Tensor]:
    """Fit and score all four probes.

    Returns:
        The truth -> code probes (exact, adam), and mse and r2 [M, direction, fit].
    """
    forward: list[LinearProbe] = []
    scores: list[list[tuple[Tensor, Tensor]]] = []
    for inputs, targets in ((truth, code), (code, truth)):
        probes = [fit_exact(inputs, targets), fit_adam(inputs, targets, seeds)]
        forward = forward or probes
        scores.append([mse_and_r2(probe, inputs, targets) for probe in probes])
    mse, r2 = (
        torch.stack([torch.stack([pair[part] for pair in row], -1) for row in scores], -2)
        for part in (0, 1)
    )
    return forward, mse, r2


def _grid_measures(
    vae: StackedVAE, config: SweepConfig, seeds: Tensor, active: Tensor
) -> tuple[dict[str, Tensor], Tensor]:
    """Measure the probes and what the decoder makes of them on the clean test grid.

    Returns:
        The measures, and which models have finite codes there, bool [M].
    """
    truth = grid_truth(config).to(vae.flat.device)
    code = _grid_codes(vae, config, truth, seeds)
    # The grid is far from what a model was trained on, so a code may overflow here alone.
    whole = torch.isfinite(code).flatten(1).all(1)
    code[~whole] = 0.0
    forward, mse, r2 = _probes(truth, code, seeds)

    sums = torch.zeros(3, vae.models, dtype=torch.float64, device=truth.device)
    for rows in chunks(len(truth), vae, config):
        image = render_truth(config, truth[rows])
        latents = [probe(truth[rows]) for probe in forward] + [code[:, rows].contiguous()]
        for index, z in enumerate(latents):
            sums[index] += (vae.decode(z) - image).square().double().sum(dim=(1, 2))
    decode = sums / (len(truth) * config.pixels)

    kept = code * active[:, None]
    _, recovered = mse_and_r2(fit_exact(kept, truth), kept, truth)
    measured = {
        "probe_mse": mse,
        "probe_r2": r2,
        "decode_mse": decode[:2].T.contiguous(),
        "reconstruction_mse": decode[2],
        "grid_recovery_r2": torch.where(active.any(-1), recovered, 0.0),
    }
    return measured, whole
