"""The unit of work: the models of one stack, trained and measured.

`run_shard` is a function of the configuration and the stack; where it runs, in which order, and
what else runs beside it change nothing. Given a `Keeper` it can be stopped and taken up again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

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
Result = TypeVar("Result")


def run_shard(
    config: SweepConfig,
    stack: Stack,
    device: torch.device,
    progress: Progress,
    keeper: Keeper,
    *,
    fail_on_divergence: bool = False,
) -> Arrays:
    """Train and measure a stack; what does not fit in memory is split and tried again.

    Training and measuring are split each for itself: what is trained is not trained again.

    Args:
        config: the sweep.
        stack: its models, M.
        device: where.
        progress: is told of every block of steps, in model-steps.
        keeper: of the shard's checkpoints.
        fail_on_divergence: stop at the first model that is not finite.

    Returns:
        One array [M, ...] for each per-model variable of the dataset; one for each of `PICTURES`,
        of the first seed's models only, where the stack has any; and seconds_train and
        seconds_measure.

    Raises:
        DivergedError: a model diverged and `fail_on_divergence` is set.
        MemoryError: one model alone does not fit.
    """
    started = time.perf_counter()
    done = _if_it_fits(
        lambda: train(
            config, stack, device, progress, keeper, fail_on_divergence=fail_on_divergence
        ),
        stack,
        device,
        progress,
    )
    if done is not None:
        trained = np.array(keeper.seconds + time.perf_counter() - started)
        return {**_measure(config, stack, device, progress, done), "seconds_train": trained}
    return _joined(
        [
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
    )


def _measure(
    config: SweepConfig, stack: Stack, device: torch.device, progress: Progress, done: Training
) -> Arrays:
    """Measure a stack that is trained, in halves where it does not fit in memory at once."""
    started = time.perf_counter()

    def whole() -> Arrays:
        vae = _without(done)
        with fast_products(device):
            measured = evaluate_stack(vae, config, mu=stack.mu, seeds=stack.seeds, betas=stack.beta)
            return measured | _pictures(vae, config, stack)

    measured = _if_it_fits(whole, stack, device, progress)
    if measured is not None:
        return {
            **measured,
            "loss_curve": done.curves.loss.numpy(),
            "kl_curve": done.curves.kl.numpy(),
            "nll_curve": done.curves.nll.numpy(),
            "diverged_at": done.stopped.numpy(),
            "seconds_measure": np.array(time.perf_counter() - started),
        }
    first, second = split(stack)
    middle = first.models
    return _joined(
        [
            _measure(config, first, device, progress, done.part(slice(middle))),
            _measure(config, second, device, progress, done.part(slice(middle, None))),
        ]
    )


def _pictures(vae: StackedVAE, config: SweepConfig, stack: Stack) -> Arrays:
    """Draw the pictures of the first seed's models, stream by stream: no others are shown."""
    inputs = reconstruction_inputs(config).to(vae.flat.device)
    betas = len(stack.beta)
    return _joined(
        [
            model_pictures(
                vae.part(slice(place * betas, (place + 1) * betas)),
                config,
                inputs[config.mu.index(mu)],
            )
            for place, (mu, seed) in enumerate(zip(stack.mu, stack.seeds, strict=True))
            if seed == config.first_seed
        ]
    )


def _joined(parts: list[Arrays]) -> Arrays:
    """Put the arrays of parts of a stack together; times add up."""
    names = dict.fromkeys(name for part in parts for name in part)
    held = {name: [part[name] for part in parts if name in part] for name in names}
    return {
        name: np.asarray(np.sum(arrays)) if arrays[0].ndim == 0 else np.concatenate(arrays)
        for name, arrays in held.items()
    }


def _if_it_fits(
    work: Callable[[], Result], stack: Stack, device: torch.device, progress: Progress
) -> Result | None:
    """Do work on a stack; say so and return None where that takes more memory than there is."""
    try:
        return work()
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        if stack.models == 1:
            raise MemoryError(f"one model alone does not fit in memory: {error}") from None
    if device.type == "cuda":
        torch.cuda.empty_cache()
    progress.note(f"{stack.models} models do not fit in memory: going on with halves")
    return None


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
