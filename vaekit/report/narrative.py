"""The answer in plain words, every number of it from the dataset.

A sentence is only written if the data says so; where the data says otherwise, another one is.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from vaekit.figures.points import POST_BASELINE
from vaekit.figures.style import objective_note, plain
from vaekit.report.cells import (
    all_seeds,
    best_beta,
    count,
    extreme,
    first_collapsed,
    mean,
    number,
    where,
)
from vaekit.report.post_maps import first_map, second_map
from vaekit.report.protection import TOLERANCE, protection, verdict
from vaekit.results import in_order, settings

# A rate beyond this many nats says that nothing holds the code back (beta at or near 0).
BLOWN_UP = 1_000.0

Section = tuple[str, list[str]]


def narrative(dataset: xr.Dataset) -> list[str]:
    """Say in sentences what a sweep found.

    Args:
        dataset: as `open_results` gives it.

    Returns:
        The sentences, the short answer first.
    """
    return [sentence for _, sentences in sections(dataset) for sentence in sentences]


def sections(dataset: xr.Dataset) -> list[Section]:
    """Return the narrative under its headings, empty ones left out."""
    dataset = in_order(dataset)
    found = [
        ("In short", _short(dataset)),
        ("What was recovered", _recovered(dataset)),
        ("What collapsed", _collapsed(dataset)),
        ("What the post's two heat maps show", first_map(dataset) + second_map(dataset)),
        ("Does β protect against biased data?", protection(dataset)),
        ("Untrained networks", _baseline(dataset)),
        ("Training", _training(dataset)),
    ]
    return [(heading, sentences) for heading, sentences in found if sentences]


def _short(dataset: xr.Dataset) -> list[str]:
    """The verdict, the best cell, and how much collapsed."""
    place, value = best_beta(dataset)
    cells = dataset.sizes["mu"] * dataset.sizes["beta"]
    dead = int(all_seeds(dataset, "collapsed").sum())
    sentences = [verdict(dataset)]
    if (place >= 0).any():
        top = int(np.nanargmax(value))
        sentences.append(
            f"The truth is recovered best at {where(dataset, (top, place[top]))}: "
            f"R² {number(value[top])} on noisy images."
        )
    sentences.append(
        f"{dead} of {cells} cells collapsed: their models ignore the image."
        if dead
        else f"None of the {count(cells, 'cell')} collapsed."
    )
    return sentences


def _recovered(dataset: xr.Dataset) -> list[str]:
    """Where the truth can be read back from the code, and how that changes with mu."""
    place, value = best_beta(dataset)
    if not (place >= 0).any():
        return ["No model recovered anything: every one collapsed or diverged."]
    top = int(np.nanargmax(value))
    cell = (top, int(place[top]))
    clean = mean(dataset, dataset["grid_recovery_r2"]).values[cell]
    units = mean(dataset, dataset["active_units"]).values[cell]
    sentences = [
        (
            f"At {where(dataset, cell)} a linear map reads the truth from the code with R² "
            f"{number(value[top])} on fresh noisy images and {number(clean)} on the clean test "
            f"grid; {number(units)} of {dataset.sizes['latent']} units are active."
        )
    ]
    recovery = mean(dataset, dataset["recovery_r2"]).values
    half = int((recovery >= 0.5).sum())
    reach = dataset["mu"].values[(recovery >= 0.5).any(axis=1)]
    sentences.append(
        f"R² 0.5 is reached in {half} of {recovery.size} cells"
        + (f", at μ up to {plain(reach.max())}." if half else ".")
    )
    if dataset.sizes["mu"] > 1:
        sentences += _over_mu(dataset, value)
    return sentences


def _over_mu(dataset: xr.Dataset, value: np.ndarray) -> list[str]:
    """How the best recovery, and its share of the ceiling, change from the first mu to the last."""
    mu = dataset["mu"].values
    found = np.nan_to_num(value, nan=0.0)
    steps = np.diff(found)
    if (steps <= TOLERANCE).all() and found[-1] < found[0] - TOLERANCE:
        manner = "falls as μ rises,"
    elif found[-1] < found[0] - TOLERANCE:
        manner = "falls with μ, though not at every step,"
    elif found[-1] > found[0] + TOLERANCE:
        manner = "rises with μ,"
    else:
        manner = "does not change with μ,"
    sentences = [
        (
            f"The best R² over β {manner} from {number(found[0])} at μ = {plain(mu[0])} to "
            f"{number(found[-1])} at μ = {plain(mu[-1])}."
        )
    ]
    ceiling = dataset["information_ceiling"]
    share = mean(dataset, dataset["information"]) / ceiling.where(
        np.isfinite(ceiling) & (ceiling > 0)
    )
    best = share.where(~all_seeds(dataset, "collapsed")).max("beta").values
    ends = [f"μ = {plain(mu[0])}", f"μ = {plain(mu[-1])}"]
    held = [number(float(ceiling[place])) for place in (0, -1)]
    kept = [f"{number(100 * best[place])} %" for place in (0, -1)]
    if np.isfinite(best[[0, -1]]).all():
        less = "The images themselves hold less" if ceiling[-1] < ceiling[0] else "The images hold"
        sentences.append(
            f"{less}: {held[0]} nats about the truth at {ends[0]} and {held[1]} at {ends[1]}. "
            f"Of that the best code keeps {kept[0]} and {kept[1]}."
        )
    elif np.isfinite(best[0]):
        sentences.append(
            f"Of the {held[0]} nats that the images hold at {ends[0]} the best code keeps "
            f"{kept[0]}; at {ends[1]} there is no code to measure."
        )
    return sentences


def _collapsed(dataset: xr.Dataset) -> list[str]:
    """What collapsed or diverged, and where that lies beside theory's boundary."""
    dead, gone = all_seeds(dataset, "collapsed"), all_seeds(dataset, "diverged")
    some = (dataset["status"] == "collapsed").any("seed").transpose("mu", "beta") & ~dead
    cells = dead.size
    sentences = [f"{int(dead.sum())} of {cells} cells have no active unit"]
    sentences[0] += f", and {int(some.sum())} more in some seeds only." if some.any() else "."
    if gone.any():
        places = [where(dataset, tuple(cell)) for cell in np.argwhere(gone.values)]
        more = f" and {len(places) - 4} more" if len(places) > 4 else ""
        sentences.append(f"Training diverged at {'; '.join(places[:4])}{more}.")
    partly = (dataset["status"] == "diverged").any("seed").transpose("mu", "beta") & ~gone
    if partly.any():
        sentences.append(
            f"In {count(int(partly.sum()), 'more cell')} some seeds diverged; averages leave those "
            "out."
        )
    return sentences + _boundary(dataset, dead, gone)


def _boundary(dataset: xr.Dataset, dead: xr.DataArray, gone: xr.DataArray) -> list[str]:
    """How far the boundary of collapse lies from critical_beta."""
    critical = dataset["critical_beta"]
    if not np.isfinite(critical).any():
        return ["Theory has no boundary here: no constant image is an optimum at these μ."]
    below = (dataset["beta"] < critical).transpose("mu", "beta")
    known = np.isfinite(critical) & ~gone
    early, under = int((below & dead & known).sum()), int((below & known).sum())
    late, over = int((~below & ~dead & known).sum()), int((~below & known).sum())
    config = settings(dataset)
    sentences = [
        (
            f"In theory ({objective_note(dataset)}) units live below critical β, which runs from "
            f"{number(float(critical[0]))} at μ = {plain(float(dataset['mu'][0]))} to "
            f"{number(float(critical[-1]))} at μ = {plain(float(dataset['mu'][-1]))}."
        )
    ]
    sentences.append(
        f"{early} of the {count(under, 'cell')} below that line collapsed all the same; of the "
        f"{over} above it, {over - late} collapsed."
    )
    if early:
        sentences.append(
            f"Below the line the collapsed state is unstable, so those are the optimiser's doing: "
            f"{config['steps']:,} steps"
            + (f", β warmed up over {config['beta_warmup']:,}," if config["beta_warmup"] else "")
            + " were not enough to leave it."
        )
    start, mu = first_collapsed(dataset), dataset["mu"].values
    ratio = start / critical.values
    if np.isfinite(ratio).any():
        pick = np.flatnonzero(np.isfinite(ratio))
        parts = [
            f"β = {plain(start[i])} at μ = {plain(mu[i])} (critical β {number(float(critical[i]))})"
            for i in dict.fromkeys((pick[0], pick[len(pick) // 2], pick[-1]))
        ]
        sentences.append(f"Collapse begins at {', '.join(parts)}.")
    return sentences


def _baseline(dataset: xr.Dataset) -> list[str]:
    """What untrained networks score, beside the post's number."""
    many = dataset.sizes["baseline_seed"]
    if not many:
        return []
    scored = dataset["baseline_probe_mse"].sel(direction="code_to_truth")
    adam, exact = scored.sel(fit="adam").values, float(scored.sel(fit="exact").mean())
    r2 = dataset["baseline_probe_r2"].sel(direction="code_to_truth", fit="exact").mean()
    inside = adam.min() <= POST_BASELINE <= adam.max()
    sentences = [
        (
            f"The 3-epoch probe code → truth scores {adam.mean():.4f} on average on {many} "
            f"untrained networks ({adam.min():.4f} to {adam.max():.4f}); the post's "
            f"{POST_BASELINE} lies {'inside' if inside else 'outside'} that range."
        )
    ]
    if exact < 0.8 * adam.mean():
        sentences.append(
            f"Fitted exactly on the same networks it scores {number(exact)}, R² "
            f"{number(float(r2))}: the post's baseline measures a probe that had not been trained "
            "enough, not lost information."
        )
    return sentences


def nats(value: float) -> str:
    """Write a loss, whose differences are small beside it."""
    return f"{value:,.1f}".replace("-", "−")


def _training(dataset: xr.Dataset) -> list[str]:
    """Whether the training loss rises with mu and with beta, as the post says."""
    curves = mean(dataset, dataset["loss_curve"])
    first = int(dataset["step"][0])
    opening = f"loss of the first {f'{first} steps' if first > 1 else 'step'}"
    at_beta, at_mu = ({"beta": 1.0}, {"mu": 0.0})
    sentences = _trend(curves.isel(step=-1), at_beta, "final training loss")
    if first < int(dataset["step"][-1]):
        sentences += _trend(curves.isel(step=0), at_beta, opening)
    sentences += _trend(curves.isel(step=-1), at_mu, "final training loss")
    rate = mean(dataset, dataset["rate"]).values
    if np.isfinite(rate).any() and np.nanmax(rate) > BLOWN_UP:
        cell = extreme(rate, largest=True)
        sentences.append(
            f"At {where(dataset, cell)} the code blew up: {number(rate[cell])} nats of KL."
        )
    return sentences


def _trend(loss: xr.DataArray, at: dict[str, float], name: str) -> list[str]:
    """Say whether a loss over (mu, beta) rises along one axis at the value nearest to `at`."""
    symbols = {"mu": "μ", "beta": "β"}
    fixed = next(iter(at))
    over = "mu" if fixed == "beta" else "beta"
    line = loss.sel(at, method="nearest").dropna(over)
    if line.sizes[over] < 2:
        return []
    first, last = float(line[0]), float(line[-1])
    rises = last > first
    steady = (np.diff(line.values) * (1 if rises else -1) > 0).all()
    direction = "rises" if rises else "falls"
    post = "as the post reports" if rises else "where the post reports a rise"
    sentence = (
        f"At {symbols[fixed]} = {plain(float(line[fixed]))} the {name} {direction} with "
        f"{symbols[over]}{'' if steady else ', though not at every step'}, {post}: {nats(first)} "
        f"nats at {symbols[over]} = {plain(float(line[over][0]))}, {nats(last)} at "
        f"{symbols[over]} = {plain(float(line[over][-1]))}."
    )
    return [sentence]
