"""What a run directory holds: nothing, a run that can go on, a finished one, or something else.

Beside a directory NAME, while a process works there:

    .NAME.lock      held by that process, and gone with it
    .NAME.holder    names that process
    .NAME.new       the run that is to take the place of NAME's
    .NAME.old       NAME's, while the new one takes its place
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from vaekit.config import ConfigError, SweepConfig
from vaekit.errors import BusyError
from vaekit.files import is_temporary, read_small, write_whole
from vaekit.journal import FOLDER, PLAN
from vaekit.results import FILE_NAME

CONFIG = "config.toml"
REPORT = "report.html"


@dataclass(frozen=True)
class Found:
    """What was found in a run directory.

    Attributes:
        state: "unfinished" and "finished" are runs of the configuration that was asked about, and
            "nowhere" is where no directory can be.
        problem: what stands against a run here, in words; "" if nothing does.
    """

    state: Literal["new", "unfinished", "finished", "other", "nowhere"]
    problem: str = ""


@contextmanager
def claim(out: Path) -> Iterator[None]:
    """Be the only process that works on a run directory, and on what lies beside it.

    Raises:
        BusyError: another one does.
        OSError: the directory above cannot be written in.
    """
    # Of the directory itself, where a link leads there.
    place = Path(os.path.realpath(out)) if out.is_symlink() else out
    place.parent.mkdir(parents=True, exist_ok=True)
    path, holder = beside(place, "lock"), beside(place, "holder")
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise BusyError(
            f"out: {_name(holder)} works in {out}; allowed: to wait until it is done, or another "
            "directory"
        ) from None
    with ExitStack() as leaving:
        leaving.callback(lock.release)
        # While it is held: who opened it before sees that it has no name any more, and tries again.
        # Windows deletes no file that is open.
        if os.name != "nt":
            leaving.callback(path.unlink, missing_ok=True)
        leaving.callback(holder.unlink, missing_ok=True)
        write_whole(holder, f"process {os.getpid()} on {platform.node()}")
        yield


def _name(holder: Path) -> str:
    try:
        # Of the process that held the lock before, for the moment until the next has written.
        return read_small(holder, 200).decode()
    except (OSError, UnicodeDecodeError):
        return "another process"


def inspect(out: Path, config: SweepConfig) -> Found:
    """Look at a directory that a run of a configuration is to go into; change nothing."""
    if not out.exists() and not out.is_symlink():
        above = next(path for path in out.parents if path.exists() or path.is_symlink())
        if not above.is_dir():
            return Found("nowhere", f"lies below {above}, which is not a directory")
        return Found("new")
    # A link to nothing, or to itself, is none either.
    if not out.is_dir():
        return Found("other", "is not a directory")
    names = {path.name for path in out.iterdir() if not is_temporary(path)}
    if not names - {FOLDER}:
        return Found("new")
    # A configuration alone may be anyone's; beside a part of a run it is the run's.
    if CONFIG not in names or not names & {FOLDER, FILE_NAME, REPORT}:
        return Found("other", "is not empty")
    try:
        there = SweepConfig.from_toml(out / CONFIG)
    except ConfigError as error:
        return Found("other", f"holds a run whose configuration cannot be read ({error})")
    differences = compare(there, config)
    if differences:
        return Found("other", f"holds a run of another configuration: {'; '.join(differences)}")
    # The plan is there from before the first part until after the report.
    finished = {FILE_NAME, REPORT} <= names and not (out / FOLDER / PLAN).exists()
    return Found("finished" if finished else "unfinished")


def sweep_up(out: Path) -> None:
    """Delete what processes that were killed had begun to write; only for who holds the lock."""
    for path in list(out.rglob("*.tmp")):
        if is_temporary(path):
            path.unlink(missing_ok=True)


def replace(out: Path, work: Path) -> None:
    """Put a finished run in the place of an earlier one; only for who holds the lock."""
    earlier = beside(out, "old")
    if earlier.exists():
        _delete(earlier)
    out.rename(earlier)
    work.rename(out)
    _delete(earlier)


def restore(out: Path) -> None:
    """Put an earlier run back, if `replace` was killed when its place was empty; as `replace`."""
    earlier = beside(out, "old")
    if earlier.exists() and not out.exists():
        earlier.rename(out)


def beside(out: Path, what: str) -> Path:
    """Name what lies beside a run directory."""
    return out.with_name(f".{out.name}.{what}")


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def compare(there: SweepConfig, here: SweepConfig) -> list[str]:
    """Say where two configurations differ; the name of the preset changes nothing."""
    values = (config.model_dump(exclude={"preset"}) for config in (there, here))
    old, new = values
    return [
        f"{name} is {old[name]} there and {new[name]} here"
        for name in old
        if old[name] != new[name]
    ]
