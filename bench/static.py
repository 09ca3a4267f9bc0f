"""What every kernel asks of a card, from binaries that are built here without one.

The tests' own compiler builds and reads them; what they ask for is stored, and compared with
`tests/compile_baseline.json`. Here are the usual cases; `nox -s compile` builds every branch and
size.
"""

from __future__ import annotations

import importlib.util
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from bench.operation import module_of_tests
from bench.tables import Rows


def missing(*, quick: bool) -> str:
    """Say why the kernels are not built here; an empty text if they are."""
    if quick:
        return "--quick leaves no time to compile"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed (there are wheels for Linux on x86-64 only)"
    known = module_of_tests("resources").load()
    if version("triton") not in known:
        return f"there is no baseline for Triton {version('triton')}, only for {', '.join(known)}"
    return ""


def measure_resources(*, quick: bool) -> dict[str, Any]:
    """Build the usual cases of every kernel for every architecture; compare with the baseline.

    Returns:
        The Triton version, what each binary asks for by architecture and kernel, how many there
        are, of how many of the baseline, and a line for each that differs; or why none were built.
    """
    reason = missing(quick=quick)
    if reason:
        return {"skipped": {"kernels": reason}}
    resources, compiler = module_of_tests("resources"), module_of_tests("compiler")
    print("\nbuilding every kernel for every architecture", flush=True)
    measured = compiler.measure_everywhere(compiler.USUAL)
    baseline = resources.load()[version("triton")]
    ends = tuple(f"[{case}]" for case in compiler.USUAL)
    lines = []
    for target, kernels in measured.items():
        known = {name: row for name, row in baseline[target].items() if name.endswith(ends)}
        lines += [f"{target}: {line}" for line in resources.differences(known, kernels)]
    count, of = (sum(map(len, found.values())) for found in (measured, baseline))
    print("\n".join(lines) or f"{count} binaries, all as in the baseline", flush=True)
    return {
        "triton": version("triton"),
        "binaries": count,
        "of": of,
        "differences": lines,
        "kernels": {
            target: {name: asdict(row) for name, row in kernels.items()}
            for target, kernels in measured.items()
        },
    }


def resource_note(content: dict[str, Any]) -> str:
    """Say what the table is, and how much differs from the baseline; the samples hold all of it."""
    found = content["resources"]
    lines = found["differences"]
    differ = f"{len(lines)} differences from it, the first of which is {lines[0]}" if lines else ""
    # Earlier samples are of all.
    of = f" of the {found['of']} there" if "of" in found else ""
    return (
        "Read from binaries that were cross-compiled without a card: resources, not speeds. The "
        "committed baseline is tests/compile_baseline.json, and as text "
        "reports/kernels/resources.md. This run built "
        f"{found['binaries']} binaries{of} with Triton {found['triton']}: "
        f"{differ or 'none differs from it'}."
    )


def resource_rows(content: dict[str, Any]) -> Rows:
    """What the run's binaries ask for, as a table; older samples do not hold it."""
    head = ["kernel", "architecture", "registers", "spills", "stack, B", "shared, B"]
    rows = [
        [
            name,
            target,
            *(str(value) for key, value in row.items() if key != "mix"),
            ", ".join(f"{count} {kind}" for kind, count in row["mix"].items()),
        ]
        for target, kernels in content["resources"].get("kernels", {}).items()
        for name, row in kernels.items()
    ]
    return [[*head, "instructions", "128-bit accesses", "of them"], *rows] if rows else []
