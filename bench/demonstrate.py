"""Does the gate keep its word? `nox -s bench -- --demonstrate`, an hour or more.

It must be quiet where two trees do the same, and see a slowdown of 5 %. So real processes compare
a commit with a copy in another folder that has a function more, which is never called: any change
moves things in memory, and that is no slowdown. And they compare it with a copy in which that
function is called: one operation really takes a twentieth longer, with all that is done between its
calls. A trial is five comparisons of the first kind and one of the second, each as the gate itself
makes it, in fresh processes throughout. What is done is stored after
every comparison, and continued on the commit with which it began, as long as what times it is the
same: it takes quiet hours, which need not be of one day.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from bench import gate, paired
from bench.paired import AGAIN, BASE, NEW, SETS, WORDS, of_sets
from bench.provenance import provenance
from bench.storage import place, store

TRIALS, SAME_OF_A_TRIAL = 20, 5
BENCHMARK = "latent side"
SAME, PLANTED = "A/A", "planted 5 %"
# False alarms among comparisons of the same, and slowdowns that must be seen.
ALARMS, SEEN = 0.05, 0.95

PLACE = Path("kernels", "vaekit_kernels", "__init__.py")
# What the copy waits, of the time that it works. What interrupts it costs comes on top: 12 sets of
# the gate measured 4.8 % with 0.036 (two threads of an AMD EPYC). Work of its own is no measure, as
# what is in cache differs: one call more in 20 was 3.2 to 5.6 % from one comparison to the next,
# each known to about 1 %.
WAIT = 0.038
PLANT = f'''

import time

_plain, _left = reparameterise, 0.0


def reparameterise(mean, logvar, noise, **options):
    """Draw latents, then wait for a part of the time since the call before this one."""
    global _left
    entered = time.perf_counter()
    found = _plain(mean, logvar, noise, **options)
    returned = time.perf_counter()
    # A longer pause was not spent on work.
    since = _left if entered - _left < 0.01 else entered
    until = returned + {WAIT} * (returned - since)
    while time.perf_counter() < until:
        pass
    _left = time.perf_counter()
    return found
'''

IDLE = PLANT.replace("def reparameterise", "def never_called")


def plant(tree: Path, copy: Path, lines: str) -> None:
    """Copy a tree, with lines more in the module of its latent side."""
    shutil.copytree(tree, copy)
    with (copy / PLACE).open("a", encoding="utf-8") as file:
        file.write(lines)


def compare(kind: str, trees: Mapping[str, tuple[str, Path]], sets: int) -> dict[str, Any]:
    """Compare a tree with the copy that does the same (`SAME`) or the slower one (`PLANTED`).

    Args:
        kind: of comparison.
        trees: name and place of the tree (`BASE`) and of its copies, by kind.
        sets: of fresh processes, at most.
    """
    roles = {BASE: trees[BASE], AGAIN: trees[BASE], NEW: trees[kind]}
    seconds = gate.take_turns(roles, sets, (BENCHMARK,))[BENCHMARK]
    return {"kind": kind, "seconds": seconds}


def count(comparisons: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """How often the gate says what, by kind of comparison: always of the samples themselves."""
    said = [(row["kind"], paired.judge(row["seconds"]).word) for row in comparisons]
    return {kind: {word: said.count((kind, word)) for word in WORDS} for kind in (SAME, PLANTED)}


def planted_size(comparisons: list[dict[str, Any]]) -> float:
    """Size of what was planted, as it was measured: the ratio over all sets, less 1."""
    planted = [row["seconds"] for row in comparisons if row["kind"] == PLANTED]
    logs = [of_sets(seconds[NEW], seconds[BASE], seconds[AGAIN]) for seconds in planted]
    return float(np.expm1(paired.middle(np.concatenate(logs))))


def kept_its_word(counts: Mapping[str, Mapping[str, int]]) -> bool:
    """Whether alarms were few enough, and slowdowns seen often enough."""
    same, planted = counts[SAME], counts[PLANTED]
    return same["slower"] <= ALARMS * sum(same.values()) and planted["slower"] >= SEEN * sum(
        planted.values()
    )


def unfinished(path: Path, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Give a demonstration that was stopped, if it was made by what is asked now; else nothing."""
    if not path.is_file():
        return {}
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    keys = ("benchmark", "sets", "worker", "plant", "idle")
    same = all(content.get(key) == asked[key] for key in keys)
    then, now = content["provenance"], asked["provenance"]
    same = same and then["machine"] == now["machine"]
    # Of what it recorded; what is recorded only since then is not known to differ.
    return content if same and then["versions"].items() <= now["versions"].items() else {}


def demonstrate(trials: int, sets: int = SETS) -> bool:
    """Make the comparisons, print the counts and store every sample.

    Args:
        trials: each of five comparisons of the same and one of the slower copy. Fewer than
            `TRIALS` are stored as a quick run's.
        sets: of fresh processes, of a comparison, at most.

    Returns:
        Whether the gate kept its word.
    """
    quick = trials < TRIALS
    content = {
        "provenance": provenance(f"python -m bench --demonstrate {trials}"),
        "benchmark": BENCHMARK,
        "sets": sets,
        "worker": gate.worker_digest(),
        "plant": PLANT,
        "idle": IDLE,
    }
    kinds = list(chain.from_iterable([[*[SAME] * SAME_OF_A_TRIAL, PLANTED]] * trials))
    part = place(quick=quick) / "demonstration-unfinished.json"
    stopped = unfinished(part, content)
    found = stopped.get("comparisons", [])[: len(kinds)]
    begun, before, commit = time.monotonic(), len(found), "HEAD"
    if before:
        content["provenance"] = stopped["provenance"]
        commit = stopped["provenance"]["commit"].removesuffix("-dirty")
        there = f"{before} of {len(kinds)} comparisons of {commit} are there already"
        print(f"{there}, in {part}", flush=True)
    with gate.checkout(commit) as tree, tempfile.TemporaryDirectory() as folder:
        trees = {BASE: (commit, tree)}
        for kind, name, lines in ((SAME, "same", IDLE), (PLANTED, "slower", PLANT)):
            trees[kind] = f"the {name} copy of {commit}", Path(folder) / name
            plant(tree, trees[kind][1], lines)
        for number, kind in enumerate(kinds[before:], before + 1):
            found.append(compare(kind, trees, sets))
            store(part.stem, content | {"comparisons": found}, quick=quick)
            each = (time.monotonic() - begun) / (number - before)
            left = each * (len(kinds) - number) / 60
            print(f"{number} of {len(kinds)}, {left:.0f} min left: {count(found)}", flush=True)
    counts, size = count(found), planted_size(found)
    print()
    for kind, words in counts.items():
        said = ", ".join(f"{number} {word}" for word, number in words.items())
        print(f"{kind:14}{sum(words.values()):4} comparisons: {said}")
    print(f"what was planted measures {size:.1%}")
    whole = content | {"planted_size": size, "comparisons": found}
    print(f"\nraw samples: {store('demonstration', whole, quick=quick)}")
    part.unlink(missing_ok=True)
    return kept_its_word(counts)
