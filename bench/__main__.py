"""The benchmark, its page and its gate: `nox -s bench`."""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from functools import partial
from pathlib import Path
from typing import Any

from bench import gate
from bench.bench_kernels import measure_kernels
from bench.bench_training import run
from bench.demonstrate import TRIALS, demonstrate
from bench.errors import BenchError
from bench.operations import measure_operations
from bench.paired import FEWEST, SETS
from bench.provenance import provenance
from bench.report import UNFINISHED, write_report
from bench.storage import place, store
from bench.stored import against_stored, find
from vaekit.machine import resolve_device

QUICK_SETS = FEWEST
# `--report` without a folder: this machine's. Told by what it is, as `--report .` is equal to it.
HERE = Path()


def positive(text: str) -> int:
    """Read a number of trials."""
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}; allowed: 1 or more")
    return number


def command_line() -> argparse.ArgumentParser:
    """What `python -m bench` takes."""
    parser = argparse.ArgumentParser(prog="bench", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds, steps and points")
    parser.add_argument(
        "--against",
        metavar="REF",
        help="compare the tree here with a commit, or with a stored run; exit code 1 means slower, "
        "2 that they cannot be compared, or not on so noisy a machine",
    )
    parser.add_argument(
        "--demonstrate",
        metavar="TRIALS",
        nargs="?",
        type=positive,
        const=TRIALS,
        help="try the gate on trees that are the same and on one that is 5 % slower; "
        f"{TRIALS} trials take an hour or more; stopped, they are continued",
    )
    parser.add_argument(
        "--report",
        metavar="FOLDER",
        nargs="?",
        type=Path,
        const=HERE,
        help="write the page again from the samples of this machine or of a folder",
    )
    return parser


def measure(*, quick: bool) -> None:
    """Measure everything that the page shows, and store it."""
    device, begun = resolve_device("auto"), time.monotonic()
    made = provenance("python -m bench" + (" --quick" if quick else ""))

    def keep(name: str, content: dict[str, Any]) -> Path:
        took = {"seconds": time.monotonic() - begun}
        return store(name, {"provenance": made | took} | content, quick=quick)

    # A run that is cut short leaves what it measured, and never takes a whole one's place.
    training = run(device, quick=quick, keep=partial(keep, UNFINISHED))
    print(f"\nraw samples: {keep('training', training)}\n", flush=True)
    (place(quick=quick) / f"{UNFINISHED}.json").unlink()
    known = {device.type: training["ceilings"]}
    for name, part, kind in (
        ("kernels", measure_kernels, "cuda"),
        ("operations", measure_operations, "cpu"),
    ):
        found = part(quick=quick, before=known.get(kind))
        print(f"\nraw samples: {keep(name, found)}\n", flush=True)


def compared(ref: str, *, quick: bool) -> int:
    """Compare the tree here with a stored run or a commit, whichever a text names.

    Returns:
        The exit code: 1 where something is slower, 2 where a difference is not known well enough.
    """
    stored = find(ref)
    if stored:
        verdicts = against_stored(stored, quick=quick)
    else:
        verdicts = gate.against(ref, QUICK_SETS if quick else SETS, quick=quick)
    words = {verdict.word for verdict in verdicts.values()}
    return 1 if "slower" in words else 2 * ("not known" in words)


def main() -> None:
    """Do what the command line asks for."""
    parser = command_line()
    options = parser.parse_args()
    try:
        act(parser, options)
    except BenchError as error:
        parser.exit(2, f"bench: {error}\n")
    except RuntimeError:
        # Torch's, which would end in 1 by itself: that says that the tree is slower.
        if options.against is None:
            raise
        traceback.print_exc()
        parser.exit(2, "bench: what was compared failed, as stands above\n")


def act(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Do one of the things that can be asked for."""
    actions = ("against", "demonstrate", "report")
    asked = [name for name in actions if getattr(options, name) is not None]
    if len(asked) > 1:
        parser.error(f"--{asked[0]} goes without --{asked[1]}")
    if options.demonstrate and options.quick:
        parser.error("--demonstrate goes without --quick: ask for fewer trials")
    if options.against is not None:
        sys.exit(compared(options.against, quick=options.quick))
    if options.demonstrate:
        sys.exit(not demonstrate(options.demonstrate))
    if options.report is None:
        measure(quick=options.quick)
    here = options.report is None or options.report is HERE
    print(write_report(place(quick=options.quick) if here else options.report))


if __name__ == "__main__":
    main()
