"""Processes that each time one tree's sources, as they are asked to.

`fork` starts them and `worker` is what runs in them; neither imports the bench that asks.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from bench.errors import BenchError

FORK, WORKER = (Path(__file__).with_name(name) for name in ("fork.py", "worker.py"))


class Worker:
    """A process that times benchmarks with one tree's sources; `wait` comes before `time`.

    Args:
        name: of the tree, for a user.
        questions, answers: file descriptors of the process's stdin and stdout.
    """

    def __init__(self, name: str, questions: int, answers: int) -> None:
        self.name = name
        self.questions = open(questions, "wb", buffering=0)  # noqa: SIM115 (closed by `close`)
        self.answers = open(answers, encoding="utf-8")  # noqa: SIM115

    def wait(self) -> list[str]:
        """Wait until it is ready.

        Returns:
            The benchmarks that it has, each of which has computed what it is defined to.
        """
        ready, *benchmarks = self._read().split(",")
        if ready != "ready":
            raise self._error(f"printed {ready!r}")
        return benchmarks

    def time(self, benchmark: str, repeats: int) -> float:
        """Mean seconds of some runs of a benchmark."""
        # A process that ended is told by its missing answer.
        with suppress(BrokenPipeError):
            self.questions.write(f"{benchmark} {repeats}\n".encode())
        line = self._read()
        try:
            return float(line)
        except ValueError:
            raise self._error(f"printed {line!r}") from None

    def _read(self) -> str:
        line = self.answers.readline().strip()
        if not line:
            raise self._error("ended; what it printed stands above")
        return line

    def _error(self, what: str) -> BenchError:
        return BenchError(
            f"the process of {self.name} {what}. Allowed: a commit whose public names "
            "bench/worker.py can call, which compute what it checks and print nothing"
        )

    def close(self) -> None:
        """Ask nothing more of it."""
        self.questions.close()
        self.answers.close()


@contextmanager
def workers(
    trees: Mapping[str, tuple[str, Path]], wanted: Sequence[str] = ()
) -> Iterator[tuple[dict[str, Worker], list[str]]]:
    """Keep a process for each of some trees, forked of one.

    Args:
        trees: name and place of each, by its role.
        wanted: benchmarks; none: all that there are.

    Yields:
        The processes, all ready, and their benchmarks.

    Raises:
        BenchError: one of them ended, or this system cannot fork.
    """
    if not hasattr(os, "fork"):
        raise BenchError(f"commits are compared in forked processes; {sys.platform} has none")
    with ExitStack() as stack:
        started, told, theirs = dict[str, Worker](), list[str](), list[int]()
        for role, (name, place) in trees.items():
            (questions, ask), (listen, answers) = os.pipe(), os.pipe()
            started[role] = Worker(name, ask, listen)
            stack.callback(started[role].close)
            theirs += [questions, answers]
            told += [str(place), str(questions), str(answers)]
        process = subprocess.Popen(
            [sys.executable, str(FORK), str(WORKER), *told, "--", *wanted],
            stdin=subprocess.PIPE,
            pass_fds=theirs,
            # Ctrl-C is the asker's to handle, and what ends this process then.
            start_new_session=True,
        )
        stack.callback(_end, process)
        for end in theirs:
            os.close(end)
        # All are waited for: whoever is timed shall be alone.
        benchmarks = [worker.wait() for worker in started.values()]
        yield started, benchmarks[0]


def _end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(0.2)
    except subprocess.TimeoutExpired:
        # It still loads torch, and would fork before it looked.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def digest(rounds: str) -> str:
    """Digest of what the processes run, and in what rounds."""
    sources = FORK.read_bytes() + WORKER.read_bytes()
    return hashlib.sha256(sources + rounds.encode()).hexdigest()
