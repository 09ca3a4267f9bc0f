"""Is the tree here slower than a run that was stored? `nox -s bench -- --against FOLDER`.

A stored run cannot take turns with a new one, so their ratio also carries what the machine's speed
did in between, and of a training what memory its one process happened to get. What each run differs
from itself, its own A/A, is the noise that is known; the rest is not, and the table says so. A
regression that matters is worth `--against COMMIT`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench import gate
from bench.bench_training import FULL, QUICK, Plan, compare_peers
from bench.ceilings import measure_ceilings
from bench.curves import STACK, models_curve, models_point, peers_of
from bench.errors import BenchError
from bench.paired import AGAIN, BASE, NEW, ORDER, Verdict, interval, limit, middle, of_sets
from bench.peers import OURS, OURS_AGAIN, PEERS, absent, elsewhere
from bench.problem import default_problem
from bench.provenance import provenance
from bench.storage import store
from bench.timing import ratio
from vaekit.machine import resolve_device

Samples = dict[str, list[float]]
median = partial(np.median, axis=-1)


def find(text: str) -> Path | None:
    """Give the stored samples that a text names: a file, or a folder with such; else None."""
    path = Path(text)
    for candidate in (path, path / "training.json", path / "against.json"):
        if candidate.is_file() and candidate.name in {"training.json", "against.json"}:
            return candidate
    return None


def read(path: Path) -> dict[str, Any]:
    """Read stored samples.

    Raises:
        BenchError: the file holds something else.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        made = content["provenance"]
        made["machine"], made["versions"].items(), made["commit"], made["date"]
        if path.name == "training.json":
            content["peers"]["problem"], content["peers"]["seconds"].items()
            content["scaling"]["curve"].items()
            content["ceilings"]["seconds"].items()
        else:
            content["seconds"].items()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BenchError(
            f"against: got {path}; allowed: samples that `nox -s bench` has stored ({error})"
        ) from None
    return content


def against_stored(path: Path, *, quick: bool) -> dict[str, Verdict]:
    """Time the tree here as a stored run was timed; print the table, store the samples.

    Args:
        path: training.json or against.json of an earlier run.
        quick: of a training, the problem of a quick run.

    Returns:
        The verdict of each benchmark.

    Raises:
        BenchError: the stored run is of another machine or of another problem.
    """
    content = read(path)
    made, here = content["provenance"], provenance(f"python -m bench --against {path}")
    _same(path, "machine", made["machine"], here["machine"])
    plan = QUICK if quick else FULL
    if path.name == "training.json":
        problem = default_problem(STACK, plan.steps)
        _same(path, "problem", content["peers"].get("problem"), problem.described())
        device = resolve_device("auto")
        points = content["scaling"]["curve"]
        then = {name: row.get("steps", "not stored") for name, row in points.items()}
        steps = {name: models_point(plan.curve_steps, device, int(name)).steps for name in points}
        _same(path, "steps by models", then, steps)
        twice = all(OURS_AGAIN in row["seconds"] for row in points.values())
        _same(path, "noise of every point", "known" if twice else "not stored", "known")
        left_out = absent(quick=quick) | elsewhere(device)
        here_too = [name for name in PEERS if name not in left_out] + [OURS_AGAIN]
        _same(path, "list of what was timed", list(content["peers"]["seconds"]), here_too)
        stored, noise = training_samples(content)
        taken = measure_training(content, plan, quick=quick)
        found, now = training_samples(taken)
        statistic = median
    else:
        _same(path, "worker", content.get("worker"), gate.worker_digest())
        stored, noise = gate_samples(content)
        trees = dict.fromkeys(ORDER, ("the tree here", gate.ROOT))
        sets = len(next(iter(content["seconds"].values()))[NEW])
        # Their ratio to themselves says nothing of how well their times are known.
        taken = {"seconds": gate.take_turns(trees, sets, until=lambda _: False)}
        found, now = gate_samples(taken)
        statistic = middle
    verdicts = {
        name: judge(stored[name], found[name], max(noise[name], now[name]), statistic)
        for name in stored
    }
    print(gate.table(f"{made['commit']} at {made['date']}", verdicts))
    print(_other_versions(made["versions"], here["versions"]), end="")
    print(
        "\nThe two runs did not take turns: what the machine's speed did between them is in these "
        "ratios too.\nWhere one says slower, `--against` a commit tells whether the tree is."
    )
    kept = {"provenance": here, "against": str(path), "stored": made, **taken}
    print(f"\nraw samples: {store('against-stored', kept, quick=quick)}")
    return verdicts


def judge(
    old: list[float],
    new: list[float],
    noise: float,
    statistic: Callable[[np.ndarray], Any] = median,
    draws: int = 4000,
) -> Verdict:
    """Compare two runs that were not paired, each drawn for itself.

    There is no difference only where the whole interval lies inside the limits: rounds are not
    added until it is close.

    Args:
        old, new: seconds of each round, or of each set of processes.
        noise: of either.
        statistic: of their logarithms along the last axis, whose difference is judged.
        draws: of the bootstrap.
    """
    rng = np.random.default_rng(0)
    drawn = [
        statistic(np.log(values)[rng.integers(len(values), size=(draws, len(values)))])
        for values in (new, old)
    ]
    low, high = np.quantile(drawn[0] - drawn[1], [0.025, 0.975])
    mid = statistic(np.log(new)) - statistic(np.log(old))
    return Verdict(*np.exp([mid, low, high]).tolist(), noise=noise, limit=limit(noise), close=False)


def training_samples(content: Mapping[str, Any]) -> tuple[Samples, dict[str, float]]:
    """The engine's samples of a training run, and the noise of each: that of its own A/A."""
    timed = {"training": content["peers"]["seconds"]} | {
        f"{name} models": row["seconds"] for name, row in content["scaling"]["curve"].items()
    }
    noise = {}
    for name, seconds in timed.items():
        _, low, high = np.log(ratio(seconds[OURS_AGAIN], seconds[OURS]))
        noise[name] = far_end(low, high)
    return {name: seconds[OURS] for name, seconds in timed.items()}, noise


def measure_training(content: Mapping[str, Any], plan: Plan, *, quick: bool) -> dict[str, Any]:
    """Time the engine among its peers and along the number of models, as the stored run was."""
    device = resolve_device("auto")
    ceilings = measure_ceilings(device, before=content["ceilings"])
    points = content["scaling"]["curve"]
    return {
        "ceilings": ceilings,
        "peers": compare_peers(plan.steps, plan.rounds, ceilings, device, quick=quick),
        # Beside the same peers: what a time is depends on who was there before.
        "scaling": models_curve(
            map(int, points), plan.curve_steps, plan.curve_rounds, device, peers_of(points)
        ),
    }


def gate_samples(content: Mapping[str, Any]) -> tuple[Samples, dict[str, float]]:
    """The judged tree's time of each set of a run of the gate, and the noise of each benchmark."""
    seconds = content["seconds"]
    found = {
        name: [float(np.median(rounds)) for rounds in rows[NEW]] for name, rows in seconds.items()
    }
    noise = {}
    for name, rows in seconds.items():
        _, low, high = interval(of_sets(rows[AGAIN], rows[BASE]))
        noise[name] = far_end(low, high)
    return found, noise


def far_end(low: float, high: float) -> float:
    """Size of an A/A's log ratio that its interval still holds.

    Two runs that took no turns differ by more than either does from itself, so it is not the mean.
    """
    return max(abs(low), abs(high))


def _other_versions(then: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Say which versions are not those of the stored run: a difference may be theirs."""
    other = [
        f"{name} {then[name]} (now {now.get(name, 'absent')})"
        for name in then
        if then[name] != now.get(name)
    ]
    return f"\nthe stored run is of other versions: {', '.join(other)}\n" if other else ""


def _same(path: Path, field: str, stored: object, here: object) -> None:
    if stored != here:
        raise BenchError(f"against: got {path}, whose {field} is {stored}; allowed: {here}")
