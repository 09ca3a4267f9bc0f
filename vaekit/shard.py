"""The unit of work: the models of one stack, trained and measured.

`run_shard` is a function of the configuration and the stack; where it runs, in which order, and
what else runs beside it change nothing. Given a `Keeper` it can be stopped and taken up again.
"""

from __future__ import annotations

import time

import numpy as np
import torch

from vaekit.config import SweepConfig
from vaekit.evaluate import Arrays, evaluate_stack, model_pictures, reconstruction_inputs
from vaekit.keeper import Keeper
from vaekit.model import StackedVAE
from vaekit.products import fast_products
from vaekit.progress import Progress
from vaekit.stack import Stack, split
from vaekit.train import Training, train

PICTURES = ("reconstruction", "traversal")


def run_shard(
    config: SweepConfig,
    stack: Stack,
    device: torch.device,
    progress: Progress,
    keeper: Keeper,
    *,
    fail_on_divergence: bool = False,
) -> Arrays:
    """Train and measure a stack; one that does not fit in memory is split and tried again.

    Args:
        config: the sweep.
        stack: its models, M.
        device: where.
        progress: is told of every block of steps, in model-steps.
        keeper: of the shard's checkpoints.
        fail_on_divergence: stop at the first model that is not finite.

    Returns:
        One array [M, ...] for each per-model variable of the dataset, for `PICTURES` and for
        `diverged_at`; and seconds_train and seconds_measure.

    Raises:
        DivergedError: a model diverged and `fail_on_divergence` is set.
        MemoryError: one model alone does not fit.
    """
    try:
        return _run(config, stack, device, progress, keeper, fail_on_divergence)
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        if stack.models == 1:
            raise MemoryError(f"one model alone does not fit in memory: {error}") from None
    if device.type == "cuda":
        torch.cuda.empty_cache()
    progress.note(f"{stack.models} models do not fit in memory: going on with halves")
    halves = [
        run_shard(
            config,
            half,
            device,
            progress,
            keeper.part(index),
            fail_on_divergence=fail_on_divergence,
        )
        for index, half in enumerate(split(stack))
    ]
    return {
        name: np.asarray(np.sum(parts)) if parts[0].ndim == 0 else np.concatenate(parts)
        for name, parts in ((name, [half[name] for half in halves]) for name in halves[0])
    }


def _run(
    config: SweepConfig,
    stack: Stack,
    device: torch.device,
    progress: Progress,
    keeper: Keeper,
    fail_on_divergence: bool,
) -> Arrays:
    started = time.perf_counter()
    with fast_products(device):
        done = train(config, stack, device, progress, keeper, fail_on_divergence=fail_on_divergence)
        trained = time.perf_counter()
        vae = _without(done)
        measured = evaluate_stack(vae, config, mu=stack.mu, seeds=stack.seeds, betas=stack.beta)
        inputs = reconstruction_inputs(config).to(device)
        rows = [config.mu.index(mu) for mu in stack.mu for _ in stack.beta]
        measured |= model_pictures(vae, config, inputs[rows])
    return {
        **measured,
        "loss_curve": done.curves.loss.numpy(),
        "kl_curve": done.curves.kl.numpy(),
        "nll_curve": done.curves.nll.numpy(),
        "diverged_at": done.stopped.numpy(),
        "seconds_train": np.array(keeper.seconds + trained - started),
        "seconds_measure": np.array(time.perf_counter() - trained),
    }


def _without(done: Training) -> StackedVAE:
    """Put NaN in place of the models that diverged, so that nothing measured of them passes."""
    diverged = done.stopped != 0
    if not diverged.any():
        return done.vae
    vae = StackedVAE(done.vae.architecture, done.vae.flat.clone())
    for layer in vae.layers:
        for piece in layer:
            piece[diverged.to(piece.device)] = torch.nan
    return vae


def _out_of_memory(error: BaseException) -> bool:
    """Tell a lack of memory from other failures; torch's CPU allocator has no type for its own."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return "allocate memory" in str(error) or "not enough memory" in str(error)
