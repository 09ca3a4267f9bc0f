"""Times of several ways to train the same models, held to the same losses.

Every one is first held to the reference's losses (`peers.check`); one that trains to something else
stops the benchmark before a time is printed. Times are per model-step, ratios come from interleaved
rounds with a bootstrap interval, an A/A row (the engine against itself) shows what the machine's
noise alone does, and every raw sample is stored.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

import torch

from bench.ceilings import believed, product_rate, step_flops
from bench.eager import vaekit_engine
from bench.peers import OURS, OURS_AGAIN, check, products_of, still_agree
from bench.problem import Block, Problem
from bench.timing import interleave, ratio, untimed


def compare(
    task: Problem,
    blocks: dict[str, Block],
    rounds: int,
    ceilings: Mapping[str, Any],
    skipped: Mapping[str, str],
) -> dict[str, Any]:
    """Check, time and check again; print the table and return it with the samples.

    Args:
        task: what is trained.
        blocks: each trains a block of its steps; `OURS` is what the others are held against.
        rounds: timed blocks of each.
        ceilings: of the device that it is timed on; a row must not be above that of its products.
        skipped: what is not among the blocks, each with the reason.
    """
    steps, config = task.steps, task.config
    work = step_flops(task.stack().architecture, config.batch) * steps * task.models
    blocks = blocks | {OURS_AGAIN: vaekit_engine(task)}
    print(f"\n{len(blocks)} peers train a first block, and compile what they compile", flush=True)
    errors, first = check(task, blocks)
    print(f"and are timed in {rounds} rounds of {steps} steps", flush=True)
    # Whatever was not compiled in the first block would be timed here, and is an error instead.
    with torch.compiler.set_stance("fail_on_recompile"):
        samples = interleave(blocks, rounds, untimed(task.device), task.device)
        still_agree(task, blocks)
    print(f"\n{task.models} models, batch {config.batch}, {config.precision}\n")
    print(f"{'':28}{'ms per':>12}{'vaekit is faster by':>26}{'worst loss':>14}{'of matmul':>12}")
    print(f"{'':28}{'model-step':>12}{'(95 % interval)':>26}{'difference':>14}{'peak':>12}")
    rows = {}
    for name, seconds in samples.items():
        cost = statistics.median(seconds) * 1e3 / (steps * task.models)
        mid, low, high = ratio(seconds, samples[OURS])
        peak = product_rate(ceilings, products_of(name, config.precision))
        part = believed(work / peak, statistics.median(seconds))
        print(
            f"{name:28}{cost:12.3g}{f'{mid:.2f}x ({low:.2f} to {high:.2f})':>26}"
            f"{errors[name]:14.1e}{part:12.0%}"
        )
        rows[name] = {
            "ms_per_model_step": cost,
            "ratio": [mid, low, high],
            "loss_error": errors[name],
            "first_block_seconds": first[name],
        }
    for name, reason in skipped.items():
        print(f"{name:28}skipped: {reason}")
    return {
        "models": task.models,
        "steps": steps,
        "problem": task.described(),
        "rows": rows,
        "seconds": samples,
    }
