"""The training benchmark, its page and its gate: `nox -s bench`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench import gate
from bench.bench_training import run
from bench.operations import measure_operations
from bench.report import write_report
from bench.stored import against_stored, find
from bench.timing import REPORTS, machine_slug, provenance, store

ROUNDS, QUICK_ROUNDS = 24, 8
CALLS, QUICK_CALLS = 30, 5


def command_line() -> argparse.ArgumentParser:
    """What `python -m bench` takes."""
    parser = argparse.ArgumentParser(prog="bench", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a quarter of the rounds and steps")
    parser.add_argument(
        "--against",
        metavar="REF",
        help="compare the tree here with a commit, or with a stored run; exit code 1 means slower",
    )
    parser.add_argument(
        "--report",
        metavar="FOLDER",
        nargs="?",
        type=Path,
        const=REPORTS / machine_slug(),
        help="write the page again from the samples of this machine or of a folder",
    )
    return parser


def main() -> None:
    """Do what the command line asks for."""
    parser = command_line()
    options = parser.parse_args()
    if options.against and options.report:
        parser.error("--report goes without --against")
    if options.against:
        stored = find(options.against)
        if stored:
            verdicts = against_stored(stored, quick=options.quick)
        else:
            verdicts = gate.against(options.against, QUICK_ROUNDS if options.quick else ROUNDS)
        sys.exit(any(verdict.word == "slower" for verdict in verdicts.values()))
    if not options.report:
        command = "nox -s bench" + (" -- --quick" if options.quick else "")
        made = {"provenance": provenance(command)}
        print(f"\nraw samples: {store('training', made | run(quick=options.quick))}\n")
        operations = measure_operations(QUICK_CALLS if options.quick else CALLS)
        print(f"\nraw samples: {store('operations', made | operations)}\n")
    print(write_report(options.report or REPORTS / machine_slug()))


if __name__ == "__main__":
    main()
