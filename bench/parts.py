"""What a training step's time goes to, by PyTorch's own profiler.

The profiler's clock runs in the thread that calls the operations, so an operation's time is what
the loop waits for it, whatever threads it uses itself. Watching costs a microsecond or two an
operation, which falls to the small ones. On a card it is the card's own time, by kernel.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.autograd.profiler import profile, record_function
from torch.autograd.profiler_util import FunctionEvent

from bench.errors import BenchError
from bench.problem import CPU, default_config
from bench.provenance import ROOT
from vaekit.block import BLOCK_STEPS, make_block, train_steps
from vaekit.config import SweepConfig
from vaekit.data import draw
from vaekit.engine import make_step
from vaekit.host import keep_freed_memory
from vaekit.machine import synchronize
from vaekit.objective import latent_noise
from vaekit.products import fast_products
from vaekit.stack import Stack
from vaekit.state import initial_state
from vaekit.step import TritonStep

MODELS = 11
WINDOWS, QUICK_WINDOWS = 7, 3
IMAGES, NOISE, STEP = "images", "noise of the latents", "Python between operations"
PRODUCTS, ADAM, OTHERS = "products", "Adam", "other operations"
PARTS = (PRODUCTS, ADAM, OTHERS, IMAGES, NOISE, STEP)
KERNELS = 12


def part(event: FunctionEvent) -> str:
    """Name the part of a step that an event's own time belongs to."""
    names = [event.name]
    while event.cpu_parent is not None:
        event = event.cpu_parent
        names.append(event.name)
    for drawn in (IMAGES, NOISE):
        if drawn in names:
            return drawn
    if any("mm" in name for name in names):
        return PRODUCTS
    if any("adam" in name for name in names):
        return ADAM
    return STEP if names[0] == STEP else OTHERS


def split(events: list[FunctionEvent], steps: int) -> dict[str, float]:
    """Add up the events' own times by part, in seconds a step."""
    found: dict[str, float] = defaultdict(float)
    for event in events:
        found[part(event)] += event.self_cpu_time_total * 1e-6 / steps
    return {name: found[name] for name in PARTS}


def by_kernel(windows: list[list[FunctionEvent]], steps: int) -> dict[str, list[float]]:
    """Add up a card's time by kernel: seconds a step of every window, the small ones as one."""
    found: dict[str, list[float]] = defaultdict(lambda: [0.0] * len(windows))
    for number, events in enumerate(windows):
        for event in events:
            if event.device_type == DeviceType.CUDA:
                found[event.name][number] += event.self_device_time_total * 1e-6 / steps
    ranked = sorted(found, key=lambda name: sum(found[name]), reverse=True)
    rest = [sum(row) for row in zip(*(found[name] for name in ranked[KERNELS:]), strict=True)]
    return {name: found[name] for name in ranked[:KERNELS]} | ({OTHERS: rest} if rest else {})


def by_short_name(seconds: Mapping[str, list[float]]) -> dict[str, list[float]]:
    """Add up what differs only in a kernel's template arguments, which can fill a page."""
    found: dict[str, list[float]] = {}
    for name, windows in seconds.items():
        plain = name.replace("(anonymous namespace)::", "").removeprefix("void ")
        short = re.split("[<(]", plain)[0].rpartition("::")[2]
        before = found.get(short, [0.0] * len(windows))
        found[short] = [sum(pair) for pair in zip(before, windows, strict=True)]
    return found


def watch(windows: int, device: torch.device = CPU) -> dict[str, Any]:
    """Profile blocks of the engine's training.

    Returns:
        models, the seconds a step of each part in every window, and those of a whole step that
        nobody watched.
    """
    if device.type == "cuda":
        return watch_card(windows, device)
    keep_freed_memory()  # as a sweep does
    config = default_config(MODELS)
    mu = torch.zeros(1, device=device)
    seeds = torch.zeros(MODELS, dtype=torch.int64, device=device)
    beta = torch.tensor(config.beta, device=device)
    step = make_step(config, initial_state(config, seeds), streams=1)
    steps = torch.arange(1, BLOCK_STEPS + 1, device=device)

    def block() -> None:
        with record_function(IMAGES):
            images, _ = draw(
                config, mu.repeat(BLOCK_STEPS), seeds[:BLOCK_STEPS], steps, batch=config.batch
            )
        with record_function(NOISE):
            noise = latent_noise(
                config,
                seeds.repeat(BLOCK_STEPS),
                beta.repeat(BLOCK_STEPS),
                steps.repeat_interleave(MODELS),
            ).unflatten(0, (BLOCK_STEPS, MODELS))
        for given in zip(images[:, None], noise, strict=True):
            with record_function(STEP):
                step(*given, beta)

    found, unwatched = [], []
    with torch.no_grad(), fast_products(device):
        block()
        for _ in range(windows):
            start = time.perf_counter()
            block()
            unwatched.append((time.perf_counter() - start) / BLOCK_STEPS)
            with profile() as watched:
                block()
            found.append(watched.function_events)
    shares = [split(events, BLOCK_STEPS) for events in found]
    seconds = {name: [share[name] for share in shares] for name in PARTS}
    return {"models": MODELS, "seconds": seconds, "unwatched_seconds": unwatched}


def watch_card(windows: int, device: torch.device) -> dict[str, Any]:
    """Profile blocks of the post's 121 models in the kernels' step; returns as `watch`.

    It is watched whole, as kernels of parts that run side by side would be counted twice over.
    """
    config = SweepConfig.from_preset("post", seeds=1)
    stack = Stack(config.mu, (0,) * len(config.mu), config.beta)
    labels = stack.labels(device)
    step = make_step(config, initial_state(config, labels.seeds), len(stack.mu))
    whole = make_block(config, labels, step)
    watched_step = TritonStep(config, initial_state(config, labels.seeds), len(stack.mu))
    steps = torch.arange(1, BLOCK_STEPS + 1, device=device)
    found, unwatched = [], []
    with torch.no_grad():
        for _ in range(2):
            whole(range(1, BLOCK_STEPS + 1))
            train_steps(config, labels, watched_step, steps)
        for _ in range(windows):
            synchronize(device)
            start = time.perf_counter()
            whole(range(1, BLOCK_STEPS + 1))
            synchronize(device)
            unwatched.append((time.perf_counter() - start) / BLOCK_STEPS)
            with profile(use_device="cuda", use_kineto=True) as watched:
                train_steps(config, labels, watched_step, steps)
                synchronize(device)
            found.append(watched.function_events)
    seconds = by_kernel(found, BLOCK_STEPS)
    return {"models": stack.models, "seconds": seconds, "unwatched_seconds": unwatched}


def measure_parts(device: torch.device, *, quick: bool) -> dict[str, Any]:
    """Watch in a process of its own, which keeps the profiler's chatter, and print the table.

    Raises:
        BenchError: that process failed.
    """
    windows = QUICK_WINDOWS if quick else WINDOWS
    command = [sys.executable, "-m", "bench.parts", str(windows), str(device)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        raise BenchError(f"the profile of a step failed:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)
    rows = by_short_name(found["seconds"])
    total = sum(statistics.median(seconds) for seconds in rows.values())
    print(f"\nwhat a step of {found['models']} models goes to: ms, share of what was watched\n")
    for name, seconds in rows.items():
        middle = statistics.median(seconds)
        print(f"{name:28}{middle * 1e3:10.3f}{middle / total:10.0%}")
    unwatched = statistics.median(found["unwatched_seconds"])
    print(f"{'in all, unwatched':28}{unwatched * 1e3:10.3f}", flush=True)
    return found


if __name__ == "__main__":
    print(json.dumps(watch(int(sys.argv[1]), torch.device(sys.argv[2]))))
