"""Does the tree here train slower than another commit's? `nox -s bench -- --against REF`.

Three processes stand ready (`workers`), two with the commit's sources and one with the tree's as
it lies here, uncommitted changes included; `paired` takes turns between them, in sets of fresh
processes, and decides. Exit code 1 means a regression, and the raw samples are stored whatever the
verdict. It times what one core of a CPU runs, beside a card too: what several do, or a card, is
compared with a stored run's.
"""

from __future__ import annotations

import io
import math
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from bench import paired
from bench.errors import BenchError
from bench.paired import AGAIN, BASE, NEW, ORDER, Times, Verdict
from bench.provenance import ROOT, provenance
from bench.storage import store
from bench.workers import digest, workers

# Of a sample; see `paired.ROUNDS`.
SECONDS = 0.02
CALIBRATION = 3


@contextmanager
def checkout(ref: str) -> Iterator[Path]:
    """Give a folder with the files of a commit; the repository and its work tree are not touched.

    Raises:
        BenchError: there is no such commit.
    """
    packed = subprocess.run(
        ["git", "archive", "--format=tar", ref],  # noqa: S607 (the user's own git)
        capture_output=True,
        check=False,
        cwd=ROOT,
    )
    if packed.returncode:
        words = packed.stderr.decode(errors="replace").strip()
        raise BenchError(f"against: got {ref!r}; allowed: a commit of this checkout ({words})")
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
            archive.extractall(folder, filter="data")
        yield Path(folder)


def against(
    ref: str, sets: int = paired.SETS, new: Path = ROOT, *, quick: bool = False
) -> dict[str, Verdict]:
    """Compare the tree here with a commit; print the table, store the samples.

    Args:
        ref: the commit, as git names it.
        sets: of fresh processes, at most.
        new: the tree that is judged.
        quick: of the samples, where they are stored.

    Returns:
        The verdict of each benchmark.
    """
    with checkout(ref) as tree:
        trees = {BASE: (ref, tree), AGAIN: (ref, tree), NEW: ("the tree here", new)}
        samples = take_turns(trees, sets)
    verdicts = {benchmark: paired.judge(seconds) for benchmark, seconds in samples.items()}
    print(table(ref, verdicts))
    content = {
        "provenance": provenance(f"python -m bench --against {ref}"),
        "against": ref,
        "worker": worker_digest(),
        "seconds": samples,
    }
    print(f"\nraw samples: {store('against', content, quick=quick)}")
    return verdicts


def take_turns(
    trees: Mapping[str, tuple[str, Path]],
    sets: int,
    wanted: Sequence[str] = (),
    *,
    until: Callable[[Mapping[str, Times]], bool] = paired.is_close,
) -> dict[str, dict[str, Times]]:
    """Time benchmarks in sets of fresh processes of `BASE`, `AGAIN` and `NEW`.

    A sample is as many runs in every process: what a run costs depends on how many came before it.

    Args:
        trees: name and place of each, by its role.
        sets: of fresh processes, at most.
        wanted: benchmarks; none: all that there are.
        until: ends them before, once it is true of every benchmark.

    Returns:
        Seconds of every round of every set, by benchmark and role.
    """
    samples: dict[str, dict[str, Times]] = {}
    repeats: dict[str, int] = {}
    begun = time.monotonic()
    for number in range(sets):
        # The other way around in every other set, so that nobody has always the same before it.
        order = ORDER[:: -1 if number % 2 else 1]
        with workers({role: trees[role] for role in order}, wanted) as (ready, benchmarks):
            for name in benchmarks:
                if name not in repeats:
                    repeats[name] = math.ceil(SECONDS / ready[BASE].time(name, CALIBRATION))
                timers = {
                    role: partial(worker.time, name, repeats[name])
                    for role, worker in ready.items()
                }
                for role, seconds in paired.measure(timers, order).items():
                    samples.setdefault(name, {role: [] for role in ORDER})[role].append(seconds)
        done = number + 1 == sets or all(map(until, samples.values()))
        gone = time.monotonic() - begun
        print(
            f"\rset {number + 1} of at most {sets}: {gone:.0f} s ",
            end="\n" if done else "", file=sys.stderr, flush=True,
        )  # fmt: skip
        if done:
            break
    return samples


def worker_digest() -> str:
    """Digest of what the processes run, in how many rounds of what length."""
    return digest(f"{paired.ROUNDS} of {SECONDS} s")


def table(ref: str, verdicts: Mapping[str, Verdict]) -> str:
    """The verdicts as text."""
    lines = [
        f"\ntime of the tree here over that of {ref}\n",
        f"{'':14}{'ratio (95 % interval)':>26}{'A/A noise':>12}{'slower beyond':>15}  verdict",
    ]
    for name, found in verdicts.items():
        ratio = f"{found.ratio:.3f} ({found.low:.3f} to {found.high:.3f})"
        lines.append(f"{name:14}{ratio:>26}{found.noise:>12.1%}{found.limit:>15.3f}  {found.word}")
    return "\n".join(lines)
