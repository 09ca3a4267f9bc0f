"""Times that survive a noisy machine: interleaved rounds, ratios in a round, intervals."""

from __future__ import annotations

import json
import platform
import re
import subprocess
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vaekit.files import write_whole
from vaekit.machine import device_name, synchronize, versions

CPU = torch.device("cpu")
REPORTS = Path(__file__).resolve().parent.parent / "reports" / "bench"


class BenchError(Exception):
    """What was asked for cannot be done: exit code 2, since 1 says that the tree is slower."""


def interleave(
    functions: Mapping[str, Callable[[], object]],
    rounds: int,
    warmup: int = 1,
    device: torch.device = CPU,
) -> dict[str, list[float]]:
    """Time every function once a round, in an order that turns by one each round.

    A drift of the machine's speed then meets all of them alike, so the ratio of two times of one
    round means something even where the times themselves do not.

    Args:
        functions: what to time.
        rounds: counted rounds.
        warmup: rounds that are run first and not counted.
        device: is waited for before and after each call.

    Returns:
        Seconds of every counted round, by function.
    """
    names = list(functions)
    samples: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-warmup, rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            synchronize(device)
            start = time.perf_counter()
            functions[name]()
            synchronize(device)
            elapsed = time.perf_counter() - start
            if number >= 0:
                samples[name].append(elapsed)
    return samples


def ratio(over: list[float], under: list[float], draws: int = 10_000) -> tuple[float, float, float]:
    """Median of the rounds' ratios over / under, with its 95 % bootstrap interval.

    Returns:
        median, lower and upper end.
    """
    ratios = np.asarray(over) / np.asarray(under)
    picks = np.random.default_rng(0).integers(len(ratios), size=(draws, len(ratios)))
    low, high = np.quantile(np.median(ratios[picks], axis=1), [0.025, 0.975])
    return float(np.median(ratios)), float(low), float(high)


def machine_slug() -> str:
    """Name the machine by its processor and threads, fit for a folder's name."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return re.sub(r"[^a-z0-9]+", "-", device_name(device).lower()).strip("-")


def provenance(command: str) -> dict[str, Any]:
    """What a figure needs beside it: command, commit, date, machine, versions, threads."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],  # noqa: S607 (the user's own git)
        capture_output=True,
        text=True,
        check=False,
        cwd=REPORTS.parent.parent,
    ).stdout.strip()
    return {
        "command": command,
        "commit": commit or "not a checkout",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": device_name(torch.device("cpu")),
        "threads": torch.get_num_threads(),
        "platform": platform.platform(terse=True),
        "versions": versions(),
    }


def place(*, quick: bool = False) -> Path:
    """Folder of this machine's samples: reports/bench/<machine>, a quick run's in `quick` there."""
    return REPORTS / machine_slug() / ("quick" if quick else "")


def store(name: str, content: Mapping[str, Any], *, quick: bool = False) -> Path:
    """Write a benchmark's raw samples to `place`; a quick run never replaces a full one's."""
    folder = place(quick=quick)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    write_whole(path, json.dumps(content, indent=1) + "\n")
    return path
