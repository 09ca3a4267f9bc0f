"""What only a card does: a full stack beside its peers by precision, and whole trainings.

A full stack is 121 models, as many as the post trains with one seed. Beside its peers they share
one data stream; whole trainings are of the post's 11 mu and 11 beta, by `vaekit.train.train`, from
untrained models to the last step, after a short one that compiles the kernels. The floor of those
is the time in which weights and Adam's moments can be read and written once a step, at the rate of
a copy in this run.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any

import torch

from bench.ceilings import believed
from bench.comparison import compare
from bench.compiled import stacked_compiled
from bench.eager import stacked_autograd, vaekit_bf16, vaekit_engine
from bench.jax_peer import jax_elsewhere, jax_vmap_scan
from bench.peers import OURS, OURS_BF16, absent
from bench.problem import default_problem
from vaekit.block import BLOCK_STEPS
from vaekit.config import SweepConfig
from vaekit.machine import synchronize
from vaekit.model import Architecture
from vaekit.products import float32_products
from vaekit.progress import Silent
from vaekit.results import open_results
from vaekit.stack import Stack
from vaekit.train import train

MODELS = 121
ROUNDS, QUICK_ROUNDS = 24, 6
PEERS = {
    "float32": {
        OURS: vaekit_engine,
        "stacked autograd": stacked_autograd,
        "stacked + torch.compile": stacked_compiled,
        "JAX vmap + scan": jax_vmap_scan,
    },
    "tf32": {
        OURS: vaekit_engine,
        OURS_BF16: vaekit_bf16,
        "stacked autograd": stacked_autograd,
        "stacked + torch.compile": stacked_compiled,
        "JAX vmap + scan": jax_vmap_scan,
    },
}
# Bytes a parameter and step: w, m and v are read and written.
STATE_BYTES = 24
STEPS, QUICK_STEPS = 10_000, 500
TIMES = 2
PRECISIONS = ("float32", "tf32", "bf16")
SWEPT = ("bf16",)


def measure_card(
    device: torch.device, ceilings: Mapping[str, Any], *, quick: bool
) -> dict[str, Any]:
    """Compare full stacks and train whole ones; nothing but the reason where there is no card.

    Args:
        device: where all train.
        ceilings: of it.
        quick: fewer rounds and steps.

    Returns:
        full_float32 and full_tf32, each as `compare` returns it, and whole.
    """
    if device.type != "cuda":
        reason = {"skipped": {"full stacks and whole trainings": "they are timed on a card"}}
        return {"full_float32": reason, "full_tf32": {}, "whole": {}}
    rounds = QUICK_ROUNDS if quick else ROUNDS
    found = {
        f"full_{name}": full_stack(device, name, rounds, ceilings, quick=quick) for name in PEERS
    }
    return found | {"whole": whole_trainings(device, ceilings, quick=quick)}


def full_stack(
    device: torch.device,
    precision: str,
    rounds: int,
    ceilings: Mapping[str, Any],
    *,
    quick: bool,
) -> dict[str, Any]:
    """Time 121 models beside their peers, all with products of one precision."""
    task = default_problem(MODELS, BLOCK_STEPS, device, precision=precision)
    skipped = absent(quick=quick) | jax_elsewhere(device)
    makers = {name: make for name, make in PEERS[precision].items() if name not in skipped}
    with float32_products("high" if precision == "tf32" else "highest"):
        blocks = {name: make(task) for name, make in makers.items()}
        return compare(task, blocks, rounds, ceilings, skipped) | {
            "skipped": {f"{MODELS} models, {name}": why for name, why in skipped.items()},
        }


def whole_trainings(
    device: torch.device, ceilings: Mapping[str, Any], *, quick: bool
) -> dict[str, Any]:
    """Train the post's models of one seed from start to end."""
    rate, steps = ceilings["copy_bytes_per_second"], QUICK_STEPS if quick else STEPS
    rows, samples = {}, {}
    print(f"\nwhole trainings of {MODELS} models, {steps} steps\n")
    print(f"{'':10}{'training, s':>14}{'floor, s':>12}")
    for precision in PRECISIONS:
        config = SweepConfig.from_preset("post", seeds=1, steps=steps, precision=precision)
        stack = Stack(config.mu, (0,) * len(config.mu), config.beta)
        train(config.model_copy(update={"steps": 3 * BLOCK_STEPS}), stack, device, Silent())
        samples[precision] = [timed(config, stack, device) for _ in range(1 if quick else TIMES)]
        bytes_a_step = STATE_BYTES * Architecture.of(config).parameters * stack.models
        least, middle = steps * bytes_a_step / rate, statistics.median(samples[precision])
        believed(least, middle)
        rows[precision] = {"floor_seconds": least}
        print(f"{precision:10}{middle:14.2f}{least:12.2f}", flush=True)
    return {
        "models": MODELS,
        "steps": steps,
        "copy_bytes_per_second": rate,
        "rows": rows,
        "seconds": samples,
    }


def timed(config: SweepConfig, stack: Stack, device: torch.device) -> float:
    """Train once; seconds."""
    synchronize(device)
    start = time.perf_counter()
    train(config, stack, device, Silent())
    synchronize(device)
    return time.perf_counter() - start


def measure_sweeps(device: torch.device, *, quick: bool) -> dict[str, Any]:
    """Run the preset post as a user does, by precision: the quickest one.

    A sweep of a few steps comes first, and is not timed: it compiles what measures too.
    """
    if device.type != "cuda" or quick:
        reason = "--quick leaves no time" if quick else "it is timed on a card"
        return {"sweeps": {"skipped": {"the preset post, from start to report": reason}}}
    seconds, stages = {}, {}
    for name in SWEPT:
        sweep("post", "--precision", name, "--steps", str(3 * BLOCK_STEPS))
        seconds[name], stages[name] = sweep("post", "--precision", name)
        print(f"{name:10}{seconds[name]:14.1f} the preset post, from start to report", flush=True)
    return {"sweeps": {"seconds": seconds, "stages": stages}}


def sweep(preset: str, *options: str) -> tuple[float, dict[str, float]]:
    """Run a preset in a process of its own, from its start to its report.

    Returns:
        Its seconds, and what it says itself of the stages that it knows of when it writes the
        dataset.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "vaekit", "sweep", "--preset", preset, *options]
        start = time.perf_counter()
        subprocess.run([*command, "--out", f"{folder}/run"], check=True, capture_output=True)
        seconds = time.perf_counter() - start
        with open_results(f"{folder}/run") as dataset:
            return seconds, json.loads(dataset.attrs["seconds"])
