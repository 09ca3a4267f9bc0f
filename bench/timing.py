"""Times that survive a noisy machine: interleaved rounds, ratios in a round, intervals."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from random import Random

import numpy as np
import torch

from vaekit.machine import synchronize

CPU = torch.device("cpu")
# Seconds before a time on a CPU: the threads of another library, which ran before, may spin on and
# take a core. Those of torch's do for 7 ms (two threads of an AMD EPYC).
SETTLE = 0.01
# Shuffles of a round, of which the one is taken whose neighbours have been so least often.
TRIED = 200


def interleave(
    functions: Mapping[str, Callable[[], object]],
    rounds: int,
    warmup: int = 1,
    device: torch.device = CPU,
    timer: Callable[[Callable[[], object]], float] | None = None,
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
        timer: seconds of a call; the host's clock if none is given.

    Returns:
        Seconds of every counted round, by function.
    """
    samples: dict[str, list[float]] = {name: [] for name in functions}
    for number, order in enumerate(orders(list(functions), warmup + rounds), -warmup):
        for name in order:
            if len(functions) < 3:
                functions[name]()
            elapsed = (timer or partial(on_the_host, device))(functions[name])
            if number >= 0:
                samples[name].append(elapsed)
    return samples


def untimed(device: torch.device) -> int:
    """Rounds that what has trained its first block needs before it is timed.

    A card's blocks are captured as a graph when they are called for the second time.
    """
    return int(device.type == "cuda")


def on_the_host(device: torch.device, call: Callable[[], object]) -> float:
    """Seconds of a call by the host's clock, from an idle device to an idle one."""
    if device.type == "cpu":
        time.sleep(SETTLE)
    synchronize(device)
    start = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - start


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
