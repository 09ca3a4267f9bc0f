"""The sweep, end to end: configuration -> trained stacks -> measures -> dataset -> report."""

from __future__ import annotations

import json
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
import xarray as xr

from vaekit import results, theory
from vaekit.config import FILE_BYTES, ConfigError, SweepConfig
from vaekit.engine import engine_name
from vaekit.evaluate import (
    Arrays,
    as_pictures,
    evaluate_baseline,
    example_images,
    names_of_columns,
    reconstruction_inputs,
)
from vaekit.files import write_whole
from vaekit.host import keep_freed_memory
from vaekit.interrupt import Interrupts
from vaekit.journal import INTERVAL_SECONDS, Journal
from vaekit.launch import (
    Launcher,
    Work,
    check_launcher,
    check_nodes,
    cluster,
    local,
    on_ray,
)
from vaekit.machine import device_name, resolve_device, threads, versions
from vaekit.memory import axis_sizes, check_memory, dataset_bytes
from vaekit.products import fast_products, product_library
from vaekit.progress import Progress, Silent
from vaekit.report import write_report
from vaekit.rundir import CONFIG, beside, claim, inspect, replace, restore, sweep_up
from vaekit.shard import PICTURES
from vaekit.stack import Stack, plan, stack_size
from vaekit.train import curve_steps, divergence

OnDiverge = Literal["keep", "fail"]


def run_sweep(
    config: SweepConfig,
    out: Path | str,
    *,
    overwrite: bool = False,
    command: str = "vaekit.run_sweep",
    progress: Progress | None = None,
    interrupts: Interrupts | None = None,
    launcher: Launcher = "local",
    address: str | None = None,
    on_diverge: OnDiverge = "keep",
    checkpoint_seconds: float = INTERVAL_SECONDS,
) -> xr.Dataset:
    """Train and measure every model of a sweep and write the run directory.

    The directory gets config.toml (first), results.nc, figures/*.png and report.html, each file
    whole or not at all. A run that was interrupted goes on where it was, to the same bits; one
    that is finished is left as it is, even where it could not be made. With `overwrite`, an earlier
    run stays in place until the new one is done.

    Args:
        config: the sweep.
        out: the run directory: new, empty, or holding a run of this configuration, unless
            `overwrite`.
        overwrite: replace what is in `out`.
        command: how the run was started, for the record.
        progress: is told how the work goes.
        interrupts: how the process may be asked to leave; by default it is not.
        launcher: where shards run, in this process or on Ray's workers.
        address: of a Ray cluster; None starts Ray on this machine.
        on_diverge: go on without a model that is not finite, or fail.
        checkpoint_seconds: time between two checkpoints of a training; more where writing one is
            slow.

    Returns:
        The dataset, as `open_results(out)` would read it.

    Raises:
        ConfigError: the device, engine or launcher asked for cannot run here, or a model, its
            measures or the dataset do not fit in memory.
        FileExistsError: `out` holds something else, or a run of another configuration.
        BusyError: another process works in `out`.
        DivergedError: a model diverged and `on_diverge` is "fail".
        RunError: Ray failed.
        Interrupted: the process was asked to leave; what was done is kept.
    """
    check_launcher(launcher, config.device)
    if on_diverge not in get_args(OnDiverge):
        raise ConfigError("on_diverge", on_diverge, ", ".join(get_args(OnDiverge)))
    if not checkpoint_seconds >= 0:
        raise ConfigError("checkpoint_seconds", checkpoint_seconds, "a number of 0 or more")
    out, progress = Path(out), progress or Silent()
    if out.name in {"", ".."}:  # the directory at hand, or one above it
        out = out.resolve()
    if _look(out, config, overwrite) == "finished" and not overwrite:
        progress.note(f"{out} holds this run, finished: there is nothing to do")
        return results.open_results(out, progress.note)
    device = resolve_device(config.device)
    engine_name(config, device)  # all of these before anything is written
    size = check_memory(config, device, stack_size(config, device))
    text = config.to_toml()
    if len(text) > FILE_BYTES:
        field = max(("mu", "beta"), key=lambda name: len(getattr(config, name)))
        fits = f"what {CONFIG} holds in {FILE_BYTES:,} bytes; these take {len(text):,}"
        raise ConfigError(field, getattr(config, field), fits)

    with claim(out):
        restore(out)
        # What was seen before may have changed until the lock was held.
        state, work = _look(out, config, overwrite), out
        if overwrite and state not in {"new", "unfinished"}:
            # An earlier run is replaced by a finished one only, so nothing is lost before.
            work = beside(out, "new")
            if inspect(work, config).state == "other":
                shutil.rmtree(work)
        journal = Journal(work, config, progress.note, checkpoint_seconds)
        sweep_up(work)
        # Another process may have finished it since, or been killed before it took its place.
        if inspect(work, config).state == "finished":
            dataset = results.open_results(work, progress.note)
        else:
            wanted = config.threads or torch.get_num_threads()

            def cut() -> list[Stack]:
                stacks = plan(config, size)
                if launcher == "ray":
                    check_nodes(config, stacks, wanted)
                return stacks

            keep_freed_memory()
            with cluster(launcher, address):
                stacks, count = journal.plan(cut, wanted)
                write_whole(work / CONFIG, text)
                # A worker of Ray may stand in another directory.
                job = Work(
                    config,
                    work.resolve(),
                    count,
                    fail_on_divergence=on_diverge == "fail",
                    checkpoint_seconds=checkpoint_seconds,
                )
                with threads(count), fast_products(device):
                    dataset = _measure(
                        job,
                        stacks,
                        journal,
                        command,
                        progress,
                        interrupts or Interrupts(),
                        launcher,
                    )
            progress.stage("report", 1, "page")
            results.save(dataset, work / "results.nc")
            write_report(dataset, work)
            progress.advance(1)
        journal.clear()
        if work != out:
            replace(out, work)
    return dataset


def _look(out: Path, config: SweepConfig, overwrite: bool) -> str:
    """Return the state of a run directory; refuse one that this run may not go into."""
    found = inspect(out, config)
    if found.state == "nowhere" or (found.problem and not overwrite):
        way_out = ", or overwrite" if found.state == "other" else ""
        raise FileExistsError(
            f"out: {out} {found.problem}; allowed: a new or empty directory{way_out}"
        )
    return found.state


def _measure(
    job: Work,
    stacks: list[Stack],
    journal: Journal,
    command: str,
    progress: Progress,
    interrupts: Interrupts,
    launcher: Launcher,
) -> xr.Dataset:
    """Train and measure the shards that are not done; return the dataset with its provenance."""
    config, device = job.config, resolve_device(job.config.device)
    models = sum(stack.models for stack in stacks)
    progress.note(
        f"{models} models ({len(config.mu)} mu x {len(config.beta)} beta x {config.seeds} seeds) "
        f"of {config.steps} steps, {stacks[0].models} at once, on {device_name(device)}, "
        f"by the engine {engine_name(config, device)}"
    )
    progress.stage("train and measure", models * config.steps, "model-steps")
    done: dict[int, Arrays] = {}
    for index, stack in enumerate(stacks):
        measured = journal.finished(index, stack, _shapes(config, stack))
        if measured is not None:
            _refuse_divergence(job, stack, measured)
            done[index] = measured
            progress.advance(stack.models * config.steps)
    if done:
        progress.note(f"going on with a run of which {len(done)} of {len(stacks)} parts are done")
    left = [(index, stack) for index, stack in enumerate(stacks) if index not in done]
    running = (
        on_ray(job, left, progress, interrupts)
        if launcher == "ray"
        else local(job, left, progress, interrupts, journal)
    )
    for index, measured in running:
        journal.finish(index, stacks[index], measured)
        _refuse_divergence(job, stacks[index], measured)
        done[index] = measured

    arrays: Arrays = {}
    pictures = example_images(config) | {
        "reconstruction_input": as_pictures(config, reconstruction_inputs(config))
    }
    seconds = {"train": 0.0, "measure": 0.0}
    for index, stack in enumerate(stacks):
        measured = dict(done.pop(index))  # so that nothing is held twice
        for stage in seconds:
            seconds[stage] += float(measured.pop(f"seconds_{stage}"))
        drawn = {name: measured.pop(name) for name in PICTURES if name in measured}
        _store_pictures(pictures, drawn, config, stack)
        bad = (measured["diverged_at"] > 0) | ~np.isfinite(measured["loss_curve"]).all(axis=1)
        measured["status"] = np.where(bad, "diverged", measured["status"])
        _store(arrays, measured, config, stack)
    progress.stage("baseline", config.baseline_seeds, "networks")
    begun = time.perf_counter()
    arrays |= evaluate_baseline(config, device)
    seconds["baseline"] = time.perf_counter() - begun
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
            "engine": engine_name(config, device),
            "products": product_library(device),
            "seconds": json.dumps({stage: round(value, 3) for stage, value in seconds.items()}),
            "seconds_total": sum(seconds.values()),
            "stack": stacks[0].models,
            "threads": job.threads,
            "vaekit_version": versions()["vaekit"],
            "versions": json.dumps(versions()),
        },
    )


def _refuse_divergence(job: Work, stack: Stack, measured: Arrays) -> None:
    """Fail if a model diverged and that is to be a failure, whenever it was trained."""
    if job.fail_on_divergence and measured["diverged_at"].any():
        raise divergence(stack, measured["diverged_at"].tolist())


def _shapes(config: SweepConfig, stack: Stack) -> dict[str, tuple[int, ...]]:
    """Say which arrays are measured of a stack, and their shapes."""
    sizes, schema = axis_sizes(config), {**results.SCHEMA, **results.OPTIONAL}
    shown = stack.seeds.count(config.first_seed) * len(stack.beta)
    shapes: dict[str, tuple[int, ...]] = {"seconds_train": (), "seconds_measure": ()}
    for name in dataset_bytes(config).keys() & schema.keys():
        dims = schema[name].dims
        if dims[:3] == ("mu", "beta", "seed"):
            shapes[name] = (stack.models, *(sizes[dim] for dim in dims[3:]))
        elif name in PICTURES and shown:
            shapes[name] = (shown, *(sizes[dim] for dim in dims[2:]))
    return shapes


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


def _store_pictures(pictures: Arrays, drawn: Arrays, config: SweepConfig, stack: Stack) -> None:
    """Put the pictures of the first seed's models into arrays [mu, beta, ...]."""
    betas = [config.beta.index(beta) for beta in stack.beta]
    rows = [
        config.mu.index(mu)
        for mu, seed in zip(stack.mu, stack.seeds, strict=True)
        if seed == config.first_seed
    ]
    for name, values in drawn.items():
        if name not in pictures:
            shape = (len(config.mu), len(config.beta), *values.shape[1:])
            pictures[name] = np.empty(shape, dtype=values.dtype)
        for row, block in zip(rows, np.split(values, len(rows)), strict=True):
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
