"""Tables of what is measured only where it is asked for: estimates of information, axis scores."""

from __future__ import annotations

import numpy as np
import xarray as xr

from vaekit.figures.style import converged, objective_note, plain
from vaekit.report.cells import number
from vaekit.report.tables import Entry, Row, Table, endings, spread_text
from vaekit.results import in_order


def asked_tables(dataset: xr.Dataset) -> list[Table]:
    """Return a table for each measure that the run was asked for; none if it was not."""
    tables = []
    if "information_estimate" in dataset:
        tables.append(estimates_table(dataset))
    if "axis_score" in dataset:
        tables.append(axis_table(dataset))
    return tables


def estimates_table(dataset: xr.Dataset) -> Table:
    """Every estimator's information beside the ceiling; what the draws do not support says so."""
    limits = dict(
        zip(dataset["estimator"].values, dataset["information_limit"].values, strict=True)
    )
    notes = [
        f"{name} at most {number(float(limit))}" for name, limit in limits.items() if limit < np.inf
    ]
    bound = f" So many draws support {', '.join(notes)} nats; what is above is no evidence."
    names = dataset["estimator"].values.tolist()
    columns = [f"{name}, nats" for name in names]
    return _table(
        dataset,
        f"Information of code and truth on noisy draws by other estimators "
        f"({objective_note(dataset)}).{bound if notes else ''}",
        "information_estimate",
        columns,
        [float(limits[name]) for name in names],
        ceiling=True,
    )


def axis_table(dataset: xr.Dataset) -> Table:
    """Scores that depend on the latents' axes, under that name."""
    names = dataset["axis_metric"].values.tolist()
    return _table(
        dataset,
        f"Axis-dependent scores ({objective_note(dataset)}). Where all tiles are alike, as on this "
        "grid, the axes that a code takes are chance: what differs here is the noise of the seeds, "
        "and a code that holds everything may score low.",
        "axis_score",
        [f"{name} (axis-dependent)" for name in names],
        [np.inf] * len(names),
        ceiling=False,
    )


def _table(
    dataset: xr.Dataset,
    caption: str,
    variable: str,
    columns: list[str],
    limits: list[float],
    *,
    ceiling: bool,
) -> Table:
    """Lay out a variable [mu, beta, seed, column], marking what is above its column's limit."""
    dataset = in_order(dataset)
    values = converged(dataset, dataset[variable]).transpose("mu", "beta", "seed", ...).values
    ended = endings(dataset)
    rows = []
    for i, mu in enumerate(dataset["mu"].values):
        held = [Entry(number(float(dataset["information_ceiling"][i])))] if ceiling else []
        for k, beta in enumerate(dataset["beta"].values):
            text, kind = ended[i][k]
            entries = [Entry(plain(mu)), Entry(plain(beta)), Entry(text), *held]
            for column, limit in enumerate(limits):
                found = values[i, k, :, column]
                above = bool((found[np.isfinite(found)] > limit).any())
                entries.append(Entry(spread_text(found) + (" (unsupported)" if above else "")))
            rows.append(Row(entries, kind))
    heads = ["μ", "β", "status", *(["ceiling, nats"] if ceiling else []), *columns]
    return Table(caption, heads, rows, heads=2)
