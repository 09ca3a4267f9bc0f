"""A plausible dataset of any sweep, made from closed forms and no training.

The numbers follow the linear theory (methods of the linear beta-VAE), with collapse coming earlier
than theory says as it does in training, and with one diverged cell if the sweep has room for it.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import xarray as xr

from vaekit import results
from vaekit.config import SweepConfig

EXAMPLES = 21
RECONSTRUCTIONS = 6
LATENT_VALUES = np.linspace(-3.0, 3.0, 7)


def small_config(**changes: Any) -> SweepConfig:
    """A sweep of 4 mu and 3 beta, small in every other way."""
    fields: dict[str, Any] = {
        "mu": (0.0, 1.0, 2.5, 5.0),
        "beta": (0.5, 2.0, 8.0),
        "steps": 300,
        "curve_points": 30,
        "baseline_seeds": 5,
    }
    return SweepConfig(**{**fields, **changes})


def signal_variance(config: SweepConfig) -> np.ndarray:
    """Variance of a tile's intensity times its pixels, per mu, by Gauss-Hermite quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    weights = weights / weights.sum()
    values = np.array(config.mu)[:, None] + nodes
    intensity = values if config.generator == "linear" else 1 / (1 + np.exp(-values))
    mean = intensity @ weights
    return config.tile**2 * ((intensity - mean[:, None]) ** 2 @ weights)


def synthetic_arrays(config: SweepConfig, seed: int = 0) -> dict[str, np.ndarray]:
    """The arrays that `results.build` takes, one for each variable of the schema."""
    rng = np.random.default_rng(seed)
    latents, factors, side = config.latents, config.factors, config.image_side
    cell = (len(config.mu), len(config.beta), config.seeds)
    noise, variance = max(config.noise_variance, 1e-3), config.decoder_variance
    signal = signal_variance(config)[:, None, None]
    eigenvalue = signal + noise
    critical = (eigenvalue / variance)[:, 0, 0]
    water = np.array(config.beta)[None, :, None] * variance
    jitter = rng.normal(1.0, 0.03, cell)

    # Units die one after another between 0.25 and 0.5 of the theory's boundary.
    share = np.array(config.beta)[None, :, None] / critical[:, None, None]
    alive = np.clip((0.5 - share * jitter) / 0.25, 0, 1)
    active = np.round(alive * min(latents, factors)).astype(int)
    is_active = np.arange(latents) < active[..., None]
    diverged = np.zeros(cell, dtype=bool)
    if cell[0] > 1 and cell[1] > 1:
        diverged[-1, 0, 0] = True
    status = np.where(diverged, "diverged", np.where(active == 0, "collapsed", "ok"))

    kept = np.clip(1 - water / eigenvalue, 0, 1)
    r2_unit = signal / eigenvalue * np.ones(cell)
    fraction = active / factors
    recovery = fraction * r2_unit * np.clip(jitter, 0.9, 1.0)
    grid_recovery = fraction * (1 - 0.1 * (1 - r2_unit))
    truth_variance = float(np.var(config.test_levels))
    kl = np.where(
        is_active,
        0.5 * np.log(np.maximum(eigenvalue / np.maximum(water, 0.01), 1.01))[..., None],
        0.0,
    )
    kl = kl * rng.uniform(0.9, 1.1, kl.shape)
    code_variance = np.where(is_active, kept[..., None], 1e-4)
    rate = kl.sum(axis=-1)
    floor = 0.5 * config.pixels * (np.log(2 * np.pi * variance) + noise / variance)
    distortion = floor + 0.5 * (factors - active) * signal / variance * np.ones(cell)
    correlation = np.where(is_active, np.sqrt(r2_unit)[..., None], 0.02)
    correlation = correlation * (np.arange(latents) < min(latents, factors))
    information = -0.5 * np.log1p(-(correlation**2)).sum(axis=-1)
    ceiling = factors * 0.5 * np.log1p(signal[:, 0, 0] / noise)

    code_mse = active / latents * 0.05 * kept
    mse = np.empty((*cell, 2, 2))
    mse[..., 0, 0] = code_mse * 0.1 + 1e-5
    mse[..., 0, 1] = code_mse * 3 + 1e-4
    mse[..., 1, 0] = truth_variance * (1 - grid_recovery)
    mse[..., 1, 1] = truth_variance * (1 - 0.6 * grid_recovery) + 0.004
    r2 = np.stack([np.stack([grid_recovery, 0.6 * grid_recovery], -1)] * 2, -2)
    r2 = r2 * jitter[..., None, None].clip(0.9, 1.0)

    level = 1 / (1 + np.exp(-np.array(config.mu)))
    constant = truth_variance + (level - np.mean(config.test_levels)) ** 2
    decode_exact = constant[:, None, None] * (1 - 0.98 * grid_recovery)
    decode = np.stack([decode_exact, 0.4 * constant[:, None, None] + 0.6 * decode_exact], -1)

    steps = np.array(
        [config.steps * (i + 1) // curve_points(config) for i in range(curve_points(config))]
    )
    decay = np.exp(-6 * steps / config.steps)
    wobble = rng.normal(0, 0.4, (*cell, len(steps)))
    nll = distortion[..., None] + 20 * decay + wobble
    kl_curve = rate[..., None] * (1 - decay)
    loss = nll + np.array(config.beta)[None, :, None, None] * kl_curve

    truth = rng.normal(np.array(config.mu)[:, None, None], 1.0, (len(config.mu), EXAMPLES, factors))
    intensity = truth if config.generator == "linear" else 1 / (1 + np.exp(-truth))
    clean = pictures(intensity, config)
    noisy = clean + rng.normal(0, config.noise_variance**0.5, clean.shape)
    levels = rng.choice(config.test_levels, (EXAMPLES, factors))
    inputs = clean[:, :RECONSTRUCTIONS]
    mean_image = level[:, None, None, None, None] * np.ones((1, 1, 1, side, side))
    weight = grid_recovery[:, :, 0, None, None, None]
    moved = (
        np.zeros((*cell[:2], latents, len(LATENT_VALUES), factors))
        + level[:, None, None, None, None]
    )
    for latent in range(latents):
        swing = 0.4 * np.tanh(LATENT_VALUES / 2) * is_active[:, :, 0, latent, None]
        moved[:, :, latent, :, latent % factors] += swing

    arrays = {
        "probe_mse": mse,
        "probe_r2": r2,
        "decode_mse": decode,
        "decode_mse_constant": constant,
        "reconstruction_mse": decode_exact * 0.9,
        "grid_recovery_r2": grid_recovery,
        "recovery_r2": recovery,
        "active_units": active,
        "rate": rate,
        "distortion": distortion,
        "elbo": -distortion - rate,
        "objective": distortion + np.array(config.beta)[None, :, None] * rate,
        "kl": kl,
        "code_variance": code_variance,
        "canonical_correlation": correlation,
        "information": information,
        "information_ceiling": ceiling,
        "critical_beta": critical,
        "status": status,
        "diverged_at": np.where(diverged, 7, 0),
        "loss_curve": loss,
        "kl_curve": kl_curve,
        "nll_curve": nll,
        "baseline_probe_mse": np.array([[0.0001, 0.005], [0.038, 0.114]])
        * rng.normal(1.0, 0.05, (config.baseline_seeds, 1, 1)),
        "baseline_probe_r2": np.array([[0.99, 0.6], [0.64, -0.07]])
        * rng.normal(1.0, 0.005, (config.baseline_seeds, 1, 1)),
        "example_clean": clean,
        "example_noisy": noisy,
        "example_test": pictures(levels, config),
        "reconstruction_input": inputs,
        "reconstruction": weight * inputs[:, None] + (1 - weight) * mean_image,
        "traversal": pictures(moved, config),
        "latent_value": LATENT_VALUES,
        "step": steps,
    }
    measured = [
        name
        for name, variable in results.SCHEMA.items()
        if variable.dims[:3] == ("mu", "beta", "seed")
    ]
    for name in measured:
        if arrays[name].dtype.kind == "f":
            arrays[name] = np.where(
                diverged.reshape(*cell, *[1] * (arrays[name].ndim - 3)), np.nan, arrays[name]
            )
    arrays["active_units"] = np.where(diverged, 0, arrays["active_units"])
    arrays["reconstruction"][diverged[..., 0]] = np.nan
    arrays["traversal"][diverged[..., 0]] = np.nan
    return arrays


def synthetic_dataset(config: SweepConfig, seed: int = 0) -> xr.Dataset:
    """A full dataset of a sweep that nobody trained."""
    attrs = {
        "command": "vaekit sweep --config synthetic.toml",
        "created": "2026-01-01T00:00:00+00:00",
        "device": "no device",
        "engine": "synthetic",
        "products": "none",
        "seconds": json.dumps({"train": 12.5, "measure": 3.25, "baseline": 0.5}),
        "seconds_total": 16.25,
        "stack": 11,
        "threads": 1,
        "vaekit_version": "0",
        "versions": json.dumps({"python": "3", "numpy": np.__version__}),
    }
    return results.build(config, synthetic_arrays(config, seed), attrs)


def curve_points(config: SweepConfig) -> int:
    """Points of each curve: no more than there are steps."""
    return min(config.curve_points, config.steps)


def pictures(intensity: np.ndarray, config: SweepConfig) -> np.ndarray:
    """Tile intensities [..., F] as images [..., side, side]."""
    grid = intensity.reshape(*intensity.shape[:-1], config.grid, config.grid)
    return grid.repeat(config.tile, axis=-2).repeat(config.tile, axis=-1)
