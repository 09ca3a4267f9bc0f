"""What a whole sweep takes in memory, counted before anything is written.

The dataset is held in the process that makes it: as what was measured, as the labelled arrays that
are made of it, and in part once more while those are written. Beside it a stack is measured, or the
untrained networks are, on the device; while a card trains, moments wait on the host, and
checkpoints are made there. Counts are of what grows with the sweep, and from above; all else is a
few hundred megabytes at most.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from vaekit.axis_scores import labels
from vaekit.config import ConfigError, SweepConfig
from vaekit.evaluate import EXAMPLES, LATENT_VALUES, RECONSTRUCTIONS
from vaekit.machine import free_memory
from vaekit.model import Architecture
from vaekit.results import COORDINATES, DIRECTIONS, FITS, OPTIONAL, SCHEMA, Variable
from vaekit.stack import MEMORY_SHARE, Stack, checkpoint_bytes, training_bytes

HOST = torch.device("cpu")
# Up to 3.4 were seen, where nearly all of the dataset is pictures.
DATASET_COPIES = 4
# What is held of a row (of the test grid, of fresh draws) while it is measured, in float32 values
# for each of its columns (of truth, of code): both, and their float64 errors. Up to 4.9 were seen.
ROW_COPIES = 6
# What a critic adds: both standardised, and two hidden layers of a quarter of the rows.
CRITIC_COPIES, CRITIC_VALUES = 2, 32
# The field that makes an axis long.
FIELDS = {
    "mu": "mu",
    "beta": "beta",
    "seed": "seeds",
    "latent": "latents",
    "step": "curve_points",
    "baseline_seed": "baseline_seeds",
    "row": "tile",
    "col": "tile",
}


def check_memory(config: SweepConfig, device: torch.device, size: int) -> int:
    """Refuse a sweep whose dataset or measures would not fit in the memory that is free.

    Args:
        config: the sweep.
        device: that trains and measures.
        size: models that train in one pass.

    Returns:
        How many of them can be measured at once too.

    Raises:
        ConfigError: names the field that takes most, the bytes needed and the bytes free.
    """
    free, dataset = free_memory(HOST), DATASET_COPIES * sum(dataset_bytes(config).values())
    if dataset > free:
        raise _refusal(config, _longest(config), "the dataset takes", dataset, free, HOST)
    if device.type != "cpu" and not config.stack:
        # Nobody asked for so many.
        size = max(1, min(size, (free - dataset) // host_bytes(config, device, 1)))
    waiting = host_bytes(config, device, size)
    if waiting > free - dataset:
        what = f"moments and a checkpoint of {size} models take"
        raise _refusal(config, "stack", what, waiting, free - dataset, HOST)
    left = free - dataset if device.type == "cpu" else free_memory(device)
    grid, draws = grid_bytes(config), draws_bytes(config)
    if grid + draws > left:
        field = "evaluation_draws" if draws > grid else "grid"
        raise _refusal(config, field, "a model is measured in", grid + draws, left, device)
    baseline = config.baseline_seeds * (4 * Architecture.of(config).parameters + grid)
    if baseline > left:
        what = "untrained networks are measured in"
        raise _refusal(config, "baseline_seeds", what, baseline, left, device)
    return max(1, min(size, int(left * MEMORY_SHARE) // (grid + draws)))


def host_bytes(config: SweepConfig, device: torch.device, size: int) -> int:
    """Bytes on the host that a stack takes while it trains on a card.

    A checkpoint, and what it is made of: parameters, and moments, which wait there all the time
    while kernels keep their own.
    """
    if device.type == "cpu":
        return 0
    return size * (checkpoint_bytes(config) + 3 * 4 * Architecture.of(config).parameters)


def dataset_bytes(config: SweepConfig) -> dict[str, int]:
    """Bytes of every variable of a sweep's dataset."""
    sizes = axis_sizes(config)
    asked = {"estimator": config.estimators, "axis_metric": config.axis_scores}
    return {
        name: _item_bytes(variable) * math.prod(sizes[dim] for dim in variable.dims)
        for name, variable in {**COORDINATES, **SCHEMA, **OPTIONAL}.items()
        if all(asked.get(dim, True) for dim in variable.dims)
    }


def grid_bytes(config: SweepConfig) -> int:
    """Bytes that one model takes while it is measured on the test grid."""
    return 4 * ROW_COPIES * (config.latents + config.factors) * config.test_images


def draws_bytes(config: SweepConfig) -> int:
    """Bytes that one model takes while it is measured on fresh draws."""
    columns = config.latents + config.factors
    values = ROW_COPIES * columns
    if {"mine", "infonce"} & set(config.estimators):
        values += CRITIC_COPIES * columns + CRITIC_VALUES
    return 4 * values * config.evaluation_draws


def stack_bytes(config: SweepConfig, stack: Stack) -> int:
    """Bytes that a stack takes at its most, while it is trained or measured."""
    trained = training_bytes(config, stack) + stack.models * checkpoint_bytes(config)
    return max(trained, stack.models * (grid_bytes(config) + draws_bytes(config)))


def _item_bytes(variable: Variable) -> int:
    # A text of nine letters, four bytes each, as `status` is.
    return 36 if variable.dtype == "str" else np.dtype(variable.dtype).itemsize


def axis_sizes(config: SweepConfig) -> dict[str, int]:
    """Length of every axis of the dataset."""
    return {
        "mu": len(config.mu),
        "beta": len(config.beta),
        "seed": config.seeds,
        "direction": len(DIRECTIONS),
        "fit": len(FITS),
        "latent": config.latents,
        "step": min(config.curve_points, config.steps),
        "baseline_seed": config.baseline_seeds,
        "example": EXAMPLES,
        "example_r": RECONSTRUCTIONS,
        "row": config.image_side,
        "col": config.image_side,
        "latent_value": len(LATENT_VALUES),
        "estimator": len(config.estimators),
        "axis_metric": len(labels(config.axis_scores)),
    }


def _longest(config: SweepConfig) -> str:
    """Name the field that the longest axis of the largest variable comes from."""
    needed, sizes = dataset_bytes(config), axis_sizes(config)
    largest = {**COORDINATES, **SCHEMA, **OPTIONAL}[max(needed, key=needed.__getitem__)]
    return FIELDS[max((dim for dim in largest.dims if dim in FIELDS), key=sizes.__getitem__)]


def _refusal(
    config: SweepConfig, field: str, what: str, needed: int, free: int, device: torch.device
) -> ConfigError:
    fits = f"what fits: {what} {needed:,} bytes, and {free:,} are free on {device}"
    return ConfigError(field, getattr(config, field), fits)
