"""Plant each defect of `mutants` in a copy of the sources, and say whether its tests saw it.

python tests/plant.py [NAME ...]
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import Queue

from rich.console import Console
from rich.table import Table

from mutants import MUTANTS, Mutant, mutate

ROOT = Path(__file__).parents[1]
COPIED = ("bench", "kernels", "tests", "vaekit", "pyproject.toml")
SECONDS = 300


def copy(tree: Path) -> Path:
    """Copy what the tests need."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, tree / name)
    return tree


@contextmanager
def planted(tree: Path, mutant: Mutant) -> Iterator[None]:
    """Plant a defect in a copy of the sources, and put everything back."""
    before = {edit.file: (tree / edit.file).read_text("utf-8") for edit in mutant.edits}
    try:
        for edit in mutant.edits:
            path = tree / edit.file
            path.write_text(mutate(path.read_text("utf-8"), edit), "utf-8")
        yield
    finally:
        for file, text in before.items():
            (tree / file).write_text(text, "utf-8")


def run_tests(tree: Path, tests: tuple[str, ...]) -> tuple[int, str]:
    """Run tests in a copy; return pytest's exit code and what it wrote."""
    # -B: a file that changes within a second must not be taken for its cached self.
    command = [sys.executable, "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(
        command, cwd=tree, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    return done.returncode, done.stdout + done.stderr


def judge(tree: Path, mutant: Mutant) -> str:
    """Say what became of a mutant: "killed", or what is wrong."""
    with planted(tree, mutant):
        for test in mutant.tests:
            code, output = run_tests(tree, (test,))
            if code == 0:
                return f"SURVIVED {test}"
            # 1 is a failed test; anything else is a run that says nothing about it.
            if code != 1:
                return f"ERROR {code}: {output.strip().splitlines()[-1]}"
    return "killed"


def main() -> int:
    """Judge every mutant that was asked for, print the table, and fail unless all were killed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MUTANTS))
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    names = options.names or list(MUTANTS)
    if unknown := [name for name in names if name not in MUTANTS]:
        parser.error(f"NAME: got {unknown[0]!r}; allowed: {', '.join(MUTANTS)}")
    console = Console(width=None if sys.stdout.isatty() else 160)
    with tempfile.TemporaryDirectory() as folder:
        trees: Queue[Path] = Queue()
        for worker in range(options.workers):
            trees.put(copy(Path(folder) / str(worker)))
        tests = tuple(dict.fromkeys(test for name in names for test in MUTANTS[name].tests))
        code, output = run_tests(Path(folder) / "0", tests)
        if code:
            console.print(output)
            console.print("The tests fail without any defect; that has to be mended first.")
            return 1

        def one(name: str) -> tuple[str, str, float]:
            tree, start = trees.get(), time.perf_counter()
            try:
                return name, judge(tree, MUTANTS[name]), time.perf_counter() - start
            finally:
                trees.put(tree)

        with ThreadPoolExecutor(options.workers) as pool:
            found = list(pool.map(one, names))
    table = Table("mutant", "defect", "known", "seen by", "verdict", "s")
    for name, verdict, seconds in found:
        mutant = MUTANTS[name]
        seen = "\n".join(test.removeprefix("tests/") for test in mutant.tests)
        known = str(mutant.known) if mutant.known else ""
        table.add_row(name, mutant.defect, known, seen, verdict, f"{seconds:.0f}")
    console.print(table)
    killed = sum(verdict == "killed" for _, verdict, _ in found)
    console.print(f"{killed} of {len(found)} mutants killed")
    return 0 if killed == len(found) else 1


if __name__ == "__main__":
    sys.exit(main())
