"""Cost of a model-step against the models in a stack, the batch and the width, beside its floor.

Peers stand beside it against the number of models.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from bench.ceilings import believed, step_flops
from bench.peers import OURS, OURS_AGAIN, PEERS, absent, check, elsewhere, still_agree
from bench.problem import Block, Problem, default_config
from bench.timing import interleave, ratio, untimed
from vaekit.config import SweepConfig
from vaekit.model import Architecture
from vaekit.products import fast_products

MODELS = (1, 2, 4, 8, 11, 22, 44, 121)
BATCHES = (32, 64, 128, 256, 512, 1024)
WIDTHS = ((64, 32), (128, 64), (256, 128), (512, 256), (1024, 512))
QUICK_MODELS, QUICK_BATCHES, QUICK_WIDTHS = (1, 4, 11, 44, 121), (32, 128, 512), WIDTHS[1:4]
STACK = 11
# Steps of a block at the least.
FEWEST = 2
# Peers at every number of models. Those of torch.compile would compile for each of them, and models
# that train one after another take as long each, however many there are.
BESIDE = ("stacked autograd", "JAX vmap + scan")
LEAST = "floor"
# What that is, on a CPU and on a card.
FLOOR = ("the products and one pass of Adam", "a copy of weights and both moments")


def point(
    steps: int, device: torch.device, models: int = STACK, *, fewest: int = FEWEST, **changes: Any
) -> Problem:
    """Make a changed default problem, whose block is about as much work as that of the default one.

    A block of few models, images or units would be so short otherwise that its start is in its
    time, and one of many would take seconds.

    Args:
        steps: of a block of the default problem; others have more, or fewer.
        device: where it trains.
        models: in the stack.
        fewest: steps at the least.
        changes: to the default configuration.
    """
    config = default_config(models, **changes)
    as_many = steps * STACK * _work(default_config(STACK)) / (models * _work(config))
    return Problem(config, max(fewest, round(as_many)), device)


def _work(config: SweepConfig) -> int:
    return step_flops(Architecture.of(config), config.batch)


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
    title: str,
    rounds: int,
    problems: Mapping[str, Callable[[], Problem]],
    peers: Sequence[str] = (),
) -> dict[str, Any]:
    """Time the engine, the engine again (A/A) and the floor along an axis, and print the table.

    Args:
        title: what the axis is.
        rounds: timed blocks of each.
        problems: makes the problem of each point; one at a time, since the widest are large.
        peers: that are held to the engine's losses, and timed, at every point too.

    Raises:
        BenchError: a peer trains to something else, or the engine is quicker than its floor.
    """
    print(f"\nms per model-step against {title}; {rounds} rounds\n")
    beside = "".join(f"{name:>20}" for name in peers)
    print(f"{'':>12}{'steps':>10}{'vaekit':>10}{'floor':>10}{'of floor':>10}{beside}", flush=True)
    points = {}
    for name, make in problems.items():
        task = make()
        blocks = {peer: PEERS[peer](task) for peer in (OURS, *peers)}
        blocks[OURS_AGAIN] = PEERS[OURS](task)
        check(task, blocks)
        least = floor(task)
        # The others have trained their first block by now.
        least()
        samples = interleave(blocks | {LEAST: least}, rounds, untimed(task.device), task.device)
        still_agree(task, blocks)
        times = per_model_step(samples, task.steps * task.models)
        cost, floor_ms = times[OURS], times[LEAST]
        # Only where the whole interval says so: a few rounds of a busy machine cross by themselves.
        _, low, _ = ratio(samples[LEAST], samples[OURS])
        believed(low * cost * 1e-3, cost * 1e-3)
        line = f"{name:>12}{task.steps:10}{cost:10.3g}{floor_ms:10.3g}{floor_ms / cost:10.0%}"
        print(line + "".join(f"{times[peer]:20.3g}" for peer in peers), flush=True)
        points[name] = {
            "steps": task.steps,
            "ms_per_model_step": cost,
            "floor_ms": floor_ms,
            "seconds": samples,
        }
    return {"curve": points}


def per_model_step(samples: Mapping[str, list[float]], model_steps: int) -> dict[str, float]:
    """Median milliseconds of a model-step of each sample of so many."""
    return {
        name: statistics.median(seconds) * 1e3 / model_steps for name, seconds in samples.items()
    }


def costs(row: Mapping[str, Any]) -> dict[str, float]:
    """Median milliseconds of a model-step of all that was timed at a stored point.

    By its engine's, since earlier runs do not hold the steps of their points.
    """
    middles = {name: statistics.median(seconds) for name, seconds in row["seconds"].items()}
    scale = row["ms_per_model_step"] / middles[OURS]
    return {name: middle * scale for name, middle in middles.items()}


def peers_of(points: Mapping[str, Any]) -> list[str]:
    """Peers that were timed at every point of a stored curve; in earlier runs none was."""
    timed = next(iter(points.values()))["seconds"]
    return [name for name in timed if name not in (OURS, OURS_AGAIN, LEAST)]


def models_point(steps: int, device: torch.device, models: int) -> Problem:
    """Make the problem of a number of models; see `models_curve`."""
    return point(steps, device, models, fewest=steps)


def models_curve(
    models: Iterable[int],
    steps: int,
    rounds: int,
    device: torch.device,
    peers: Sequence[str] = (),
) -> dict[str, Any]:
    """Time the default network against the number of models; see `curve`.

    Args:
        models: numbers of them.
        steps: of a block of `STACK` models. Smaller stacks have more, see `point`, and larger ones
            as many: what a peer pays for each call (JAX 70 ms at 121 models, on two threads of an
            AMD EPYC) must not be paid for each step.
        rounds: timed blocks of each.
        device: where all train.
        peers: beside it.
    """
    problems = {str(count): partial(models_point, steps, device, count) for count in models}
    return curve("the number of models", rounds, problems, peers)


def measure_curves(steps: int, rounds: int, device: torch.device, *, quick: bool) -> dict[str, Any]:
    """Time along all three axes.

    Args:
        steps: of a block of the default problem; see `point`.
        rounds: timed blocks of each.
        device: where all train.
        quick: fewer points, and no peers.

    Returns:
        scaling (against the number of models), batch and width.
    """
    made = partial(point, steps, device)
    left_out = BESIDE if quick else absent(quick=quick) | elsewhere(device)
    peers = [name for name in BESIDE if name not in left_out]
    batches = {
        str(size): partial(made, batch=size) for size in (QUICK_BATCHES if quick else BATCHES)
    }
    widths = {
        f"{wide}, {narrow}": partial(made, hidden=(wide, narrow))
        for wide, narrow in (QUICK_WIDTHS if quick else WIDTHS)
    }
    return {
        "scaling": models_curve(QUICK_MODELS if quick else MODELS, steps, rounds, device, peers),
        "batch": curve(f"the batch, {STACK} models", rounds, batches),
        "width": curve(f"the hidden widths, {STACK} models", rounds, widths),
    }
