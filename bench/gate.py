"""Does the tree here train slower than another commit's? `nox -s bench -- --against REF`.

Three processes stand ready, two with the commit's sources and one with the tree's as it lies here,
uncommitted changes included; `paired` takes turns between them and decides. Exit code 1 means a
regression, and the raw samples are stored whatever the outcome.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

from bench import paired
from bench.paired import AGAIN, BASE, NEW, Verdict
from bench.timing import provenance, store

ROOT = Path(__file__).resolve().parents[1]
WORKER = Path(__file__).with_name("worker.py")


class Worker:
    """A process that times benchmarks with one tree's sources."""

    def __init__(self, tree: Path, name: str, options: Sequence[str] = ()) -> None:
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, str(WORKER), str(tree), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=tree,
        )
        try:
            _, *self.benchmarks = self._read().split(",")
        except SystemExit:
            self.close()
            raise

    def time(self, benchmark: str) -> float:
        """Seconds of one run of a benchmark."""
        assert self.process.stdin is not None
        # A process that ended is told by its missing answer.
        with suppress(BrokenPipeError):
            self.process.stdin.write(f"{benchmark}\n")
            self.process.stdin.flush()
        return float(self._read())

    def _read(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        if not line:
            raise SystemExit(
                f"bench: the process of {self.name} ended; what it printed stands above. Allowed: "
                "a commit whose public names bench/worker.py can call"
            )
        return line

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        with suppress(BrokenPipeError):
            self.process.communicate()


@contextmanager
def checkout(ref: str) -> Iterator[Path]:
    """Give a folder with the files of a commit; the repository and its work tree are not touched.

    Raises:
        SystemExit: there is no such commit.
    """
    packed = subprocess.run(
        ["git", "archive", "--format=tar", ref],  # noqa: S607 (the user's own git)
        capture_output=True,
        check=False,
        cwd=ROOT,
    )
    if packed.returncode:
        words = packed.stderr.decode(errors="replace").strip()
        raise SystemExit(
            f"bench: against: got {ref!r}; allowed: a commit of this checkout ({words})"
        )
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
            archive.extractall(folder, filter="data")
        yield Path(folder)


def against(ref: str, rounds: int, new: Path = ROOT) -> dict[str, Verdict]:
    """Compare the tree here with a commit; print the table, store the samples.

    Args:
        ref: the commit, as git names it.
        rounds: pairs of each benchmark.
        new: the tree that is judged.

    Returns:
        The verdict of each benchmark.
    """
    with (
        checkout(ref) as tree,
        workers({BASE: (ref, tree), AGAIN: (ref, tree), NEW: ("the tree here", new)}) as ready,
    ):
        samples = take_turns(ready, rounds)
    verdicts = {benchmark: paired.judge(seconds) for benchmark, seconds in samples.items()}
    print(table(ref, verdicts))
    content = {
        "provenance": provenance(f"nox -s bench -- --against {ref}"),
        "against": ref,
        "worker": worker_digest(),
        "seconds": samples,
    }
    print(f"\nraw samples: {store('against', content)}")
    return verdicts


@contextmanager
def workers(
    trees: Mapping[str, tuple[str, Path]], options: Sequence[str] = ()
) -> Iterator[dict[str, Worker]]:
    """Keep a process ready for each of some trees.

    Args:
        trees: name and place of each, by its role.
        options: of the worker, after the tree.
    """
    with ExitStack() as stack:
        ready = {}
        for role, (name, place) in trees.items():
            ready[role] = Worker(place, name, options)
            stack.callback(ready[role].close)
        yield ready


def take_turns(ready: Mapping[str, Worker], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Time every benchmark this many rounds in the processes of `BASE`, `AGAIN` and `NEW`."""
    samples = {}
    for benchmark in ready[NEW].benchmarks:
        timers = {role: partial(worker.time, benchmark) for role, worker in ready.items()}
        samples[benchmark] = paired.measure(timers, rounds)
        print(f"{benchmark}: {rounds} rounds", file=sys.stderr, flush=True)
    return samples


def worker_digest() -> str:
    """Digest of what the processes run."""
    return hashlib.sha256(WORKER.read_bytes()).hexdigest()


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
