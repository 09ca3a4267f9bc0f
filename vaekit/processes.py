"""Work of one process done by several, which do not outlive it by more than that work.

The standard library's would run the user's script again, where it lacks the guard that they want of
it; those of joblib live on, for good, where the process that asked is killed.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any, TypeVar

from vaekit.errors import RunError

Given = TypeVar("Given")
Made = TypeVar("Made")
# Who asked says that it was interrupted; for the others it is the end. Modules are found where they
# were found there.
PROGRAM = """
import signal
signal.signal(signal.SIGINT, signal.SIG_DFL)
import pickle, sys
sys.path[:] = pickle.load(sys.stdin.buffer)
from vaekit.processes import serve
serve()
"""


def elsewhere(
    work: Callable[[Given, str], Made], given: Given, names: Sequence[str], processes: int
) -> list[Made]:
    """Work on every name, in several processes at once.

    Args:
        work: a function of a module, which takes what is given and a name. What it takes and
            returns can be pickled.
        given: to every call.
        names: of the calls.
        processes: how many; 1 is this one.

    Returns:
        What was made of each name, in their order.

    Raises:
        RunError: another process failed, with a traceback on stderr.
    """
    if processes == 1:
        return [work(given, name) for name in names]
    shares = [names[first::processes] for first in range(processes)]
    told = pickle.dumps(sys.path) + pickle.dumps((work, given))
    with ExitStack() as stack:
        children = [stack.enter_context(_start(share)) for share in shares]
        threads = stack.enter_context(ThreadPoolExecutor(processes))
        for child in children:
            # Before the threads are waited for: after a failure, or an interrupt, nobody goes on.
            stack.callback(child.kill)
        made = list(threads.map(partial(_answer, told), children, shares))
    found = {
        name: one
        for share, answers in zip(shares, made, strict=True)
        for name, one in zip(share, answers, strict=True)
    }
    return [found[name] for name in names]


def _start(names: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a process that does a share of the work; a file beside the user is no module of it."""
    flags = ["-P", *(f"-W{words}" for words in sys.warnoptions)]
    return subprocess.Popen(  # noqa: S603 (this interpreter itself)
        [sys.executable, *flags, "-c", PROGRAM, *names],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def _answer(told: bytes, child: subprocess.Popen[bytes], names: Sequence[str]) -> list[Any]:
    """Tell a process what to do, and wait for what it makes."""
    answer, _ = child.communicate(told)
    if child.returncode:
        raise RunError(
            f"a process that worked on {', '.join(names)} ended with code {child.returncode}; what "
            "it printed stands above"
        )
    made: list[Any] = pickle.loads(answer)  # noqa: S301 (of our own process)
    return made


def serve() -> None:
    """Do a share of the work: what is asked for comes on stdin, and the answer goes to stdout."""
    work, given = pickle.load(sys.stdin.buffer)  # noqa: S301 (of who started this process)
    made = [work(given, name) for name in sys.argv[1:]]
    # Who asked may be gone.
    with suppress(BrokenPipeError):
        sys.stdout.buffer.write(pickle.dumps(made))
        sys.stdout.buffer.flush()
