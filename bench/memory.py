"""Peak memory of a training, each in a process of its own: `python -m bench.memory MODELS DEVICE`.

On a CPU the peak is the kernel's own count of the pages that a process has had in memory (VmHWM);
the count of `getrusage` is no use, since a child's begins with its parent's. On a card it is the
allocator's.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from bench.problem import default_config
from bench.provenance import ROOT
from vaekit.block import BLOCK_STEPS
from vaekit.host import keep_freed_memory
from vaekit.progress import Silent
from vaekit.stack import Stack, training_bytes
from vaekit.train import train

STATUS = Path("/proc/self/status")
MODELS, QUICK_MODELS = (1, 11, 22, 44, 121), (1, 11, 44)


def peak(device: torch.device) -> int:
    """Bytes that this process has had in the device's memory at most so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    found = re.search(r"^VmHWM:\s*(\d+) kB$", STATUS.read_text(), re.M)
    assert found
    return 1024 * int(found[1])


def trained(models: int, device: torch.device) -> dict[str, int]:
    """Train a stack for two blocks of steps; the bytes that it took, and that it is sized by."""
    config = default_config(models, 2 * BLOCK_STEPS)
    stack = Stack((0.0,), (0,), config.beta)
    keep_freed_memory()  # as a sweep does
    train(config, stack, device, Silent())
    return {"peak": peak(device), "planned": training_bytes(config, stack)}


def beyond_one(curve: dict[str, dict[str, int]]) -> dict[str, tuple[int, int]]:
    """Bytes beyond those of a stack of one, measured and planned, by the number of models.

    What the libraries take for themselves is the same in every process and falls out.
    """
    one = curve["1"]
    return {
        name: (row["peak"] - one["peak"], row["planned"] - one["planned"])
        for name, row in curve.items()
        if row is not one
    }


def measure_memory(device: torch.device, *, quick: bool) -> dict[str, Any]:
    """Train stacks of several sizes, each in a fresh process, and print the table."""
    if device.type == "cpu" and not STATUS.exists():
        return {"skipped": {"peak memory": f"{STATUS}, which it is read from, is not there"}}
    print("\npeak memory of a training in MB, beyond that of one model's, each a fresh process\n")
    # All at once: nothing is timed here.
    running = {
        str(models): subprocess.Popen(
            [sys.executable, "-m", "bench.memory", str(models), str(device)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for models in (QUICK_MODELS if quick else MODELS)
    }
    try:
        printed = {models: process.communicate()[0] for models, process in running.items()}
    finally:
        for process in running.values():
            process.kill()
    for process in running.values():
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, process.args)
    curve = {models: json.loads(text) for models, text in printed.items()}
    print(f"{'models':>12}{'measured':>10}{'planned':>10}")
    for name, (grown, planned) in beyond_one(curve).items():
        print(f"{name:>12}{grown / 1e6:10.0f}{planned / 1e6:10.0f}", flush=True)
    return {"curve": curve}


if __name__ == "__main__":
    print(json.dumps(trained(int(sys.argv[1]), torch.device(sys.argv[2]))))
