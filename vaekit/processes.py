"""Work of one process done by several, which end with the process that asked.

The standard library's would run the user's script again, where it lacks the guard that they want of
it; those of joblib live on, for good, where the process that asked is killed.
"""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")
# Modules are found where they were found here.
PROGRAM = """
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
        RuntimeError: another process failed, with a traceback on stderr.
    """
    if processes == 1:
        return [work(given, name) for name in names]
    shares = [names[first::processes] for first in range(processes)]
    with ThreadPoolExecutor(processes) as threads:
        made = threads.map(lambda share: _ask(work, given, share), shares)
        found = {
            name: one
            for share, answers in zip(shares, made, strict=True)
            for name, one in zip(share, answers, strict=True)
        }
    return [found[name] for name in names]


def _ask(work: Callable[..., Made], given: object, names: Sequence[str]) -> list[Made]:
    """Let another process do a share of the work."""
    done = subprocess.run(  # noqa: S603 (this interpreter itself)
        [sys.executable, *(f"-W{words}" for words in sys.warnoptions), "-c", PROGRAM],
        input=pickle.dumps(sys.path) + pickle.dumps((work, given, names)),
        stdout=subprocess.PIPE,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(
            f"a process that worked on {', '.join(names)} ended with code {done.returncode}; what "
            "it printed stands above"
        )
    made: list[Made] = pickle.loads(done.stdout)  # noqa: S301 (of our own process)
    return made


def serve() -> None:
    """Do a share of the work: what is asked for comes on stdin, and the answer goes to stdout."""
    # Who asked says that it was interrupted; here it is the end.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    work, given, names = pickle.load(sys.stdin.buffer)  # noqa: S301 (of who started this process)
    made = [work(given, name) for name in names]
    # Who asked may be gone.
    with suppress(BrokenPipeError):
        sys.stdout.buffer.write(pickle.dumps(made))
        sys.stdout.buffer.flush()
