"""Is the tree here slower than a run that was stored? `nox -s bench -- --against FOLDER`.

A stored run cannot take turns with a new one, so their ratio also carries what the machine's speed
did in between. What each run differs from itself, its own A/A, is the noise that is known; the
drift is not, and the table says so. A regression that matters is worth `--against COMMIT`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench import gate
from bench.bench_training import FULL, QUICK, Plan
from bench.curves import STACK, models_curve
from bench.eager import vaekit_engine
from bench.paired import AGAIN, BASE, NEW, ORDER, Verdict, limit, noise_of
from bench.peers import OURS, OURS_AGAIN
from bench.problem import Problem, default_problem
from bench.timing import interleave, provenance, store

Samples = dict[str, list[float]]


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
        SystemExit: the file holds something else.
    """
    part = "peers" if path.name == "training.json" else "seconds"
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        content["provenance"]["machine"], content[part]
    except (ValueError, KeyError, TypeError) as error:
        raise SystemExit(
            f"bench: against: got {path}; allowed: samples that `nox -s bench` has stored ({error})"
        ) from None
    return content


def against_stored(path: Path, *, quick: bool) -> dict[str, Verdict]:
    """Time the tree here as a stored run was timed; print the table, store the samples.

    Args:
        path: training.json or against.json of an earlier run.
        quick: fewer rounds; of a training, the problem of a quick run.

    Returns:
        The verdict of each benchmark.

    Raises:
        SystemExit: the stored run is of another machine or of another problem.
    """
    content = read(path)
    made, here = content["provenance"], provenance(f"nox -s bench -- --against {path}")
    _same(path, "machine", made["machine"], here["machine"])
    plan = QUICK if quick else FULL
    if path.name == "training.json":
        problem = default_problem(STACK, plan.steps)
        _same(path, "problem", content["peers"].get("problem"), problem.described())
        _same(path, "steps of a curve", content["scaling"]["steps"], plan.curve_steps)
        stored, noise = training_samples(content)
        found, now = training_samples(measure_training(problem, plan, content["scaling"]["curve"]))
    else:
        _same(path, "worker", content.get("worker"), gate.worker_digest())
        stored, noise = gate_samples(content)
        with gate.workers(dict.fromkeys(ORDER, ("the tree here", gate.ROOT))) as ready:
            found, now = gate_samples({"seconds": gate.take_turns(ready, plan.rounds)})
    verdicts = {
        name: judge(stored[name], found[name], max(noise[name], now[name])) for name in stored
    }
    print(gate.table(f"{made['commit']} at {made['date']}", verdicts))
    print(
        "\nThe two runs did not take turns: what the machine's speed did between them is in these "
        "ratios too.\nWhere one says slower, `--against` a commit tells whether the tree is."
    )
    kept = {"provenance": here, "against": str(path), "stored": made, "seconds": found}
    print(f"\nraw samples: {store('against-stored', kept)}")
    return verdicts


def judge(old: list[float], new: list[float], noise: float, draws: int = 4000) -> Verdict:
    """Compare two runs that were not paired: the ratio of their medians, each drawn for itself."""
    rng = np.random.default_rng(0)
    medians = [
        np.median(np.log(values)[rng.integers(len(values), size=(draws, len(values)))], axis=1)
        for values in (new, old)
    ]
    low, high = np.quantile(medians[0] - medians[1], [0.025, 0.975])
    middle = np.median(np.log(new)) - np.median(np.log(old))
    return Verdict(*np.exp([middle, low, high]).tolist(), noise=noise, limit=limit(noise))


def training_samples(content: Mapping[str, Any]) -> tuple[Samples, dict[str, float]]:
    """The engine's samples of a training run, and the noise of each: that of its one A/A."""
    seconds = content["peers"]["seconds"]
    found = {"training": seconds[OURS]} | {
        f"{name} models": row["seconds"][OURS] for name, row in content["scaling"]["curve"].items()
    }
    noise = noise_of(seconds[OURS], seconds[OURS_AGAIN])
    return found, dict.fromkeys(found, noise)


def measure_training(problem: Problem, plan: Plan, models: Iterable[str]) -> dict[str, Any]:
    """Time the engine against itself and along the number of models, as `bench_training` does."""
    blocks = {OURS: vaekit_engine(problem), OURS_AGAIN: vaekit_engine(problem)}
    seconds = interleave(blocks, plan.rounds, device=problem.device)
    curve = models_curve(map(int, models), plan.curve_steps, plan.curve_rounds)
    return {"peers": {"seconds": seconds}, "scaling": curve}


def gate_samples(content: Mapping[str, Any]) -> tuple[Samples, dict[str, float]]:
    """The judged tree's samples of a run of the gate, and the noise of each benchmark."""
    seconds = content["seconds"]
    found = {name: rows[NEW] for name, rows in seconds.items()}
    return found, {name: noise_of(rows[BASE], rows[AGAIN]) for name, rows in seconds.items()}


def _same(path: Path, field: str, stored: object, here: object) -> None:
    if stored != here:
        raise SystemExit(f"bench: against: got {path}, whose {field} is {stored}; allowed: {here}")
