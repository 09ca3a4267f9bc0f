"""Cost of a model-step against the models in a stack, the batch and the width, beside its floor."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch

from bench.ceilings import believed
from bench.eager import vaekit_engine
from bench.peers import OURS, OURS_AGAIN, check
from bench.problem import Block, Problem, default_problem
from bench.timing import interleave, ratio
from vaekit.products import fast_products

MODELS = (1, 2, 4, 8, 11, 22, 44, 121)
BATCHES = (32, 64, 128, 256, 512, 1024)
WIDTHS = ((64, 32), (128, 64), (256, 128), (512, 256), (1024, 512))
QUICK_MODELS, QUICK_BATCHES, QUICK_WIDTHS = (1, 4, 11, 44, 121), (32, 128, 512), WIDTHS[1:4]
STACK = 11
# What a floor is, on a CPU and on a card.
FLOOR = ("the products and one pass of Adam", "a copy of weights and both moments")


def floor(problem: Problem) -> Block:
    """Do only what no engine can leave out: the products of a step and one pass of Adam.

    Its time is the floor that the engine's time is shown against. It is measured, not computed.
    A card has several kinds of products, and an update need not read a gradient from memory: there
    it is a copy of weights and both moments, 24 bytes a parameter.
    """
    if problem.device.type == "cuda":
        return _copies(problem)
    vae, setup, device = problem.stack(), problem.config, problem.device
    models, sizes = problem.models, vae.architecture.sizes
    # What a layer writes the next one reads, as in any engine, so no more memory is touched. The
    # latents alone are not what the encoder gives.
    outputs, errors = ([torch.rand(models, setup.batch, o) for _, o in sizes] for _ in range(2))
    inputs, input_errors = (
        [torch.rand(models, setup.batch, i) if index in (0, len(vae.encoder)) else made[index - 1]
         for index, (i, _) in enumerate(sizes)]
        for made in (outputs, errors)
    )  # fmt: skip
    vae.flat.grad = torch.empty_like(vae.flat)
    gradients = vae.architecture.split(vae.flat.grad)
    adam = torch.optim.Adam([vae.flat], lr=setup.learning_rate, fused=True)

    def block() -> torch.Tensor:
        with torch.no_grad(), fast_products(device):
            for _ in range(problem.steps):
                for index, (weight, _) in enumerate(vae.layers):
                    torch.bmm(inputs[index], weight, out=outputs[index])
                    x = inputs[index].transpose(1, 2)
                    torch.bmm(x, errors[index], out=gradients[index][0])
                    if index:
                        transposed = weight.transpose(1, 2)
                        torch.bmm(errors[index], transposed, out=input_errors[index])
                adam.step()
        return vae.flat

    return block


def _copies(problem: Problem) -> Block:
    flat = problem.stack().flat
    source, target = torch.rand(2, 3, flat.numel(), device=problem.device)

    def block() -> torch.Tensor:
        for _ in range(problem.steps):
            target.copy_(source)
        return flat

    return block


def curve(
    title: str, steps: int, rounds: int, problems: Mapping[str, Callable[[], Problem]]
) -> dict[str, Any]:
    """Time the engine, the engine again (A/A) and the floor along an axis, and print the table.

    Args:
        title: what the axis is.
        steps: of a timed block.
        rounds: timed blocks of each.
        problems: makes the problem of each point; one at a time, since the widest are large.

    Raises:
        BenchError: the engine is quicker than its floor.
    """
    print(f"\nms per model-step against {title}; {rounds} rounds of {steps} steps\n")
    print(f"{'':>12}{'vaekit':>10}{'floor':>10}{'of floor':>10}", flush=True)
    points = {}
    for name, make in problems.items():
        task = make()
        check(task, {OURS: vaekit_engine(task)})
        blocks = {name: vaekit_engine(task) for name in (OURS, OURS_AGAIN)} | {"floor": floor(task)}
        samples = interleave(blocks, rounds, device=task.device)
        cost, least = (
            statistics.median(samples[name]) * 1e3 / (steps * task.models)
            for name in (OURS, "floor")
        )
        # Only where the whole interval says so: a few rounds of a busy machine cross by themselves.
        _, low, _ = ratio(samples["floor"], samples[OURS])
        believed(low * cost * 1e-3, cost * 1e-3)
        print(f"{name:>12}{cost:10.3g}{least:10.3g}{least / cost:10.0%}", flush=True)
        points[name] = {"ms_per_model_step": cost, "floor_ms": least, "seconds": samples}
    return {"steps": steps, "curve": points}


def models_curve(
    models: Iterable[int], steps: int, rounds: int, device: torch.device
) -> dict[str, Any]:
    """Time the default network against the number of models."""
    problems = {str(count): partial(default_problem, count, steps, device) for count in models}
    return curve("the number of models", steps, rounds, problems)


def measure_curves(steps: int, rounds: int, device: torch.device, *, quick: bool) -> dict[str, Any]:
    """Draw all three curves.

    Returns:
        scaling (against the number of models), batch and width.
    """
    made = partial(default_problem, STACK, steps, device)
    batches = {
        str(size): partial(made, batch=size) for size in (QUICK_BATCHES if quick else BATCHES)
    }
    widths = {
        f"{wide}, {narrow}": partial(made, hidden=(wide, narrow))
        for wide, narrow in (QUICK_WIDTHS if quick else WIDTHS)
    }
    return {
        "scaling": models_curve(QUICK_MODELS if quick else MODELS, steps, rounds, device),
        "batch": curve(f"the batch, {STACK} models", steps, rounds, batches),
        "width": curve(f"the hidden widths, {STACK} models", steps, rounds, widths),
    }
