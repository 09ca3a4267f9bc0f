"""Times that survive a noisy machine: interleaved rounds, ratios in a round, intervals."""

from __future__ import annotations

import json
import platform
import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

from vaekit.files import write_whole
from vaekit.machine import device_name, synchronize, versions

CPU = torch.device("cpu")
REPORTS = Path(__file__).resolve().parent.parent / "reports" / "bench"
# Shuffles of a round, of which the one is taken whose neighbours have been so least often.
TRIED = 200


class BenchError(Exception):
    """What was asked for cannot be done: exit code 2, since 1 says that the tree is slower."""


def interleave(
    functions: Mapping[str, Callable[[], object]],
    rounds: int,
    warmup: int = 1,
    device: torch.device = CPU,
) -> dict[str, list[float]]:
    """Time every function once a round, in the `orders` of so many.

    A drift of the machine's speed then meets all of them alike, so the ratio of two times of one
    round means something even where the times themselves do not. One function, or two, would be
    timed right after themselves, or each always after the other: those are run once untimed before
    every time, so that each finds in cache what it left there itself.

    Args:
        functions: what to time.
        rounds: counted rounds.
        warmup: rounds that are run first and not counted.
        device: is waited for before and after each call.

    Returns:
        Seconds of every counted round, by function.
    """
    samples: dict[str, list[float]] = {name: [] for name in functions}
    for number, order in enumerate(orders(list(functions), warmup + rounds), -warmup):
        for name in order:
            if len(functions) < 3:
                functions[name]()
            synchronize(device)
            start = time.perf_counter()
            functions[name]()
            synchronize(device)
            elapsed = time.perf_counter() - start
            if number >= 0:
                samples[name].append(elapsed)
    return samples


def orders(names: Sequence[str], rounds: int) -> Iterator[list[str]]:
    """Give the order of every round: all names, shuffled by a fixed seed.

    Of three names and more none comes twice in a row, within a round or from one to the next, since
    the second time would find its memory in cache; and each comes after each other one about as
    often, since what a time is depends on who was there before.
    """
    random = Random(0)
    before: Counter[tuple[str, str]] = Counter()
    last = ""
    for _ in range(rounds):
        tried = [random.sample(names, len(names)) for _ in range(TRIED)]
        found = min(
            (order for order in tried if order[0] != last or len(names) < 3),
            key=lambda order: sum(before[pair] ** 2 for pair in pairwise([last, *order])),
        )
        before.update(pairwise([last, *found]))
        last = found[-1]
        yield found


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
