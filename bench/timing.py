"""Times that survive a noisy machine: interleaved rounds, ratios in a round, intervals."""

from __future__ import annotations

import importlib.util
import json
import platform
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

from vaekit.files import write_whole
from vaekit.machine import device_name, synchronize, versions

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[1]
REPORTS = ROOT / "reports" / "bench"
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


def machine_name() -> str:
    """Name the processor with its threads and, where there is one, the card."""
    cards = [torch.device("cuda")] if torch.cuda.is_available() else []
    return ", ".join(map(device_name, [CPU, *cards]))


def machine_slug() -> str:
    """Name the machine by its processor, threads and card, fit for a folder's name."""
    return re.sub(r"[^a-z0-9]+", "-", machine_name().lower()).strip("-")


def said(*command: str) -> str:
    """What a command prints; an empty text where it is not there or fails."""
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    return "" if done.returncode else done.stdout.strip()


def tools() -> dict[str, str]:
    """Versions of what only the benchmarks use, and of what drives a card; "absent" where not."""
    found = dict.fromkeys(("jax", "jaxlib"), "")
    for package in found:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    compilers = (said(name, "--version").partition("\n")[0] for name in ("g++", "clang++"))
    found["C++ compiler"] = next(filter(None, compilers), "")
    query = ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    found["driver"] = said(*query).partition("\n")[0]
    triton = importlib.util.find_spec("triton")
    if triton and triton.origin:
        ptxas = Path(triton.origin).parent / "backends" / "nvidia" / "bin" / "ptxas"
        found["ptxas"] = said(str(ptxas), "--version").rpartition("\n")[2]
    return {name: text or "absent" for name, text in found.items()}


def provenance(command: str) -> dict[str, Any]:
    """What a figure needs beside it: command, commit, date, machine, versions, threads."""
    return {
        "command": command,
        "commit": said("git", "describe", "--always", "--dirty") or "not a checkout",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine_name(),
        "threads": torch.get_num_threads(),
        "platform": platform.platform(terse=True),
        "versions": versions() | tools(),
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
