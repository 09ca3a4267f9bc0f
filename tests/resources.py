"""What compiled kernels ask of a card: the committed baseline, and what differs from it.

Nothing here needs Triton; `compiler` measures.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

BASELINE = Path(__file__).with_name("compile_baseline.json")
TABLE = Path(__file__).parents[1] / "reports" / "kernels" / "resources.md"


@dataclass(frozen=True)
class Resources:
    """What a binary asks for. `spills` counts accesses to local memory on NVIDIA, registers on AMD.

    `shared` is in bytes per program, `stack` in bytes per thread, and `wide` counts the loads and
    stores of 128 bits. `mix` counts instructions by kind; it is told, not held to a baseline.
    """

    registers: int
    spills: int
    stack: int
    shared: int
    instructions: int
    wide: int
    mix: dict[str, int] = field(default_factory=dict, compare=False)

    def figures(self) -> dict[str, int]:
        """What is held to the baseline, by name."""
        return {name: value for name, value in asdict(self).items() if name != "mix"}


# By architecture and kernel.
Measured = dict[str, dict[str, Resources]]


def load() -> dict[str, Measured]:
    """Baselines by Triton version, architecture and kernel."""
    content = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    return {
        version: {
            target: {name: Resources(**row) for name, row in kernels.items()}
            for target, kernels in targets.items()
        }
        for version, targets in content.items()
    }


# By the beginning of an instruction, the longest that fits: products on matrix units,
# multiply-adds, special functions, memory (of 128 bits apart), spilled registers, waiting.
KINDS = (
    *("HMMA", "HGMMA", "UTCHMMA", "FFMA", "MUFU", "LDG.128", "LDG", "STG.128", "STG"),
    *("LDGSTS", "LDS", "STS", "LDSM", "LDL", "STL", "BAR"),
    *("v_mfma", "v_fma", "v_exp", "global_load_dwordx4", "global_load", "global_store_dwordx4"),
    *("global_store", "buffer_load_dwordx4", "buffer_load", "buffer_store_dwordx4"),
    *("buffer_store", "ds_read", "ds_write", "scratch", "s_barrier"),
)


def mix(codes: list[str]) -> dict[str, int]:
    """Count instructions by `KINDS`; kinds that do not occur, and others, are left out."""
    found = Counter()
    for code in codes:
        short = f"{code.split('.')[0]}{'.128' if '.128' in code else ''}"
        found[max((kind for kind in KINDS if short.startswith(kind)), key=len, default="")] += 1
    return {kind: found[kind] for kind in KINDS if found[kind]}


def differences(baseline: Mapping[str, Resources], measured: Mapping[str, Resources]) -> list[str]:
    """One line for each figure that changed, and for each kernel that came or went."""
    lines = [f"{name}: not in the baseline" for name in measured if name not in baseline]
    lines += [f"{name}: only in the baseline" for name in baseline if name not in measured]
    for name in sorted(baseline.keys() & measured.keys()):
        before, after = baseline[name].figures(), measured[name].figures()
        changes = [
            f"{key} {before[key]} -> {after[key]} ({after[key] - before[key]:+d})"
            for key in before
            if before[key] != after[key]
        ]
        if changes:
            lines.append(f"{name}: {', '.join(changes)}")
    return lines


def table(baselines: Mapping[str, Measured]) -> str:
    """The report's table of all baselines, in Markdown."""
    lines = [
        "# What the kernels ask of a card",
        "",
        "Read from binaries that were cross-compiled without a card, so these are resources, not",
        "speeds. Each cell: registers a thread / bytes of shared memory a program / instructions",
        "(whole kernel, unrolled). No kernel spills a register or uses stack, on any of them.",
        "",
        "Made by `python -m pytest -m compile --write-baseline`; held to by `nox -s compile`.",
    ]
    for version, targets in baselines.items():
        lines += ["", f"## Triton {version}", ""]
        lines += [f"| kernel | {' | '.join(targets)} |", f"|---|{'---|' * len(targets)}"]
        for name in next(iter(targets.values())):
            rows = (kernels.get(name) for kernels in targets.values())
            cells = [
                f"{row.registers} / {row.shared} / {row.instructions}" if row else "not built"
                for row in rows
            ]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def store(version: str, measured: Measured) -> None:
    """Make what was measured the baseline of a Triton version, and write the report's table."""
    baselines = dict(sorted((load() | {version: measured}).items(), reverse=True))
    content = {
        version: {
            target: {name: row.figures() for name, row in kernels.items()}
            for target, kernels in targets.items()
        }
        for version, targets in baselines.items()
    }
    BASELINE.write_text(json.dumps(content, indent=1) + "\n")
    TABLE.parent.mkdir(parents=True, exist_ok=True)
    TABLE.write_text(table(baselines))
