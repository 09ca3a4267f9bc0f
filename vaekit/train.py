"""Training of one stack: the only loop.

A stack holds the K betas of each of S data streams, M = S K models, model m = s K + k. Images are
drawn once a stream and shared by its betas.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from vaekit.block import BLOCK_STEPS, make_block
from vaekit.checkpoint import Array
from vaekit.config import SweepConfig
from vaekit.engine import engine_name, make_step
from vaekit.errors import DivergedError
from vaekit.keeper import Keeper
from vaekit.machine import Behind, synchronize
from vaekit.model import StackedVAE
from vaekit.products import fast_products
from vaekit.progress import Progress
from vaekit.stack import Stack
from vaekit.state import MOMENTS, State, initial_state


@dataclass(frozen=True)
class Curves:
    """Means over each window of steps, per model: nll, kl and loss [M, C] in nats."""

    nll: Tensor
    kl: Tensor
    loss: Tensor


@dataclass(frozen=True)
class Training:
    """What a training came to.

    Attributes:
        vae: the models.
        curves: of their losses.
        stopped: the step at which each model diverged, int64 [M]; 0 if it did not.
    """

    vae: StackedVAE
    curves: Curves
    stopped: Tensor

    def part(self, models: slice) -> Training:
        """Take what came of some of the models."""
        curves = Curves(self.curves.nll[models], self.curves.kl[models], self.curves.loss[models])
        return Training(self.vae.part(models), curves, self.stopped[models])


def curve_steps(config: SweepConfig) -> list[int]:
    """Last step of each window of the training curves: evenly spread, up to the last step."""
    points = min(config.curve_points, config.steps)
    return [config.steps * (index + 1) // points for index in range(points)]


def train(
    config: SweepConfig,
    stack: Stack,
    device: torch.device,
    progress: Progress,
    keeper: Keeper | None = None,
    *,
    fail_on_divergence: bool = False,
) -> Training:
    """Train every model of a stack, from its initial weights or from where it was stopped.

    Args:
        config: steps, batch, objective and optimiser.
        stack: the models.
        device: where.
        progress: is told of every block of steps, in model-steps.
        keeper: keeps checkpoints, and knows when to leave.
        fail_on_divergence: raise as soon as a model is seen to be not finite.

    Returns:
        The trained stack, its curves, and the steps at which models diverged.

    Raises:
        DivergedError: a model diverged and `fail_on_divergence` is set.
        Interrupted: the process was asked to leave; a checkpoint has been committed.
    """
    keeper = keeper or Keeper()
    labels = stack.labels(device)
    state = initial_state(config, labels.seeds)
    ends = curve_steps(config)
    # Sums over the window at hand, and means over the windows that are complete.
    window = torch.zeros(3, stack.models, device=device)
    curves = torch.full((len(ends), 3, stack.models), torch.nan, device=device)
    trained = {**state.tensors(), "window": window, "curves": curves}

    def names(step: int) -> list[str]:
        # Nobody goes on from the last step, and moments are two thirds of a checkpoint.
        return [name for name in trained if step < config.steps or name not in MOMENTS]

    def problem(step: int, arrays: Mapping[str, Array]) -> str:
        if step > config.steps:
            return f"holds step {step}; allowed: up to {config.steps}"
        wanted = names(step)
        own = {name: (*trained[name].shape, str(trained[name].dtype)) for name in wanted}
        held = {name: (*array.shape, f"torch.{array.dtype}") for name, array in arrays.items()}
        return "" if held == own else "holds other tensors than this training's"

    done = _restore(keeper.load(stack, problem), state, window, curves)
    if engine_name(config, device) == "compiled":
        progress.note(f"compiling the training of {stack.models} models, some seconds")
    step = make_step(config, state, streams=len(stack.mu))
    block = make_block(config, labels, step)
    behind = Behind(device)

    def kept(t: int) -> dict[str, Tensor]:
        saved = step.save(moments=t < config.steps).tensors()
        held = saved | {"window": window, "curves": curves}
        return {name: held[name] for name in names(t)}

    progress.advance(done * stack.models)
    with torch.no_grad(), fast_products(device), keeper.interrupts.defer():
        # Blocks begin where they would have begun in a run that was never stopped.
        for first in range(done + 1, config.steps + 1, BLOCK_STEPS):
            steps = range(first, min(first + BLOCK_STEPS, config.steps + 1))
            for t, terms in zip(steps, block(steps), strict=True):
                window += terms
                point = bisect_left(ends, t)
                if t == ends[point]:
                    begin = ends[point - 1] if point else 0
                    curves[point] = window / (t - begin)
                    window.zero_()
                    # Progress is what the device has done, to within two points of the curves.
                    behind()
                    if fail_on_divergence and state.stopped.any():
                        raise divergence(stack, step.save(moments=False).stopped.tolist())
            progress.advance(len(steps) * stack.models)
            leaving = keeper.interrupts.asked is not None
            if leaving or keeper.due() or steps.stop > config.steps:
                # What is still being trained is no part of a checkpoint's cost.
                synchronize(device)
                keeper.save(stack, t, partial(kept, t))
            keeper.interrupts.leave_if_asked()
    final = step.save(moments=False)
    nll, kl, loss = curves.cpu().unbind(dim=1)
    return Training(final.vae, Curves(nll.T, kl.T, loss.T), final.stopped.cpu())


def _restore(
    found: tuple[int, dict[str, Array]] | None, state: State, window: Tensor, curves: Tensor
) -> int:
    """Take up a checkpoint, if there is one; return the last step that was done."""
    if found is None:
        return 0
    step, arrays = found
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    window.copy_(tensors.pop("window"))
    curves.copy_(tensors.pop("curves"))
    state.load(state.tensors() | tensors)
    return step


def divergence(stack: Stack, stopped: Sequence[int]) -> DivergedError:
    """Name the models that diverged, and when: the step of each model's, 0 if it did not."""
    return DivergedError(
        "diverged: "
        + "; ".join(
            f"mu = {mu:g}, beta = {beta:g}, seed = {seed} at step {step}"
            for (mu, seed, beta), step in zip(stack.cells(), stopped, strict=True)
            if step
        )
    )
