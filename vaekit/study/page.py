"""A study's report: page, Markdown summary, verdicts and intervals, made from its arms alone."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np
import xarray as xr
from jinja2 import Environment, StrictUndefined

from vaekit.figures import save_figure
from vaekit.figures.style import objective_note
from vaekit.files import write_whole
from vaekit.report.cells import number
from vaekit.results import settings
from vaekit.study import figures
from vaekit.study.answer import answer
from vaekit.study.arms import Study
from vaekit.study.claims import FEW, NOTHING, Verdict, readings, verdicts
from vaekit.study.run import made_by, open_study
from vaekit.study.section import Rows, Section
from vaekit.study.statistics import interval

CELL_MEASURES = ("active_units", "recovery_r2", "elbo", "rate", "information")
PROBES = ("probe_mse", "decode_mse")
FIXED_ARM = "fixed-analytic-0.25"
# Up to so many seeds the 95 % interval of their mean's bootstrap is their range.
RANGE_SEEDS = 3
STATISTICS = (
    "A verdict's statistic is positive if the claim holds: a rank correlation, averaged over "
    "lines, for what rises, and over cells for what runs the other way; the weaker of the "
    "correlations with μ and β for diagonal level sets; the gain of the low corner, relative to "
    "the map's mean. It holds or is reversed if the interval lies on one side of 0, and is open "
    f"otherwise; a rank correlation nearer to 0 than {NOTHING} is open whatever its interval. "
    "“Living” and “collapsed” count the arm's models, over μ, β and seed. Where fewer than "
    f"{FEW} a seed live, a verdict on the maps is “too few living” and counts as open: such a map "
    "shows what collapsed models score. For the untrained networks low and high are the least and "
    "the largest average of three of them."
)
NAMES = (
    "An arm's name is schedule-KL-decoder variance; matched-mu arms are at the signal-to-noise "
    "ratio of μ = 0, and linear is the linear grid."
)
PAIRS = (
    "Differences are taken within a seed. Models of one seed, μ and β share their initial weights, "
    "images and noise in every arm; models of two μ share the initial weights and the latent noise "
    "alone, because images and their noise are drawn anew for every μ."
)
# What a figure shows, for those who do not see it.
ALTERNATIVES = {
    "controls": "Recovery over μ: with the post's noise, at a matched signal-to-noise ratio, and "
    "on the linear grid",
    "boundary": "Active units over μ and β in every arm, with the line of critical β",
    "probe_error": "Decode MSE of living models in every arm, with the probe of 3 epochs and with "
    "the exact one",
    "verdicts": "The verdict on every claim, by score and arm",
}


def write_study_report(directory: Path | str) -> tuple[Path, list[str]]:
    """Write report.html, summary.md, verdicts.csv, cells.csv and figures/*.png of a study.

    Args:
        directory: the study's; what its finished arms hold is all that is used.

    Returns:
        The page's path, and the answer's sentences.

    Raises:
        ResultsError: it is no study's directory, or no arm is finished.
    """
    directory = Path(directory)
    study, arms = open_study(directory)
    judged, sections = verdicts(arms), answer(arms)
    (directory / "figures").mkdir(exist_ok=True)
    drawn = {}
    if figures.control_lines(arms):
        drawn["controls"] = figures.controls(arms)
    if readings(arms):
        drawn["boundary"] = figures.boundary(arms)
        drawn["probe_error"] = figures.probe_error(arms)
    if any(verdict.arm != "all" for verdict in judged):
        drawn["verdicts"] = figures.verdict_map(judged)
    for name, made in drawn.items():
        save_figure(made, directory / "figures" / f"{name}.png")
    missing = [arm.name for arm in study.arms if arm.name not in arms]
    facts = _facts(study, arms, missing, made_by(directory))
    write_whole(directory / "verdicts.csv", _table(_verdict_rows(judged, _raw)))
    write_whole(directory / "cells.csv", _table(_cell_rows(arms)))
    write_whole(directory / "summary.md", _markdown(study, facts, sections, judged))
    source = files("vaekit.study").joinpath("study.html.j2").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.from_string(source).render(
        title=f"{study.name}, {study.preset}",
        facts=facts,
        sections=sections,
        pictures=[
            (name, ALTERNATIVES[name], _data(directory / "figures" / f"{name}.png"))
            for name in drawn
        ],
        rows=_verdict_rows(judged),
    )
    write_whole(directory / "report.html", page)
    return directory / "report.html", [line for section in sections for line in section.sentences]


def _facts(
    study: Study, arms: dict[str, xr.Dataset], missing: list[str], made: dict[str, str]
) -> list[str]:
    """How the study was made, as sentences."""
    first = next(iter(arms.values()))
    seconds = sum(float(dataset.attrs["seconds_total"]) for dataset in arms.values())
    seeds = first.sizes["seed"]
    missed = f"; still to run: {', '.join(missing)}." if missing else "."
    dates = sorted(dataset.attrs["created"][:10] for dataset in arms.values())
    versions = sorted({_versions(dataset) for dataset in arms.values()})
    made_at = (
        f"Made by `{made['command'] or first.attrs['command']}` at commit "
        f"{made['commit'] or 'unknown'}, {' to '.join(dict.fromkeys((dates[0], dates[-1])))}, "
        f"with {'; '.join(versions)}."
    )
    return [
        f"{len(arms)} of {len(study.arms)} arms{missed}",
        made_at,
        f"{seconds:,.0f} s of training and measuring on {first.attrs['device']}.",
        *_setups(arms),
        NAMES,
        PAIRS,
        _what_an_interval_means(seeds),
        STATISTICS,
    ]


def _versions(dataset: xr.Dataset) -> str:
    return ", ".join(
        f"{name} {version}"
        for name, version in json.loads(dataset.attrs["versions"]).items()
        if name != "platform"
    )


def _setups(arms: dict[str, xr.Dataset]) -> list[str]:
    """A sentence for each network and way of training, with the arms that have it."""
    groups: dict[str, list[str]] = {}
    for name, dataset in arms.items():
        groups.setdefault(_setup(dataset), []).append(name)
    sentences = []
    for words, names in groups.items():
        several = f"{len(names)} arms ({', '.join(names)})" if len(names) > 1 else names[0]
        mus: dict[str, list[str]] = {}
        for name in names:
            mus.setdefault(", ".join(f"{mu:g}" for mu in arms[name]["mu"].values), []).append(name)
        most = max(mus, key=lambda mu: len(mus[mu]))
        others = [f"{name} μ {mu}" for mu, has in mus.items() if mu != most for name in has]
        sentences.append(
            f"{several}: {words}; μ {most}{', but ' + ', '.join(others) if others else ''}."
        )
    if len(groups) > 1:
        sentences.append("Arms of one of these lines may be compared; those of two are not alike.")
    return sentences


def _setup(dataset: xr.Dataset) -> str:
    """Network and training of an arm, in words."""
    config = settings(dataset)
    hidden = " and ".join(str(width) for width in config["hidden"]) or "no"
    network = f"{config['latents']} latents, {hidden} hidden units"
    if config["steps"] <= 1:
        return f"{network}, {config['baseline_seeds']} networks that were not trained"
    seeds = ", ".join(str(seed) for seed in dataset["seed"].values)
    beta = ", ".join(f"{value:g}" for value in dataset["beta"].values)
    return (
        f"{network}, {config['steps']:,} steps of {config['batch']} images at a learning rate of "
        f"{config['learning_rate']:g}, seeds {seeds}, β {beta}"
    )


def _what_an_interval_means(seeds: int) -> str:
    """What the brackets hold, and what so few seeds cannot say."""
    if seeds < 2:
        return "With one seed there are no intervals, and so no verdicts but the untrained ones."
    opening = "Square brackets hold 95 % bootstrap intervals over seeds."
    if seeds > RANGE_SEEDS:
        return f"{opening} Of few seeds they are narrower than their name promises."
    covered = 100 * (1 - 2.0 ** (1 - seeds))
    return (
        f"{opening} Of {seeds} seeds that is the range of the {seeds} values: it holds the median "
        f"of all seeds with a chance of {number(covered)} %, not 95 %. So a verdict says that the "
        f"{seeds} seeds agree in sign, and no more; and no interval speaks of other networks, "
        "learning rates or lengths of training."
    )


def _markdown(
    study: Study, facts: list[str], sections: list[Section], judged: list[Verdict]
) -> str:
    lines = [f"# {study.name}, {study.preset}", "", *(f"- {fact}" for fact in facts)]
    for section in sections:
        lines += ["", f"## {section.heading}", ""]
        lines += [f"- {sentence}" for sentence in section.sentences]
        if section.table:
            lines += ["", *_markdown_table(section.table)]
    lines += ["", "## Every verdict", "", *_markdown_table(_verdict_rows(judged))]
    return "\n".join(lines) + "\n"


def _markdown_table(rows: Rows) -> list[str]:
    head, *body = ("| " + " | ".join(row) + " |" for row in rows)
    return [head, "|" + "---|" * len(rows[0]), *body]


def _verdict_rows(judged: list[Verdict], spelt: Callable[[float], str] = number) -> Rows:
    """A row for each verdict, with its numbers as people read them or as programs do."""
    rows = [["claim", "arm", "score", "verdict", "statistic", "low", "high", "living", "collapsed"]]
    for verdict in judged:
        numbers = [spelt(value) for value in (verdict.value, verdict.low, verdict.high)]
        counts = ["" if c is None else str(c) for c in (verdict.living, verdict.collapsed)]
        rows.append([verdict.claim, verdict.arm, verdict.score, verdict.word, *numbers, *counts])
    return rows


def _raw(value: float) -> str:
    """Write a number for a data file: empty if there is none."""
    return f"{value:.9g}" if np.isfinite(value) else ""


def _cell_rows(arms: dict[str, xr.Dataset]) -> Rows:
    """Every cell's mean and interval, and its paired difference from the fixed analytic arm."""
    rows = [["arm", "decoder", "mu", "beta", "seeds", "collapsed", "diverged", "measure"]]
    rows[0] += [
        "mean",
        "low",
        "high",
        *(f"minus {FIXED_ARM}{end}" for end in ("", ", low", ", high")),
    ]
    base = _measures(arms[FIXED_ARM]) if FIXED_ARM in arms else {}
    for name, dataset in arms.items():
        paired = name in readings(arms)
        status = dataset["status"].transpose("mu", "beta", "seed").values
        for measure, values in _measures(dataset).items():
            found = interval(values.values)
            gap = interval((values - base[measure]).values) if paired and base else None
            for i, mu in enumerate(dataset["mu"].values):
                for k, beta in enumerate(dataset["beta"].values):
                    ends = [found.mean[i, k], found.low[i, k], found.high[i, k]]
                    if gap is not None:
                        ends += [gap.mean[i, k], gap.low[i, k], gap.high[i, k]]
                    texts = [f"{end:.5g}" if np.isfinite(end) else "" for end in ends]
                    texts += [""] * (6 - len(texts))
                    place = [name, objective_note(dataset), f"{mu:g}", f"{beta:g}"]
                    kinds = [
                        int((status[i, k] == kind).sum()) for kind in ("collapsed", "diverged")
                    ]
                    counts = [str(count) for count in (status.shape[-1], *kinds)]
                    rows.append([*place, *counts, measure, *texts])
    return rows


def _measures(dataset: xr.Dataset) -> dict[str, xr.DataArray]:
    """The measures of every cell, [mu, beta, seed]; what diverged is NaN."""
    found = {name: dataset[name] for name in CELL_MEASURES}
    for name in PROBES:
        stacked = dataset[name].stack(
            reading=[d for d in ("direction", "fit") if d in dataset[name].dims]
        )
        for key in stacked["reading"].values:
            label = key if isinstance(key, tuple) else (key,)
            found[" ".join([name, *map(str, label)])] = stacked.sel(reading=key, drop=True)
    alive = dataset["status"] != "diverged"
    return {
        name: values.where(alive).transpose("mu", "beta", "seed") for name, values in found.items()
    }


def _table(rows: Rows) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _data(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
