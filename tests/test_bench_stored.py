"""A stored run: what it may be compared with, and what the comparison says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench import gate, stored
from bench.bench_training import FULL, QUICK
from bench.curves import STACK
from bench.errors import BenchError
from bench.gate import worker_digest
from bench.paired import AGAIN, BASE, NEW, middle
from bench.peers import OURS, OURS_AGAIN, PEERS
from bench.problem import default_problem
from bench.provenance import provenance
from bench.stored import against_stored, find, judge, median

Content = dict[str, Any]


def training(seconds: float) -> Content:
    """A training run of this machine, ten rounds of blocks that took about so long."""
    rounds = list(seconds * np.random.default_rng(0).lognormal(0, 0.002, 10))
    twice = {OURS: rounds, OURS_AGAIN: rounds[::-1]}
    others = {name: rounds for name in PEERS if name != OURS}
    return {
        "provenance": provenance("nox -s bench"),
        "peers": {
            "problem": default_problem(STACK, FULL.steps).described(),
            "seconds": {OURS: rounds, **others, OURS_AGAIN: rounds[::-1]},
        },
        "scaling": {"curve": {"4": {"steps": 14, "seconds": twice}}},
        "ceilings": {"seconds": {}},
    }


@pytest.fixture(autouse=True)
def complete(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every peer is here."""
    monkeypatch.setattr(stored, "absent", lambda quick: {})


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Content:
    found: Content = {}
    monkeypatch.setattr(stored, "store", lambda name, content, quick: found.update(content) or name)
    return found


def write(folder: Path, name: str, content: Content) -> Path:
    path = folder / name
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("seconds", "word"), [(1.0, "no difference"), (1.1, "slower"), (0.9, "faster")]
)
def test_a_training_is_judged_by_its_medians_and_says_that_it_is_not_paired(
    seconds: float,
    word: str,
    tmp_path: Path,
    kept: Content,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(stored, "measure_training", lambda *_, **__: training(seconds))
    verdicts = against_stored(write(tmp_path, "training.json", training(1.0)), quick=False)
    assert {name: verdict.word for name, verdict in verdicts.items()} == {
        "training": word,
        "4 models": word,
    }
    assert verdicts["training"].ratio == pytest.approx(seconds, rel=0.01)
    assert "did not take turns" in capsys.readouterr().out
    assert kept["peers"] == training(seconds)["peers"]
    assert kept["scaling"] == training(seconds)["scaling"]


def test_a_difference_that_its_interval_does_not_tell_is_not_known() -> None:
    assert judge([1.0] * 9, [1.0, 1.2] * 5, 0.0).word == "not known"
    assert judge([1.0] * 9, [1.0, 1.01] * 5, 0.0).word == "no difference"


def test_versions_that_are_not_those_of_the_stored_run_are_said(
    tmp_path: Path, kept: Content, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(stored, "measure_training", lambda *_, **__: training(1.0))
    path = write(tmp_path, "training.json", training(1.0))
    against_stored(path, quick=False)
    assert "other versions" not in capsys.readouterr().out
    content = training(1.0)
    content["provenance"]["versions"] |= {"torch": "1.0", "a tool": "2"}
    against_stored(write(tmp_path, "training.json", content), quick=False)
    said = capsys.readouterr().out
    assert f"of other versions: torch 1.0 (now {torch.__version__}), a tool 2 (now absent)" in said


@pytest.mark.parametrize("loud", ["stored", "new"])
def test_the_noise_of_either_run_raises_the_limit(
    loud: str, tmp_path: Path, kept: Content, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = {"stored": training(1.0), "new": training(1.1)}
    seconds = runs[loud]["peers"]["seconds"]
    seconds[OURS_AGAIN] = [1.2 * value for value in seconds[OURS]]
    monkeypatch.setattr(stored, "measure_training", lambda *_, **__: runs["new"])
    verdicts = against_stored(write(tmp_path, "training.json", runs["stored"]), quick=False)
    assert verdicts["training"].limit == pytest.approx(1 + 2 * np.log(1.2))
    assert verdicts["training"].word == "no difference"
    # Every point has its own A/A: that of the whole training says nothing of it.
    assert verdicts["4 models"].word == "slower"


def test_a_training_is_timed_among_the_same_peers_as_the_stored_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(
        stored, "compare_peers", lambda *given, quick: asked.append((*given, quick))
    )
    monkeypatch.setattr(stored, "models_curve", lambda *given: asked.append(tuple(given)[1:]))
    monkeypatch.setattr(stored, "resolve_device", lambda name: torch.device("cpu"))
    rates = {"float32": 2.0, "float32, default": 3.0}
    content = training(1.0) | {"ceilings": {"product_flops_per_second": rates}}
    content["scaling"]["curve"]["4"]["seconds"] |= {"one after another": [1.0], "floor": [0.5]}
    now = {"product_flops_per_second": {"float32": 4.0, "float32, default": 3.0}}
    monkeypatch.setattr(
        stored,
        "measure_ceilings",
        lambda device, before: now if before == content["ceilings"] else None,
    )
    assert stored.measure_training(content, FULL, quick=False)["ceilings"] == now
    assert asked == [
        (FULL.steps, FULL.rounds, now, torch.device("cpu"), False),
        (FULL.curve_steps, FULL.curve_rounds, torch.device("cpu"), ["one after another"]),
    ]


def test_a_run_of_the_gate_is_compared_by_the_tree_that_it_judged(
    tmp_path: Path, kept: Content, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = {"work": {BASE: [[2.0]] * 5, AGAIN: [[2.0]] * 5, NEW: [[1.0, 1.0, 9.0]] * 5}}
    content = {"provenance": provenance(""), "worker": worker_digest(), "seconds": seconds}
    path = write(tmp_path, "against.json", content)
    now = {"work": {BASE: [[1.5]] * 5, AGAIN: [[1.5]] * 5, NEW: [[1.5]] * 5}}
    monkeypatch.setattr(gate, "take_turns", lambda trees, sets, until: now if sets == 5 else None)
    assert against_stored(path, quick=False)["work"].ratio == pytest.approx(1.5)
    path = write(tmp_path, "against.json", content | {"worker": "another"})
    with pytest.raises(BenchError, match="whose worker is another; allowed:"):
        against_stored(path, quick=False)


def test_another_machine_or_problem_is_refused_before_anything_is_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "measure_training", lambda *_, **__: pytest.fail("it was timed"))
    content = training(1.0)
    content["provenance"]["machine"] = "An abacus"
    with pytest.raises(BenchError, match="whose machine is An abacus; allowed: "):
        against_stored(write(tmp_path, "training.json", content), quick=False)
    with pytest.raises(
        BenchError, match=f"'steps': {FULL.steps}.*; allowed: .*'steps': {QUICK.steps}"
    ):
        against_stored(write(tmp_path, "training.json", training(1.0)), quick=True)
    content = training(1.0)
    content["scaling"]["curve"]["4"]["steps"] = 5
    with pytest.raises(BenchError, match=r"whose steps by models is \{'4': 5\}; allowed: .*14"):
        against_stored(write(tmp_path, "training.json", content), quick=False)
    content = training(1.0)
    del content["peers"]["seconds"]["torch.func vmap"]
    with pytest.raises(BenchError, match="whose list of what was timed is .*; allowed: .*vmap"):
        against_stored(write(tmp_path, "training.json", content), quick=False)
    content = training(1.0)
    del content["scaling"]["curve"]["4"]["seconds"][OURS_AGAIN]
    with pytest.raises(BenchError, match="whose noise of every point is not stored"):
        against_stored(write(tmp_path, "training.json", content), quick=False)


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"provenance": {"machine": "a", "versions": {}}, "peers": {}}']
)
def test_a_file_that_holds_something_else_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "training.json").write_text(text)
    with pytest.raises(BenchError, match="allowed: samples that"):
        against_stored(tmp_path / "training.json", quick=False)


@pytest.mark.parametrize("lost", ["peers", "scaling", "ceilings", "provenance"])
def test_samples_that_lack_a_part_are_refused_before_anything_is_timed(
    lost: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "measure_training", lambda *_, **__: pytest.fail("it was timed"))
    content = training(1.0)
    del content[lost]
    with pytest.raises(BenchError, match=rf"allowed: samples that .*\('{lost}'\)"):
        against_stored(write(tmp_path, "training.json", content), quick=False)


def test_a_name_is_a_stored_run_where_there_is_one(tmp_path: Path) -> None:
    assert find(str(tmp_path)) is None
    assert find("HEAD") is None
    gate_run = write(tmp_path, "against.json", {})
    assert find(str(tmp_path)) == find(str(gate_run)) == gate_run
    assert find(str(write(tmp_path, "training.json", {}))) == find(str(tmp_path))
    assert find(str(write(tmp_path, "operations.json", {}))) is None


@pytest.mark.parametrize("statistic", [median, middle])
def test_the_interval_of_two_unpaired_runs_covers_the_truth(
    statistic: Callable[[np.ndarray], Any],
) -> None:
    """Over 200 pairs of runs whose true ratio is 1.1, about 95 % of the intervals hold it."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        old, new = rng.lognormal(0.0, 0.05, (2, 30))
        verdict = judge(list(old), list(1.1 * new), 0.0, statistic, draws=500)
        covered += verdict.low <= 1.1 <= verdict.high
    assert covered >= 180
