"""Long trials of what must never go wrong, with the figures printed: `nox -s soak`.

    python -m bench.soak [--kills 25] [--steps 10000] [--files 100000]

A sweep in a process of its own is killed at random times, again and again until it is done, and its
dataset must have the bits of one that nobody disturbed; a long training must not grow; a checkpoint
must cost no more than its share of the time, and so must telling which models are healthy; SIGTERM
must be obeyed within ten seconds; no broken manifest or plan may be believed, or raise anything but
our own complaint. Any of these that fails ends the program with exit code 1.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np
import psutil
import torch

from vaekit import step
from vaekit.adam import healthy
from vaekit.block import BLOCK_STEPS, make_block
from vaekit.config import SweepConfig
from vaekit.engine import make_step
from vaekit.interrupt import Interrupts
from vaekit.journal import COST_SHARE, FOLDER, INTERVAL_SECONDS, PLAN, Journal
from vaekit.progress import Silent
from vaekit.results import open_results
from vaekit.stack import Stack, plan
from vaekit.state import initial_state
from vaekit.train import train

CPU = torch.device("cpu")
SLOPE_LIMIT = 1.0  # MB per 1,000 steps
LEAVE_SECONDS = 10.0
# Every gradient is read once more: 3 to 4 % of a step on two threads of an Intel Xeon. A look at
# the biases' gradients alone took 1 %, and let weights' gradients that overflow pass.
GUARD_SHARE = 0.05
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
                code = process.wait(timeout=rng.uniform(0.0, 1.0) * length)
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
    journal.directory.mkdir(parents=True)
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


def guarding(blocks: int = 12) -> str:
    """Time the look at which models are healthy, within the training steps that it belongs to.

    Two steps differ by more than it takes, so it is timed where it stands.
    """
    config = SweepConfig(mu=(0.0,), beta=tuple(range(1, 12)), steps=16, device="cpu")
    stack = Stack((0.0,), (0,), config.beta)
    labels = stack.labels(CPU)
    block = make_block(config, labels, make_step(config, initial_state(config, labels.seeds), 1))
    looked: list[float] = []

    def look(*given: object) -> torch.Tensor:
        begun = time.perf_counter()
        found = healthy(*given)  # type: ignore[arg-type]
        looked.append(time.perf_counter() - begun)
        return found

    shares = []
    with mock.patch.object(step, "healthy", look), torch.no_grad():
        for number in range(blocks + 1):
            looked.clear()
            begun = time.perf_counter()
            block(range(1 + BLOCK_STEPS * number, 1 + BLOCK_STEPS * (number + 1)))
            shares.append(sum(looked) / (time.perf_counter() - begun))
    # The first block makes the buffers.
    low, share, high = np.quantile(shares[1:], [0.1, 0.5, 0.9])
    if share > GUARD_SHARE:
        raise TrialError(f"telling the healthy models takes {share:.2%} of a step")
    return (
        f"telling which of 11 default models are healthy takes {share:.2%} of a step "
        f"({low:.2%} to {high:.2%} in eight of ten blocks, limit {GUARD_SHARE:.0%})"
    )


def parsers(place: Path, files: int) -> str:
    """Break a manifest and a plan in many ways; none may raise, or be taken for a whole one."""
    config = SweepConfig(**SMALL, steps=8)
    stacks = plan(config, 2)
    said: list[str] = []
    journal = Journal(place, config, said.append)
    journal.directory.mkdir(parents=True)
    journal.plan(lambda: stacks, 1)
    journal.write("part", stacks[0], 8, {"weights": np.zeros(3)})
    manifest, path = journal.directory / "part-000000000008.json", journal.directory / PLAN
    whole = {file: file.read_bytes() for file in (manifest, path)}
    rng = random.Random(0)
    for number in range(files):
        file = (manifest, path)[number % 2]
        content = broken(rng, whole[file])
        file.write_bytes(content)
        said.clear()
        if file == manifest:
            believed = journal.read("part", stacks[0]) is not None
            right = not believed or json_of(content) == json_of(whole[file])
        else:
            # Where a plan is not believed, another one is made.
            found = journal.plan(lambda: stacks[:1], 1)
            believed = found != (stacks[:1], 1)
            right = not believed or found == (stacks, 1)
        if believed == bool(said) or not right:
            raise TrialError(f"{file.name} is believed: {content!r}")
        file.write_bytes(whole[file])
    return f"{files:,} broken manifests and plans: none raised, none was taken for a whole one"


def broken(rng: random.Random, content: bytes) -> bytes:
    """Change, drop, repeat or insert some bytes."""
    made = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        place, length = rng.randrange(len(made)), rng.choice((1, 1, 4, 12))
        piece = bytes(made[place : place + length])
        made[place : place + length] = rng.choice(
            [
                bytes(rng.choices(b'0123456789"{}[],:.-eNull', k=length)),
                rng.randbytes(length),
                piece + piece,
                b"",
            ]
        )
        made = made or bytearray(b"{")
    return bytes(made)


def json_of(content: bytes) -> object:
    """Read JSON; what is none is only like itself."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return content


def main() -> None:
    """Run every trial and print its figure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=25, help="SIGKILLs in all")
    parser.add_argument("--steps", type=int, default=10_000, help="steps of the long training")
    parser.add_argument("--files", type=int, default=100_000, help="broken manifests and plans")
    options = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        trials = [
            lambda: growth(options.steps),
            lambda: checkpoint_cost(place / "cost"),
            guarding,
            lambda: parsers(place / "parsers", options.files),
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
