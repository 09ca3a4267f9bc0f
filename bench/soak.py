"""Long trials of what must never go wrong, with the figures printed: `nox -s soak`.

    python -m bench.soak [--kills 25] [--steps 10000]

A sweep in a process of its own is killed at random times, again and again until it is done, and its
dataset must have the bits of one that nobody disturbed; a long training must not grow; a checkpoint
must cost no more than its share of the time; SIGTERM must be obeyed within ten seconds. Any of
these that fails ends the program with exit code 1.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import torch

from vaekit.config import SweepConfig
from vaekit.interrupt import Interrupts
from vaekit.journal import COST_SHARE, FOLDER, INTERVAL_SECONDS, Journal
from vaekit.progress import Silent
from vaekit.results import open_results
from vaekit.stack import Stack
from vaekit.train import train

CPU = torch.device("cpu")
SLOPE_LIMIT = 1.0  # MB per 1,000 steps
LEAVE_SECONDS = 10.0
SMALL = {
    "mu": (0.0, 1.0, 3.0),
    "beta": (0.5, 8.0),
    "hidden": (32, 16),
    "batch": 16,
    "grid": 2,
    "tile": 3,
    "latents": 4,
    "evaluation_draws": 256,
    "baseline_seeds": 2,
    "device": "cpu",
    "threads": 1,
    "stack": 2,
}


class TrialError(RuntimeError):
    """Something that must never happen did."""


def start(config: SweepConfig, out: Path, seconds: float) -> subprocess.Popen[bytes]:
    """Start a sweep in a process of its own."""
    file = out.with_suffix(".toml")
    file.write_text(config.to_toml())
    words = ["sweep", "--config", str(file), "--out", str(out)]
    code = "import sys; from vaekit import cli; sys.exit(cli.run(sys.argv[1:]))"
    command = [sys.executable, "-c", code, *words, "--checkpoint-seconds", str(seconds)]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def kills(place: Path, wanted: int) -> str:
    """Kill a run at random times until it has been killed often enough; compare every dataset."""
    config = SweepConfig(**SMALL, steps=3000)
    whole = place / "whole"
    begun = time.monotonic()
    if start(config, whole, 60.0).wait():
        raise TrialError("the run that nobody disturbs failed")
    length = time.monotonic() - begun
    expected = open_results(whole)
    rng = random.Random(0)
    done = runs = 0
    while done < wanted:
        out = place / f"killed-{runs}"
        while True:
            process = start(config, out, 0.0)
            # From before the first file to after the last.
            try:
                code = process.wait(timeout=rng.uniform(0.3, 1.0) * length)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                done += 1
                continue
            if code:
                raise TrialError(f"a run that was killed before ended with exit code {code}")
            break
        found = open_results(out)
        for name in expected.data_vars:
            same = np.array_equal(
                found[name].values, expected[name].values, equal_nan=found[name].dtype.kind == "f"
            )
            if not same:
                raise TrialError(f"{name} of a run that was killed has other bits")
        runs += 1
    return f"{done} of {done} SIGKILLs at random times, in {runs} runs, ended in identical bits"


def growth(steps: int) -> str:
    """Train for long and fit a line to the memory of this process."""
    config = SweepConfig(**SMALL, steps=steps)
    process = psutil.Process()
    memory: list[float] = []

    class Watch(Silent):
        done = 0

        def advance(self, amount: int) -> None:
            self.done += amount // 2
            if self.done // 500 > len(memory):
                memory.append(process.memory_info().rss / 1e6)

    train(config, Stack((0.0,), (0,), (0.5, 8.0)), CPU, Watch())
    # The first fifth is what a process takes to warm up.
    settled = memory[len(memory) // 5 :]
    slope = float(np.polyfit(0.5 * np.arange(len(settled)), settled, 1)[0])
    if slope > SLOPE_LIMIT:
        raise TrialError(f"memory grows by {slope:.2f} MB per 1,000 steps")
    return f"{steps:,} steps: memory grows by {slope:+.3f} MB per 1,000 steps (limit {SLOPE_LIMIT})"


def checkpoint_cost(place: Path) -> str:
    """Time one checkpoint of a stack of the default network beside the time between two."""
    config = SweepConfig(mu=(0.0,), beta=tuple(range(1, 12)), steps=16, device="cpu")
    stack = Stack((0.0,), (0,), config.beta)
    journal = Journal(place, config, print, 0.0)
    costs = []
    with journal.lock():
        keeper = journal.keeper(0, Interrupts())
        save = keeper.save

        def timed(*arguments: object) -> None:
            save(*arguments)  # type: ignore[arg-type]
            costs.append(keeper.cost)

        keeper.save = timed  # type: ignore[method-assign]
        train(config, stack, CPU, Silent(), keeper)
    share = max(costs) / INTERVAL_SECONDS
    if share > COST_SHARE:
        raise TrialError(f"a checkpoint takes {max(costs):.2f} s")
    return (
        f"a checkpoint of 11 default models takes {max(costs):.2f} s, {share:.2%} of the "
        f"{INTERVAL_SECONDS:.0f} s between two (limit {COST_SHARE:.0%})"
    )


def leaving(place: Path) -> str:
    """Ask a run of the default network to leave while it trains."""
    config = SweepConfig.from_preset("laptop", mu=(0.0, 1.0), device="cpu")
    out = place / "leaving"
    process = start(config, out, 1e6)
    while not (out / FOLDER / "plan.json").exists():
        time.sleep(0.05)
    time.sleep(3.0)
    process.send_signal(signal.SIGTERM)
    begun = time.monotonic()
    code = process.wait(timeout=60)
    took = time.monotonic() - begun
    kept = list((out / FOLDER).glob("training-*.json"))
    if code != 143 or took > LEAVE_SECONDS or not kept:
        raise TrialError(f"SIGTERM: exit code {code} after {took:.1f} s, {len(kept)} checkpoints")
    return f"SIGTERM commits a checkpoint and leaves in {took:.1f} s (limit {LEAVE_SECONDS:.0f})"


def main() -> None:
    """Run every trial and print its figure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=25, help="SIGKILLs in all")
    parser.add_argument("--steps", type=int, default=10_000, help="steps of the long training")
    options = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        trials = [
            lambda: growth(options.steps),
            lambda: checkpoint_cost(place / "cost"),
            lambda: leaving(place),
            lambda: kills(place, options.kills),
        ]
        for trial in trials:
            try:
                print(trial(), flush=True)
            except TrialError as error:
                failed = True
                print(f"FAILED: {error}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
