"""The figures of a study: where collapse lies, the verdicts, the controls."""

from __future__ import annotations

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from vaekit.figures.style import (
    ACCENT,
    BLANK,
    INK,
    MUTED,
    heading,
    house_style,
    new_figure,
    page_heading,
    plain,
)
from vaekit.report.cells import number
from vaekit.study.arms import REFERENCE
from vaekit.study.bias import living, optimum_r2, seed_means, together
from vaekit.study.boundary import decided, within_a_step
from vaekit.study.claims import Verdict, readings
from vaekit.study.statistics import interval

WORDS = {
    "holds": "#2f7f79",
    "reversed": ACCENT,
    "fails": ACCENT,
    "open": BLANK,
    "too few living": "white",
    "one seed": "white",
    "one average": "white",
}
HATCHES = {"too few living": "////"}


def boundary(arms: dict[str, xr.Dataset]) -> Figure:
    """Active units of every reading on the (mu, beta) plane, with critical_beta."""
    shown = readings(arms)
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    with house_style():
        made = new_figure(3.5 * columns, 2.4 * rows + 0.4)
        axes = made.subplots(rows, columns, squeeze=False).ravel()
        for ax in axes[len(shown) :]:
            ax.set_visible(False)
        for ax, (name, dataset) in zip(axes, shown.items(), strict=False):
            units = dataset["active_units"].where(dataset["status"] != "diverged").mean("seed")
            top = dataset.sizes["latent"]
            drawn = ax.imshow(
                units.transpose("beta", "mu").values,
                origin="lower",
                aspect="auto",
                cmap="viridis",
                vmin=0,
                vmax=top,
            )
            beta = dataset["beta"].values
            # Between two betas of the grid the line lies in proportion; cells are centred on them.
            place = np.interp(dataset["critical_beta"], beta, np.arange(len(beta)))
            place = np.where(dataset["critical_beta"] > beta[-1], len(beta) - 0.5, place)
            place = np.where(dataset["critical_beta"] < beta[0], -0.5, place)
            ax.plot(np.arange(len(place)), place, "--", color=ACCENT, linewidth=1.8)
            ax.set_xticks(range(len(place)), [plain(m) for m in dataset["mu"].values])
            ax.set_yticks(range(len(beta)), [plain(b) for b in beta])
            ax.set_xlabel("μ")
            ax.set_ylabel("β")
            share = within_a_step(dataset)
            many = int(np.isfinite(decided(dataset)).sum())
            text = f"{number(100 * share)} % of {many} columns within one step"
            heading(ax, name, text if np.isfinite(share) else "")
        made.colorbar(drawn, ax=list(axes), label="active units (mean over seeds)", shrink=0.6)
    return made


def verdict_map(judged: list[Verdict]) -> Figure:
    """One square for each score (rows, under their claim) and arm (columns)."""
    judged = [verdict for verdict in judged if verdict.arm != "all"]
    names = list(dict.fromkeys(verdict.arm for verdict in judged))
    places: dict[tuple[str, str], int] = {}
    titles: dict[str, int] = {}
    for verdict in judged:
        # A claim takes a line of its own above its scores.
        line = len(places) + len(titles)
        if verdict.claim not in titles:
            titles[verdict.claim], line = line, line + 1
        places.setdefault((verdict.claim, verdict.score), line)
    lines = len(places) + len(titles)
    with house_style():
        made = new_figure(4.6 + 0.66 * max(4, len(names)), 2.0 + 0.3 * lines)
        ax = made.subplots()
        for verdict in judged:
            x, y = names.index(verdict.arm), places[verdict.claim, verdict.score]
            ax.add_patch(
                matplotlib.patches.Rectangle(
                    (x - 0.47, y - 0.45),
                    0.94,
                    0.9,
                    facecolor=WORDS[verdict.word],
                    hatch=HATCHES.get(verdict.word),
                    hatchcolor=BLANK,
                    linewidth=0,
                )
            )
            colour = INK if verdict.word not in ("holds", "reversed") else "white"
            text = f"{verdict.value:.2f}".replace("-", "−")
            ax.text(x, y, text, ha="center", va="center", fontsize=9, color=colour)
        for claim, line in titles.items():
            words = claim[0].upper() + claim[1:]
            ax.text(-0.47, line + 0.3, words, fontsize=10, fontweight="bold", va="baseline")
        ax.set_xlim(-0.5, len(names) - 0.5)
        ax.set_ylim(lines - 0.5, -0.5)
        ax.set_xticks(range(len(names)), names, rotation=40, ha="right", fontsize=9.5)
        ax.set_yticks(list(places.values()), [score for _, score in places], fontsize=9.5)
        ax.tick_params(length=0)
        for spine in ax.spines.values():
            spine.set_visible(False)
        key = [
            matplotlib.patches.Patch(
                facecolor=WORDS[word], edgecolor=MUTED, hatch=HATCHES.get(word), label=word
            )
            for word in dict.fromkeys(verdict.word for verdict in judged)
        ]
        made.legend(handles=key, loc="outside lower left", ncols=4, fontsize=9.5)
        page_heading(
            made,
            "The post's claims under every reading",
            "each number is the claim's statistic, positive if it holds; columns are arms",
        )
    return made


def control_lines(arms: dict[str, xr.Dataset]) -> dict[str, list[xr.Dataset]]:
    """What `controls` draws: a line's label -> the datasets it is made of, in order of mu."""
    lines: dict[str, list[xr.Dataset]] = {}
    if REFERENCE in arms:
        base = arms[REFERENCE]
        lines["sigmoid, the post's noise"] = [base]
        matched = [d for name, d in arms.items() if name.startswith("matched-mu-")]
        if matched:
            lines["sigmoid, signal-to-noise of μ = 0"] = [base.isel(mu=[0]), *matched]
    if "linear" in arms:
        lines["linear grid, signal-to-noise of μ = 0"] = [arms["linear"]]
    return lines


def controls(arms: dict[str, xr.Dataset]) -> Figure:
    """Recovery over mu: as the post has it, at matched signal-to-noise ratio, and linear.

    At every mu the lines are means over the same pairs of beta and seed: those in which the models
    of all lines live.
    """
    found: dict[str, dict[float, xr.DataArray]] = {
        label: {float(mu): living(part, mu) for part in parts for mu in part["mu"].values}
        for label, parts in control_lines(arms).items()
    }
    levels = sorted({mu for line in found.values() for mu in line})
    shared = {
        mu: dict(zip(lines, together(*lines.values()), strict=True))
        for mu in levels
        if (lines := {label: line[mu] for label, line in found.items() if mu in line})
    }
    counts = [int(np.isfinite(next(iter(lines.values()))).sum()) for lines in shared.values()]
    with house_style():
        made = new_figure(6.8, 4.2)
        ax = made.subplots()
        looks = zip((ACCENT, "#2f7f79", INK), ("o-", "s-", "^--"), strict=True)
        for label, (colour, look) in zip(found, looks, strict=False):
            mu = [level for level in levels if label in shared[level]]
            line = interval(np.array([seed_means(shared[level][label]) for level in mu]))
            ax.plot(mu, line.mean, look, color=colour, label=label)
            ax.fill_between(mu, line.low, line.high, color=colour, alpha=0.2, linewidth=0)
        exact = optimum_r2(arms["linear"]) if "linear" in arms else None
        if exact is not None and np.isfinite(exact).any():
            best = float(exact.max())
            ax.axhline(best, color=MUTED, linewidth=1.2, linestyle=":", label="its exact optimum")
        ax.set_xticks(levels, [f"{plain(m)}\n{n}" for m, n in zip(levels, counts, strict=True)])
        ax.set_xlabel("μ, and below it the pairs of β and seed that live in every line")
        ax.set_ylabel("recovery R², mean over those pairs")
        ax.set_ylim(0, 1.02)
        ax.legend(loc="lower left")
        heading(
            ax,
            "Bias or signal-to-noise?",
            "lines are paired at each μ, not along it; bands: bootstrap intervals over seeds",
        )
    return made


def probe_error(arms: dict[str, xr.Dataset]) -> Figure:
    """Decode MSE of living models with both fits, an arm on each row."""
    shown = readings(arms)
    with house_style():
        made = new_figure(6.4, 1.2 + 0.32 * len(shown))
        ax = made.subplots()
        for place, dataset in enumerate(shown.values()):
            alive = dataset["decode_mse"].where(dataset["status"] == "ok")
            for fit, colour in (("exact", "#2f7f79"), ("adam", ACCENT)):
                found = interval(alive.sel(fit=fit).mean(["mu", "beta"]).values)
                ax.plot(
                    [found.low, found.high], [place, place], color=colour, linewidth=3, alpha=0.5
                )
                ax.plot(found.mean, place, "o", color=colour, label=fit if not place else None)
        ax.set_yticks(range(len(shown)), list(shown))
        ax.set_ylim(len(shown) - 0.5, -0.5)
        ax.set_xlim(left=0)
        ax.set_xlabel("decode MSE per pixel, mean over the cells that are alive")
        handles, _ = ax.get_legend_handles_labels()
        made.legend(
            handles, ["probe fitted exactly", "3 epochs"], loc="outside lower left", ncols=2
        )
        heading(
            ax,
            "The second heat map's probe",
            "compare the two dots of an arm, not arms: each is over its own living cells\n"
            "bars: bootstrap intervals over seeds, which move both values of an arm together",
        )
    return made
