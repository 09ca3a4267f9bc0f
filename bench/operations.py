"""Single operations on the CPU, timed by pytest-benchmark, each beside its roof.

The roof of an operation is the slower of two measured rates: its bytes at the faster of copying and
reading, or its arithmetic at the rate of products. A row above it is an error of the benchmark.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.ceilings import believed, measure_ceilings, roof
from bench.errors import BenchError
from bench.provenance import ROOT
from bench.test_operations import rows
from vaekit.compiler import compiler_missing

FILE = Path(__file__).with_name("test_operations.py")


Row = tuple[str, str, str]
CALLS, QUICK_CALLS = 15, 5


def time_operations(wanted: list[Row], calls: int) -> list[dict[str, Any]]:
    """Run benchmarks of `test_operations` in a process of their own.

    Args:
        wanted: the rows to time.
        calls: counted ones of each row.

    Returns:
        pytest-benchmark's record of each row.

    Raises:
        BenchError: a benchmark failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "found.json"
        command = [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider"]
        command += ["--benchmark-enable", "--benchmark-quiet"]
        command += [f"--benchmark-min-rounds={calls}", f"--benchmark-json={path}"]
        command += [f"{FILE}::test_operation[{'-'.join(row)}]" for row in wanted]
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            raise BenchError("an operation's benchmark failed; what it printed stands above")
        return json.loads(path.read_text(encoding="utf-8"))["benchmarks"] if path.exists() else []


def left_out(*, quick: bool) -> dict[str, str]:
    """Name the implementations that are not timed here, each with the reason."""
    if quick:
        return dict.fromkeys(("reference", "compile"), "--quick times the project's own alone")
    return {"compile": compiler_missing()} if compiler_missing() else {}


def measure_operations(*, quick: bool, before: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Time every operation and set each beside its roof.

    Args:
        quick: fewer calls, and the project's own implementation alone.
        before: ceilings of this CPU that the run has measured already.

    Returns:
        The ceilings of this run, the rows with every raw sample, and what was skipped and why.

    Raises:
        BenchError: a benchmark failed, a row is above its roof, or one that was declared is not
            there.
    """
    skipped = left_out(quick=quick)
    declared = [row for row in rows() if row[2] not in skipped]
    found, lost = [], set(declared)
    print("\nsingle operations, each held to its definition, timed, and held again\n", flush=True)
    records = time_operations(declared, QUICK_CALLS if quick else CALLS)
    ceilings = measure_ceilings(before=before)
    for record in records:
        info, seconds = record["extra_info"], record["stats"]["data"]
        least = roof(info["bytes"], info["work"], ceilings)
        share = believed(least, statistics.median(seconds))
        name = f"{info['operation']}, {info['direction']}, {info['implementation']}"
        print(f"{name:50}{statistics.median(seconds) * 1e3:10.3f} ms{share:8.0%} of its roof")
        found.append({**info, "share_of_roof": share, "seconds": seconds})
        lost.discard((info["operation"], info["direction"], info["implementation"]))
    if lost:
        raise BenchError(
            f"{len(lost)} of {len(declared)} operations were not timed, {min(lost)} for one;"
            " pytest-benchmark times nothing under pytest-xdist"
        )
    skipped = {f"operations, {name}": reason for name, reason in skipped.items()}
    return {"ceilings": ceilings, "rows": found, "skipped": skipped}
