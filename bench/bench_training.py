"""Cost of a training step: vaekit's engine beside its peers, along its axes, and by its parts.

    python -m bench [--quick]

Every peer is first held to the reference's losses (`peers.check`); a peer that trains to something
else stops the benchmark before a time is printed. Times are per model-step, ratios come from
interleaved rounds with a bootstrap interval, an A/A row (the engine against itself) shows what the
machine's noise alone does, and every raw sample is stored.
"""

from __future__ import annotations

import statistics
from typing import Any, NamedTuple

import torch

from bench.ceilings import believed, measure_ceilings, product_rate, step_flops
from bench.curves import STACK, measure_curves
from bench.eager import vaekit_engine
from bench.jax_peer import jax_elsewhere
from bench.memory import measure_memory
from bench.parts import measure_parts
from bench.peers import OURS, OURS_AGAIN, PEERS, absent, check, still_agree
from bench.problem import default_problem
from bench.static import measure_resources
from bench.timing import interleave, ratio


def compare_peers(
    steps: int, rounds: int, ceiling: float, device: torch.device, *, quick: bool
) -> dict[str, Any]:
    """Time all peers on 11 models and print the table.

    Args:
        steps: of a timed block.
        rounds: timed blocks of each peer.
        ceiling: float32 operations a second that this machine's products reach.
        device: where all train.
        quick: leave out what takes long to compile.
    """
    task = default_problem(STACK, steps, device)
    work = step_flops(task.stack(), task.config.batch) * steps * task.models
    skipped = absent(quick=quick) | jax_elsewhere(device)
    blocks = {name: make(task) for name, make in PEERS.items() if name not in skipped}
    blocks[OURS_AGAIN] = vaekit_engine(task)
    print(f"\n{len(blocks)} peers train a first block, and compile what they compile", flush=True)
    errors, first = check(task, blocks)
    print(f"and are timed in {rounds} rounds of {steps} steps", flush=True)
    # Whatever was not compiled in the first block would be timed here, and is an error instead.
    with torch.compiler.set_stance("fail_on_recompile"):
        samples = interleave(blocks, rounds, device=task.device)
        still_agree(blocks)
    print(f"\n{STACK} models, batch 128, float32\n")
    print(f"{'':28}{'ms per':>12}{'vaekit is faster by':>24}{'worst loss':>14}{'of product':>12}")
    print(f"{'':28}{'model-step':>12}{'(95 % interval)':>24}{'difference':>14}{'peak':>12}")
    rows = {}
    for name, seconds in samples.items():
        cost = statistics.median(seconds) * 1e3 / (steps * task.models)
        mid, low, high = ratio(seconds, samples[OURS])
        part = believed(work / ceiling, statistics.median(seconds))
        print(
            f"{name:28}{cost:12.3f}{f'{mid:.2f}x ({low:.2f} to {high:.2f})':>24}"
            f"{errors[name]:14.1e}{part:12.0%}"
        )
        rows[name] = {
            "ms_per_model_step": cost,
            "ratio": [mid, low, high],
            "loss_error": errors[name],
            "share_of_products": part,
            "first_block_seconds": first[name],
        }
    for name, reason in skipped.items():
        print(f"{name:28}skipped: {reason}")
    return {
        "models": task.models,
        "steps": steps,
        "problem": task.described(),
        "skipped": skipped,
        "rows": rows,
        "seconds": samples,
    }


class Plan(NamedTuple):
    """Steps of a timed block and how many blocks, of the peers and of the curves."""

    steps: int
    rounds: int
    curve_steps: int
    curve_rounds: int


FULL, QUICK = Plan(20, 24, 5, 8), Plan(10, 6, 2, 3)


def run(device: torch.device, *, quick: bool) -> dict[str, Any]:
    """Measure the ceilings, the peers, the curves, the memory and the parts; print the tables.

    Args:
        device: where all train.
        quick: fewer rounds, steps and points, and nothing that takes long to compile.

    Returns:
        What `report` is made from: every raw sample.
    """
    plan = QUICK if quick else FULL
    ceilings = measure_ceilings(device)
    rates = ceilings["product_flops_per_second"]
    print(
        f"reads {ceilings['read_bytes_per_second'] / 1e9:.1f} GB/s, "
        f"copies {ceilings['copy_bytes_per_second'] / 1e9:.1f} GB/s, products "
        + ", ".join(f"{rate / 1e9:.0f} GFLOP/s {name}" for name, rate in rates.items())
        + f", {ceilings['seconds_per_call'] * 1e6:.1f} us a call",
        flush=True,
    )
    return {
        "ceilings": ceilings,
        "peers": compare_peers(
            plan.steps, plan.rounds, product_rate(ceilings), device, quick=quick
        ),
        **measure_curves(plan.curve_steps, plan.curve_rounds, device, quick=quick),
        "memory": measure_memory(device, quick=quick),
        "parts": measure_parts(device, quick=quick),
        "resources": measure_resources(quick=quick),
    }
