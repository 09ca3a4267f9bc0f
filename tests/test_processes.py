"""Work that several processes do: the same as one does, and nothing is left of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from vaekit.errors import RunError
from vaekit.processes import elsewhere

NAMES = ("a", "b", "c", "d", "e")
# Of these tests, and of the tree that they are of, whatever is installed.
PATHS = os.pathsep.join(map(str, (Path(__file__).parent, Path(__file__).parents[1])))


def told(given: str, name: str) -> tuple[str, int]:
    return given + name, os.getpid()


def failing(given: str, name: str) -> str:
    if name == given:
        raise KeyError(f"no {name}")
    return name


def leaving(given: int, name: str) -> str:
    if name == "b":
        os._exit(given)
    return name


def warning(given: str, name: str) -> str:
    warnings.warn(given, UserWarning, stacklevel=1)
    return name


@pytest.mark.parametrize("processes", [1, 2, 5])
def test_the_answers_come_in_the_order_of_the_names(processes: int) -> None:
    words, where = zip(*elsewhere(told, "x", NAMES, processes), strict=True)
    assert words == ("xa", "xb", "xc", "xd", "xe")
    assert len(set(where)) == processes
    assert (os.getpid() in where) == (processes == 1)


def test_what_fails_there_fails_here(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RunError, match="worked on b, d ended with code 1; what it printed"):
        elsewhere(failing, "d", NAMES, 2)
    assert "KeyError: 'no d'" in capfd.readouterr().err


def test_a_process_that_ends_is_told_of() -> None:
    with pytest.raises(RunError, match="worked on b, d ended with code 3"):
        elsewhere(leaving, 3, NAMES, 2)


def test_the_users_warnings_are_there_too(tmp_path: Path) -> None:
    code = (
        "import os, sys; sys.path[:0] = sys.argv[1].split(os.pathsep)\n"
        "from test_processes import elsewhere, warning\n"
        "elsewhere(warning, 'odd', ['a', 'b'], 2)\n"
    )
    command = [sys.executable, "-W", "error", "-c", code, PATHS]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert "\nUserWarning: odd\n" in done.stderr


# A script as a user may write it, without a guard against being run again.
SCRIPT = """
import os, signal, sys
# As from a keyboard, though whoever runs these tests in a shell's background has it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path[:0] = sys.argv[1].split(os.pathsep)
from test_processes import elsewhere, slow
print("begun", flush=True)
elsewhere(slow, (sys.argv[2], float(sys.argv[3])), ["a", "b"], 2)
print("done")
"""


def slow(given: tuple[str, float], name: str) -> str:
    """Tell in a folder that it has begun, then take so many seconds."""
    folder, seconds = given
    Path(folder, name).touch()
    time.sleep(seconds)
    return name


def begin(folder: Path, seconds: float) -> subprocess.Popen[str]:
    script = folder / "script.py"
    script.write_text(SCRIPT)
    # No module of anyone's who works in this folder.
    (folder / "pickle.py").write_text("raise SystemExit('a file of the user')")
    return subprocess.Popen(
        [sys.executable, "-P", str(script), PATHS, str(folder), str(seconds)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        cwd=folder,
    )  # fmt: skip


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def wait_until_both_work(folder: Path) -> None:
    wait_until(lambda: (folder / "a").exists() and (folder / "b").exists())


def has_ended(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_script_of_the_users_is_run_once(tmp_path: Path) -> None:
    out, errors = begin(tmp_path, 0.0).communicate(timeout=60)
    assert (out, errors) == ("begun\ndone\n", "")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no groups of processes to interrupt")
@pytest.mark.parametrize(("name", "seconds"), [("SIGINT", 300.0), ("SIGKILL", 2.0)])
def test_nothing_is_left_of_a_process_that_was_stopped(
    tmp_path: Path, name: str, seconds: float
) -> None:
    """Where all are interrupted, from a keyboard, or the one that asked is killed."""
    process = begin(tmp_path, seconds)
    wait_until_both_work(tmp_path)
    children = psutil.Process(process.pid).children()
    assert len(children) == 2
    if name == "SIGINT":
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.kill()
    _, errors = process.communicate(timeout=60)
    assert process.returncode
    wait_until(lambda: all(map(has_ended, children)))
    # Of the script alone, which says nothing of an interrupt itself.
    assert errors.count("Traceback") == (name == "SIGINT")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signal that is sent to one process")
def test_who_is_told_to_leave_does_not_wait_for_the_others(tmp_path: Path) -> None:
    process = begin(tmp_path, 300.0)
    wait_until_both_work(tmp_path)
    process.send_signal(signal.SIGINT)
    try:
        process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode
