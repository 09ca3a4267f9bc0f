"""Single operations on the CPU, timed by pytest-benchmark, each beside its roof.

The roof of an operation is the slower of two measured rates: its bytes at the rate of a copy, or
its arithmetic at the rate of products. A row above it is an error of the benchmark.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.ceilings import believed, cpu_ceilings
from bench.compiled import compiler_missing
from bench.test_operations import rows

ROOT = Path(__file__).resolve().parents[1]
FILE = Path(__file__).with_name("test_operations.py")


def time_operations(rounds: int) -> list[dict[str, Any]]:
    """Run every benchmark of `test_operations` in a process of its own.

    Args:
        rounds: counted calls of each row.

    Returns:
        pytest-benchmark's record of each row.

    Raises:
        SystemExit: a benchmark failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "found.json"
        command = [sys.executable, "-m", "pytest", str(FILE), "-q", "--no-header", "-p"]
        command += ["no:cacheprovider", "--benchmark-enable", "--benchmark-columns=median,iqr"]
        command += [f"--benchmark-min-rounds={rounds}", f"--benchmark-json={path}"]
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            raise SystemExit("bench: an operation's benchmark failed; what it printed stands above")
        return json.loads(path.read_text(encoding="utf-8"))["benchmarks"] if path.exists() else []


def measure_operations(rounds: int) -> dict[str, Any]:
    """Time every operation and set each beside its roof.

    Args:
        rounds: counted calls of each row.

    Returns:
        The ceilings of this run, the rows with every raw sample, and what was skipped and why.

    Raises:
        RuntimeError: a row is above its roof.
        SystemExit: a benchmark failed, or a row that was declared is not there.
    """
    ceilings = cpu_ceilings()
    copies = ceilings["copy_bytes_per_second"]
    rates = ceilings["product_flops_per_second"]
    products = max(rates["float32"], rates["float32, default"])
    found = []
    for record in time_operations(rounds):
        info, seconds = record["extra_info"], record["stats"]["data"]
        least = max(info["bytes"] / copies, info["work"] / products)
        share = believed(least, statistics.median(seconds))
        found.append({**info, "share_of_roof": share, "seconds": seconds})
    skipped = {"compile": compiler_missing()} if compiler_missing() else {}
    declared = set(rows())
    made = {(row["operation"], row["direction"], row["implementation"]) for row in found}
    lost = {row for row in declared - made if row[2] not in skipped}
    if lost:
        raise SystemExit(
            f"bench: {len(lost)} of {len(declared)} operations were not timed, {min(lost)} for one;"
            " pytest-benchmark times nothing under pytest-xdist"
        )
    return {"ceilings": ceilings, "rounds": rounds, "rows": found, "skipped": skipped}
