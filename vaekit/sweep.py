"""The sweep, end to end: configuration -> trained stacks -> measures -> dataset -> report."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from vaekit import results, theory
from vaekit.config import SweepConfig
from vaekit.evaluate import (
    as_pictures,
    evaluate_baseline,
    evaluate_stack,
    example_images,
    model_pictures,
    names_of_columns,
    reconstruction_inputs,
)
from vaekit.files import write_whole
from vaekit.machine import device_name, resolve_device, threads, versions
from vaekit.model import StackedVAE
from vaekit.products import fast_products, product_library
from vaekit.progress import Progress, Silent
from vaekit.report import write_report
from vaekit.step import TorchStep
from vaekit.train import Stack, curve_steps, plan, stack_size, train


def run_sweep(
    config: SweepConfig,
    out: Path | str,
    *,
    overwrite: bool = False,
    command: str = "vaekit.run_sweep",
    progress: Progress | None = None,
) -> xr.Dataset:
    """Train and measure every model of a sweep and write the run directory.

    The directory gets config.toml (first), results.nc, figures/*.png and report.html, each file
    whole or not at all. With `overwrite`, the earlier run stays in place until the new one is done.

    Args:
        config: the sweep.
        out: the run directory; must be new or empty unless `overwrite`.
        overwrite: replace what is in `out`.
        command: how the run was started, for the record.
        progress: is told how the work goes.

    Returns:
        The dataset, as `open_results(out)` would read it.

    Raises:
        ConfigError: the device asked for is not there.
        FileExistsError: `out` holds something and `overwrite` is not set.
    """
    device = resolve_device(config.device)
    out = Path(out)
    occupied = out.exists() and (not out.is_dir() or any(out.iterdir()))
    if occupied and not overwrite:
        raise FileExistsError(
            f"out: {out} is not empty; allowed: a new or empty directory, or overwrite"
        )
    # An earlier run is replaced by a finished one only, so an interrupted overwrite loses nothing.
    work = out.with_name(f".{out.name}.new") if occupied else out
    if occupied and work.exists():
        shutil.rmtree(work)
    work.mkdir(parents=True, exist_ok=True)
    write_whole(work / "config.toml", config.to_toml())

    progress = progress or Silent()
    with threads(config.threads), fast_products(device):
        dataset = _measure(config, device, command, progress)
    progress.stage("report", 1, "page")
    results.save(dataset, work / "results.nc")
    write_report(dataset, work)
    progress.advance(1)
    if occupied:
        _replace(out, work)
    return dataset


def _replace(out: Path, work: Path) -> None:
    """Put a finished run in the place of an earlier one."""
    earlier = out.with_name(f".{out.name}.old")
    out.rename(earlier)
    work.rename(out)
    if earlier.is_dir():
        shutil.rmtree(earlier)
    else:
        earlier.unlink()


def _measure(
    config: SweepConfig, device: torch.device, command: str, progress: Progress
) -> xr.Dataset:
    """Train and measure the stacks one after another; return the dataset with its provenance."""
    seconds: dict[str, float] = {}

    @contextmanager
    def timed(stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - start

    size = stack_size(config, device)
    stacks = plan(config, size)
    models = sum(stack.models for stack in stacks)
    progress.note(
        f"{models} models ({len(config.mu)} mu x {len(config.beta)} beta x {config.seeds} seeds) "
        f"of {config.steps} steps, {stacks[0].models} at once, on {device_name(device)}"
    )
    arrays: dict[str, np.ndarray] = {}
    pictures = example_images(config) | {
        "reconstruction_input": as_pictures(config, reconstruction_inputs(config))
    }
    progress.stage("train and measure", models * config.steps, "model-steps")
    for stack in stacks:
        with timed("train"):
            vae, curves = train(config, stack, device, progress)
        with timed("measure"):
            measured = evaluate_stack(vae, config, mu=stack.mu, seeds=stack.seeds, betas=stack.beta)
            measured |= {
                "loss_curve": curves.loss.numpy(),
                "kl_curve": curves.kl.numpy(),
                "nll_curve": curves.nll.numpy(),
            }
            bad = ~torch.isfinite(curves.loss).all(dim=1).numpy()
            measured["status"] = np.where(bad, "diverged", measured["status"])
            _store(arrays, measured, config, stack)
            _store_pictures(pictures, vae, config, stack)
    progress.stage("baseline", config.baseline_seeds, "networks")
    with timed("baseline"):
        arrays |= evaluate_baseline(config, device)
        progress.advance(config.baseline_seeds)
    return results.build(
        config,
        {
            **arrays,
            **pictures,
            **_theory(config),
            **names_of_columns(config),
            "step": np.array(curve_steps(config)),
        },
        attrs={
            "command": command,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "device": device_name(device),
            "engine": TorchStep.name,
            "products": product_library(device),
            "seconds": json.dumps({stage: round(value, 3) for stage, value in seconds.items()}),
            "seconds_total": sum(seconds.values()),
            "stack": stacks[0].models,
            "threads": torch.get_num_threads(),
            "vaekit_version": versions()["vaekit"],
            "versions": json.dumps(versions()),
        },
    )


def _theory(config: SweepConfig) -> dict[str, np.ndarray]:
    """Closed forms of every mu."""
    mu, generator = np.array(config.mu), config.generator
    tile, noise = config.tile, config.noise_variance
    return {
        "critical_beta": theory.critical_beta(
            mu,
            tile=tile,
            noise_variance=noise,
            decoder_variance=config.decoder_variance,
            generator=generator,
            likelihood=config.likelihood,
        ),
        "information_ceiling": np.array(
            [
                theory.information_ceiling(
                    m,
                    factors=config.factors,
                    tile=tile,
                    noise_variance=noise,
                    generator=generator,
                )
                for m in config.mu
            ]
        ),
        "decode_mse_constant": theory.constant_predictor_mse(
            mu, config.test_levels, generator=generator
        ),
    }


def _store_pictures(
    pictures: dict[str, np.ndarray], vae: StackedVAE, config: SweepConfig, stack: Stack
) -> None:
    """Put the pictures of the first seed's models into arrays [mu, beta, ...]."""
    inputs = reconstruction_inputs(config).to(vae.flat.device)
    rows = [config.mu.index(mu) for mu in stack.mu]
    drawn = model_pictures(vae, config, inputs[rows].repeat_interleave(len(stack.beta), dim=0))
    betas = [config.beta.index(beta) for beta in stack.beta]
    for name, values in drawn.items():
        blocks = values.reshape(len(stack.mu), len(stack.beta), *values.shape[1:])
        if name not in pictures:
            shape = (len(config.mu), len(config.beta), *values.shape[1:])
            pictures[name] = np.empty(shape, dtype=values.dtype)
        for row, seed, block in zip(rows, stack.seeds, blocks, strict=True):
            if seed == config.first_seed:
                pictures[name][row, betas] = block


def _store(
    arrays: dict[str, np.ndarray],
    measured: dict[str, np.ndarray],
    config: SweepConfig,
    stack: Stack,
) -> None:
    """Put a stack's measures [M, ...] into the sweep's arrays [mu, beta, seed, ...]."""
    shape = (len(config.mu), len(config.beta), config.seeds)
    betas = [config.beta.index(beta) for beta in stack.beta]
    for name, values in measured.items():
        blocks = values.reshape(len(stack.mu), len(stack.beta), *values.shape[1:])
        if name not in arrays:
            arrays[name] = np.empty((*shape, *values.shape[1:]), dtype=values.dtype)
        for mu, seed, block in zip(stack.mu, stack.seeds, blocks, strict=True):
            row, column = config.mu.index(mu), config.seed_values.index(seed)
            arrays[name][row, betas, column] = block
