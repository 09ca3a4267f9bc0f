"""Tables of the report: every cell, theory's boundary, the baseline, the run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import xarray as xr

from vaekit.figures.points import POST_BASELINE
from vaekit.figures.style import converged, objective_note, plain
from vaekit.report.cells import first_collapsed, number
from vaekit.results import in_order, settings

# A spread below this is not worth its room.
SMALLEST = 0.00005


@dataclass(frozen=True)
class Entry:
    """A table's entry: its text, and whether a collapsed model makes it worthless."""

    text: str
    void: bool = False


@dataclass(frozen=True)
class Row:
    """A table's row: its entries, and what kind of row it is (a status, or nothing)."""

    entries: list[Entry]
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """A table with its caption, its column heads and how many leading columns name the row."""

    caption: str
    columns: list[str]
    rows: list[Row] = field(default_factory=list)
    heads: int = 1


def _probe(direction: str, fit: str) -> Callable[[xr.Dataset], xr.DataArray]:
    return lambda dataset: dataset["probe_mse"].sel(direction=direction, fit=fit)


def _ceiling_share(dataset: xr.Dataset) -> xr.DataArray:
    ceiling = dataset["information_ceiling"]
    return dataset["information"] / ceiling.where(np.isfinite(ceiling) & (ceiling > 0))


# Column head -> values, and whether a code or an image that hardly varies can look good in them.
CELL_COLUMNS: dict[str, tuple[Callable[[xr.Dataset], xr.DataArray], bool]] = {
    "active units": (lambda d: d["active_units"], False),
    "recovery R², noisy": (lambda d: d["recovery_r2"], False),
    "recovery R², grid": (lambda d: d["grid_recovery_r2"], False),
    "information ÷ ceiling": (_ceiling_share, False),
    "rate, nats": (lambda d: d["rate"], False),
    "distortion, nats": (lambda d: d["distortion"], False),
    "ELBO, nats": (lambda d: d["elbo"], False),
    "probe MSE truth → code, 3 epochs": (_probe("truth_to_code", "adam"), True),
    "truth → code, exact": (_probe("truth_to_code", "exact"), True),
    "code → truth, 3 epochs": (_probe("code_to_truth", "adam"), True),
    "code → truth, exact": (_probe("code_to_truth", "exact"), True),
    "decode MSE, 3 epochs": (lambda d: d["decode_mse"].sel(fit="adam"), True),
    "decode MSE, exact": (lambda d: d["decode_mse"].sel(fit="exact"), True),
    "mean image's MSE": (lambda d: d["decode_mse_constant"], False),
    "reconstruction MSE": (lambda d: d["reconstruction_mse"], True),
}


def cell_columns(
    dataset: xr.Dataset,
) -> dict[str, tuple[Callable[[xr.Dataset], xr.DataArray], bool]]:
    """Return `CELL_COLUMNS`, and those of measures that not every file holds."""
    columns = dict(CELL_COLUMNS)
    if "aggregate_kl" in dataset:
        columns["aggregate KL, nats"] = (lambda d: d["aggregate_kl"], False)
    if "baseline_recovery_r2" in dataset:
        columns["selectivity, noisy"] = (selectivity, False)
    return columns


def selectivity(dataset: xr.Dataset) -> xr.DataArray:
    """Recovery beyond that of untrained networks: R2 less their mean, on noisy draws of one mu.

    Both are of as many draws, but in files from before that was so. Of an untrained network all
    latents count, of a trained one the active ones: a collapsed model's is minus their mean.
    """
    name = "recovery_r2_few" if "recovery_r2_few" in dataset else "recovery_r2"
    return dataset[name] - dataset["baseline_recovery_r2"].mean("baseline_seed")


def endings(dataset: xr.Dataset) -> list[list[tuple[str, str]]]:
    """Say of every cell, by mu and beta, how its seeds ended; and the kind of its row."""
    status, diverged_at = (
        dataset[name].transpose("mu", "beta", "seed").values for name in ("status", "diverged_at")
    )
    return [
        [_ending(*cell) for cell in zip(*row, strict=True)]
        for row in zip(status, diverged_at, strict=True)
    ]


def _ending(status: np.ndarray, diverged_at: np.ndarray) -> tuple[str, str]:
    """Say how a cell's seeds ended, and the row's kind: that of all of them, else "" or "mixed"."""
    kinds = [kind for kind in ("collapsed", "diverged", "ok") if (status == kind).any()]
    at = f" at {_steps_text(diverged_at)}" if (diverged_at > 0).any() else ""
    if len(kinds) == 1:
        return kinds[0] + at, "" if kinds[0] == "ok" else kinds[0]
    many = len(status)
    return ", ".join(f"{kind} {(status == kind).sum()} of {many}" for kind in kinds) + at, "mixed"


def _steps_text(diverged_at: np.ndarray) -> str:
    """Write the first bad step of the models that diverged, or the range of several."""
    first, last = diverged_at[diverged_at > 0].min(), diverged_at.max()
    return f"step {first:,}" if first == last else f"steps {first:,} to {last:,}"


def spread_text(values: np.ndarray) -> str:
    """Write the mean of the finite seeds, with their standard deviation if there are several."""
    found = values[np.isfinite(values)]
    if not len(found):
        return "–"
    text = number(float(found.mean()))
    spread = float(found.std(ddof=1)) if len(found) > 1 else 0.0
    return f"{text} ± {number(spread)}" if spread >= SMALLEST else text


def cell_table(dataset: xr.Dataset) -> Table:
    """Every cell with status and measures; worthless numbers of collapsed models are marked."""
    dataset = in_order(dataset)
    order = ("mu", "beta", "seed")
    status, ended = dataset["status"].transpose(*order).values, endings(dataset)
    columns = cell_columns(dataset)
    measured = {
        head: converged(dataset, value(dataset)).transpose(*order).values
        for head, (value, _) in columns.items()
    }
    rows = []
    for i, mu in enumerate(dataset["mu"].values):
        for k, beta in enumerate(dataset["beta"].values):
            text, kind = ended[i][k]
            dead = bool((status[i, k] == "collapsed").any())
            entries = [Entry(plain(mu)), Entry(plain(beta)), Entry(text)]
            entries += [
                Entry(spread_text(measured[head][i, k]), void=dead and flattering)
                for head, (_, flattering) in columns.items()
            ]
            rows.append(Row(entries, kind))
    seeds = dataset.sizes["seed"]
    note = f", mean ± standard deviation of {seeds} seeds" if seeds > 1 else ""
    return Table(
        f"Every cell ({objective_note(dataset)}{note}). Struck-through numbers belong to collapsed "
        "models: their code and their image hardly vary, whatever that scores.",
        ["μ", "β", "status", *columns],
        rows,
        heads=2,
    )


def boundary_table(dataset: xr.Dataset) -> Table:
    """For each mu: theory's boundary, where collapse begins, and what the images hold."""
    dataset = in_order(dataset)
    start = first_collapsed(dataset)
    rows = []
    for i, mu in enumerate(dataset["mu"].values):
        critical = float(dataset["critical_beta"][i])
        begins = plain(start[i]) if np.isfinite(start[i]) else "none collapsed at the largest β"
        ratio = number(start[i] / critical) if np.isfinite(start[i] / critical) else "–"
        ceiling = number(float(dataset["information_ceiling"][i]))
        entries = [plain(mu), number(critical), begins, ratio, ceiling]
        rows.append(Row([Entry(text) for text in entries]))
    return Table(
        f"Where collapse begins ({objective_note(dataset)}): the smallest β from which on every "
        "cell collapsed, beside the boundary of theory.",
        ["μ", "critical β", "collapsed from β", "ratio", "information in the images, nats"],
        rows,
    )


def baseline_table(dataset: xr.Dataset) -> Table:
    """Probe MSE and R2 of the untrained networks, with the post's number."""
    many = dataset.sizes["baseline_seed"]
    rows = []
    for direction, words in (("code_to_truth", "code → truth"), ("truth_to_code", "truth → code")):
        for fit, how in (("adam", "3 epochs"), ("exact", "exact")):
            mse = dataset["baseline_probe_mse"].sel(direction=direction, fit=fit).values
            r2 = dataset["baseline_probe_r2"].sel(direction=direction, fit=fit).values
            post = f"{POST_BASELINE}" if (direction, fit) == ("code_to_truth", "adam") else "–"
            if not many:
                rows.append(Row([Entry(t) for t in (f"{words}, {how}", "–", "–", "–", "–", post)]))
                continue
            error = 2 * mse.std(ddof=1) / many**0.5 if many > 1 else np.nan
            texts = [
                f"{words}, {how}",
                f"{mse.mean():.4f}",
                f"{mse.mean() - error:.4f} to {mse.mean() + error:.4f}" if many > 1 else "–",
                f"{mse.min():.4f} to {mse.max():.4f}",
                number(float(r2.mean())),
                post,
            ]
            rows.append(Row([Entry(text) for text in texts]))
    return Table(
        f"Probes of {many} untrained networks ({objective_note(dataset)}, which plays no part "
        "before training). The post does not say which way its probe runs; its number is set "
        "beside the one reading that comes near it.",
        [
            "probe",
            "mean MSE",
            "mean ± 2 standard errors",
            "lowest to highest",
            "mean R²",
            "the post",
        ],
        rows,
    )


def configuration_table(dataset: xr.Dataset) -> Table:
    """Every field of the configuration."""
    rows = [Row([Entry(name), Entry(_value(value))]) for name, value in settings(dataset).items()]
    return Table(f"Configuration ({objective_note(dataset)})", ["field", "value"], rows)


def run_table(dataset: xr.Dataset) -> Table:
    """How the run was made: command, device, time, seconds of each stage, versions."""
    attrs = dataset.attrs
    facts = {
        name: str(attrs[name])
        for name in ("command", "created", "device", "engine", "products", "threads", "stack")
        if name in attrs
    }
    for stage, seconds in json.loads(attrs["seconds"]).items():
        facts[f"seconds: {stage}"] = f"{seconds:,.1f}"
    facts["seconds: in all"] = f"{float(attrs['seconds_total']):,.1f}"
    for package, version in json.loads(attrs["versions"]).items():
        facts[f"version: {package}"] = str(version)
    rows = [Row([Entry(name), Entry(value)]) for name, value in facts.items()]
    return Table(f"The run ({objective_note(dataset)})", ["", "value"], rows)


def _value(value: object) -> str:
    return ", ".join(str(part) for part in value) if isinstance(value, list) else str(value)
