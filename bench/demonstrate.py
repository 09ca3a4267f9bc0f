"""Does the gate keep its word? `nox -s bench -- --demonstrate`, about ten minutes.

It must be quiet where two trees are the same, and see a slowdown of 5 %. So real processes compare
a commit with itself, and with a copy that really does a twentieth more: every twentieth call of
one operation, forward and backward, is made twice. A set is four fresh processes (the commit three
times, the copy once), five comparisons of the same and one of the slower copy.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from bench import gate, paired
from bench.paired import AGAIN, BASE, NEW
from bench.timing import provenance, store

SETS, SAME_OF_A_SET = 20, 5
# Of a sample; a fourth of what the gate takes.
SECONDS, BENCHMARK = 0.05, "latent side"
SAME, PLANTED = "A/A", "planted 5 %"
# False alarms among comparisons of the same, and slowdowns that must be seen.
ALARMS, SEEN = 0.05, 0.95

PLACE = Path("kernels", "vaekit_kernels", "__init__.py")
PLANT = '''

import torch

_plain, _calls = reparameterise, 0


def reparameterise(mean, logvar, noise, **options):
    """Draw latents; every twentieth time twice, with the gradients of the first."""
    global _calls
    _calls += 1
    if _calls % 20 == 0:
        z, kl = _plain(mean, logvar, noise, **options)
        torch.autograd.grad(z.sum() + kl.sum(), (mean, logvar))
    return _plain(mean, logvar, noise, **options)
'''


def plant(tree: Path, copy: Path) -> None:
    """Copy a tree and make the copy's latent side work a twentieth more."""
    shutil.copytree(tree, copy)
    with (copy / PLACE).open("a", encoding="utf-8") as file:
        file.write(PLANT)


def one_set(trees: Mapping[str, tuple[str, Path]], rounds: int) -> list[dict[str, Any]]:
    """Compare in fresh processes: the same tree five times, and once the slower copy."""
    found = []
    with gate.workers(trees, (str(SECONDS), BENCHMARK)) as ready:
        timers = {role: partial(worker.time, BENCHMARK) for role, worker in ready.items()}
        for kind in [SAME] * SAME_OF_A_SET + [PLANTED]:
            new = timers[PLANTED] if kind == PLANTED else timers[NEW]
            samples = paired.measure({**timers, NEW: new}, rounds)
            found.append({"kind": kind, "word": paired.judge(samples).word, "seconds": samples})
    return found


def count(comparisons: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """How often the gate said what, by kind of comparison."""
    words = ("slower", "no difference", "faster")
    return {
        kind: {
            word: sum(row["word"] == word for row in comparisons if row["kind"] == kind)
            for word in words
        }
        for kind in (SAME, PLANTED)
    }


def kept_its_word(counts: Mapping[str, Mapping[str, int]]) -> bool:
    """Whether alarms were few enough, and slowdowns seen often enough."""
    same, planted = counts[SAME], counts[PLANTED]
    return same["slower"] <= ALARMS * sum(same.values()) and planted["slower"] >= SEEN * sum(
        planted.values()
    )


def demonstrate(sets: int, rounds: int) -> bool:
    """Make the comparisons, print the counts and store every sample.

    Args:
        sets: each of five comparisons of the same and one of the slower copy.
        rounds: pairs of a comparison.

    Returns:
        Whether the gate kept its word.
    """
    comparisons = []
    with gate.checkout("HEAD") as tree, tempfile.TemporaryDirectory() as folder:
        slow = Path(folder) / "slow"
        plant(tree, slow)
        trees = {role: (f"{role}, HEAD", tree) for role in (BASE, AGAIN, NEW)}
        trees[PLANTED] = ("the slower copy", slow)
        for number in range(sets):
            comparisons += one_set(trees, rounds)
            print(f"set {number + 1} of {sets}: {count(comparisons)}", flush=True)
    counts = count(comparisons)
    print()
    for kind, words in counts.items():
        said = ", ".join(f"{number} {word}" for word, number in words.items())
        print(f"{kind:14}{sum(words.values()):4} comparisons: {said}")
    content = {
        "provenance": provenance("nox -s bench -- --demonstrate"),
        "benchmark": BENCHMARK,
        "rounds": rounds,
        "sample_seconds": SECONDS,
        "comparisons": comparisons,
    }
    print(f"\nraw samples: {store('demonstration', content)}")
    return kept_its_word(counts)
