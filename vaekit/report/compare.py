"""Two runs side by side, on the cells that both have."""

from __future__ import annotations

import numpy as np
import xarray as xr

from vaekit.errors import ResultsError
from vaekit.figures.style import objective_note, plain
from vaekit.report.cells import all_seeds, count, extreme, mean, number, where
from vaekit.report.tables import CELL_COLUMNS, Entry, Row, Table, endings
from vaekit.results import in_order, settings

COMPARED = (
    "active units",
    "recovery R², noisy",
    "information ÷ ceiling",
    "probe MSE truth → code, 3 epochs",
    "decode MSE, 3 epochs",
    "decode MSE, exact",
)


def shared_cells(first: xr.Dataset, second: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    """Cut two datasets down to the mu and beta that both have.

    Raises:
        ResultsError: they have no cell in common.
    """
    both = {}
    for name in ("mu", "beta"):
        both[name] = np.intersect1d(first[name].values, second[name].values)
        if not len(both[name]):
            raise ResultsError("second run", "has no value in common with the first", name)
    return first.sel(both), second.sel(both)


def differences(first: xr.Dataset, second: xr.Dataset) -> list[str]:
    """Say in sentences how run B differs from run A, on the cells that both have.

    Args:
        first: run A, as `shared_cells` gives it.
        second: run B, likewise.
    """
    changed = [name for name, *_ in changed_fields(first, second)]
    cells = first.sizes["mu"] * first.sizes["beta"]
    sentences = [
        f"The runs share {count(cells, 'cell')}. They differ in "
        + (", ".join(changed) if changed else "no field of the configuration")
        + "."
    ]
    dead = [all_seeds(run, "collapsed").values for run in (first, second)]
    sentences.append(
        f"{dead[0].sum()} of these cells collapsed in A and {dead[1].sum()} in B; "
        f"{(dead[0] & ~dead[1]).sum()} in A only, {(dead[1] & ~dead[0]).sum()} in B only."
    )
    recovery = [mean(run, run["recovery_r2"]).values for run in (first, second)]
    gain = recovery[1] - recovery[0]
    if np.isfinite(gain).any():
        known = np.isfinite(gain)
        most, least = extreme(gain, largest=True), extreme(gain, largest=False)
        sentences.append(
            f"Recovery R² averages {number(recovery[0][known].mean())} in A and "
            f"{number(recovery[1][known].mean())} in B. B's largest gain is {number(gain[most])} "
            f"at {where(first, most)}, its largest loss {number(max(-gain[least], 0.0))}"
            + (f" at {where(first, least)}." if gain[least] < 0 else ".")
        )
    return sentences


def changed_fields(first: xr.Dataset, second: xr.Dataset) -> list[tuple[str, str, str]]:
    """Fields of the configuration whose values differ, with both; the name of the preset aside."""
    a, b = settings(first), settings(second)
    return [
        (name, str(a.get(name, "absent")), str(b.get(name, "absent")))
        for name in dict.fromkeys([*a, *b])
        if name != "preset" and a.get(name) != b.get(name)
    ]


def changed_table(first: xr.Dataset, second: xr.Dataset) -> Table:
    """The configuration's fields that differ."""
    rows = [Row([Entry(text) for text in texts]) for texts in changed_fields(first, second)]
    return Table(f"Fields that differ ({_objectives(first, second)})", ["field", "A", "B"], rows)


def difference_table(first: xr.Dataset, second: xr.Dataset) -> Table:
    """Every shared cell: A, B and B - A, with both statuses."""
    runs = [in_order(run) for run in (first, second)]
    values = {
        head: [mean(run, CELL_COLUMNS[head][0](run)).values for run in runs] for head in COMPARED
    }
    status = [run["status"].transpose("mu", "beta", "seed").values for run in runs]
    ended = [endings(run) for run in runs]
    rows = []
    for i, mu in enumerate(runs[0]["mu"].values):
        for k, beta in enumerate(runs[0]["beta"].values):
            texts, kinds = zip(*(end[i][k] for end in ended), strict=True)
            dead = [bool((s[i, k] == "collapsed").any()) for s in status]
            entries = [Entry(plain(mu)), Entry(plain(beta)), *(Entry(text) for text in texts)]
            for head, (a, b) in values.items():
                flattering = CELL_COLUMNS[head][1]
                entries.append(Entry(_or_dash(a[i, k]), void=dead[0] and flattering))
                entries.append(Entry(_or_dash(b[i, k]), void=dead[1] and flattering))
                change = round(float(b[i, k] - a[i, k]), 4)
                entries.append(Entry(_or_dash(change), void=any(dead) and flattering))
            rows.append(Row(entries, kinds[0] if kinds[0] == kinds[1] else ""))
    heads = [f"{head}, {part}" for head in COMPARED for part in ("A", "B", "B − A")]
    return Table(
        f"The shared cells, means over seeds ({_objectives(first, second)}). Struck-through "
        "numbers rest on a collapsed model.",
        ["μ", "β", "status A", "status B", *heads],
        rows,
        heads=2,
    )


def _objectives(first: xr.Dataset, second: xr.Dataset) -> str:
    """What beta is relative to, in both."""
    notes = [objective_note(run) for run in (first, second)]
    return notes[0] if notes[0] == notes[1] else f"A: {notes[0]}; B: {notes[1]}"


def _or_dash(value: float) -> str:
    return number(float(value)) if np.isfinite(value) else "–"
