"""The benchmarks' own machinery: peers that agree, a check that can fail, statistics that hold."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench import ceilings, compiled, peers
from bench.bench_estimators import measure, table
from bench.ceilings import believed, step_flops
from bench.eager import stacked_autograd
from bench.figures import apart
from bench.peers import COMPILED, PEERS, absent, check, still_agree
from bench.problem import Problem, default_problem
from bench.report import write_report
from bench.timing import REPORTS, interleave, ratio
from vaekit.config import SweepConfig
from vaekit.estimators import ESTIMATORS, critic
from vaekit.estimators.channels import gaussian_channel


def small() -> Problem:
    setup = SweepConfig(mu=(0.0,), beta=(0.5, 1.0, 4.0), steps=1, hidden=(16, 8), tile=2, batch=16)
    return Problem(setup, steps=5)


@pytest.mark.parametrize("name", [*PEERS])
def test_every_peer_trains_to_the_same_losses(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiled ones without the compiler of C++, whose absence is no reason to skip them."""
    if name.startswith("JAX") and importlib.util.find_spec("jax") is None:
        pytest.skip("jax is not installed")
    monkeypatch.setattr(compiled, "options", lambda problem: {"backend": "aot_eager"})
    problem = small()
    blocks = {"plain": stacked_autograd(problem), name: PEERS[name](problem)}
    errors, seconds = check(problem, blocks)
    assert errors[name] <= 1e-4
    assert seconds[name] > 0
    with torch.compiler.set_stance("fail_on_recompile"):
        still_agree(blocks)


def test_a_peer_that_trains_to_something_else_is_refused() -> None:
    problem = small()
    block = stacked_autograd(problem)
    with pytest.raises(AssertionError, match="lazy"):
        check(problem, {"lazy": lambda: block() * 1.001})
    with pytest.raises(AssertionError, match="broken"):
        check(problem, {"broken": lambda: torch.full((3,), torch.nan)})
    first = block()
    for _ in range(20):
        block()
    with pytest.raises(AssertionError, match="cached"):
        still_agree({"honest": block, "cached": lambda: first})


def test_a_peer_that_is_left_out_has_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "compiler_missing", lambda: "")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert absent(quick=False) == {"JAX vmap + scan": "jax is not installed"}
    assert set(absent(quick=True)) == {"JAX vmap + scan", *COMPILED}
    monkeypatch.setattr(peers, "compiler_missing", lambda: "no compiler")
    assert absent(quick=False)["stacked + torch.compile"] == "no compiler"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: "there")
    assert set(absent(quick=False)) == set(COMPILED)


def test_every_function_is_timed_every_round_in_turn() -> None:
    calls: list[str] = []
    functions = {name: lambda name=name: calls.append(name) for name in "abc"}
    samples = interleave(functions, rounds=3, warmup=1)
    assert {name: len(seconds) for name, seconds in samples.items()} == {"a": 3, "b": 3, "c": 3}
    assert len(calls) == 12
    rounds = ["".join(calls[start : start + 3]) for start in range(3, 12, 3)]
    assert rounds == ["abc", "bca", "cab"]


def test_the_interval_of_a_ratio_covers_the_truth() -> None:
    """Over 200 pairs of noisy runs whose true ratio is 1.1, about 95 % of the intervals hold it."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        drift = rng.lognormal(0.0, 0.3, 30)  # met by both of a pair, so it cancels
        slow = 1.1 * drift * rng.lognormal(0.0, 0.02, 30)
        fast = drift * rng.lognormal(0.0, 0.02, 30)
        mid, low, high = ratio(list(slow), list(fast), draws=500)
        assert low <= mid <= high
        covered += low <= 1.1 <= high
    assert covered >= 180


def samples(ours: float = 1.0) -> dict[str, Any]:
    """A stored run of one nearest peer twice as slow as 1, in which the engine takes `ours`."""
    seconds = {
        "vaekit": [ours] * 4,
        "stacked autograd": [2.0] * 4,
        "one after another": [3.0] * 4,
        "vaekit again (A/A)": [ours] * 4,
    }
    rows = {
        name: {
            "ms_per_model_step": 1e3 * times[0] / 20,
            "ratio": ratio(times, seconds["vaekit"]),
            "loss_error": 1e-7,
            "share_of_products": 0.5,
        }
        for name, times in seconds.items()
    }
    curve = {
        str(models): {"ms_per_model_step": cost, "floor_ms": 30.0}
        for models, cost in ((1, 70.0), (11, 50.0), (121, 60.0))
    }
    return {
        "provenance": {
            "command": "nox -s bench",
            "commit": "abc",
            "date": "2026-01-01",
            "machine": "A <machine>",
            "versions": {"torch": "2"},
            "platform": "Linux",
        },
        "ceilings": {
            "copy_bytes_per_second": 1.5e10,
            "product_flops_per_second": {"float32": 4e11},
            "seconds_per_call": 1e-6,
        },
        "peers": {
            "models": 10,
            "steps": 2,
            "skipped": {"JAX vmap + scan": "jax is not installed"},
            "rows": rows,
            "seconds": seconds,
        },
        "scaling": {"steps": 5, "curve": curve},
    }


@pytest.mark.parametrize(
    ("ours", "words"), [(1.0, "ahead of"), (2.0, "level with"), (2.5, "behind")]
)
def test_the_pages_sentences_follow_the_samples(ours: float, words: str, tmp_path: Path) -> None:
    (tmp_path / "training.json").write_text(json.dumps(samples(ours)))
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert f"That is {words} its nearest peer: stacked autograd" in text
    assert "The cheapest stack is one of 11 models: 50.00 ms" in text
    assert "A &lt;machine&gt;" in text
    assert "15.0 GB/s" in text
    assert "JAX vmap + scan: jax is not installed" in text
    assert text.count("data:image/png;base64,") == 3
    summary = (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert "| one after another | 150.000 | 150.000 to 150.000 | 4 | " in summary


def test_operations_are_on_the_page_with_their_roof(tmp_path: Path) -> None:
    (tmp_path / "training.json").write_text(json.dumps(samples()))
    row = {"size": "M=2", "direction": "forward", "bytes": 10**6, "work": 2 * 10**6}
    row |= {"share_of_roof": 0.25, "error": 1e-7, "seconds": [1e-3, 2e-3, 3e-3]}
    rows = [
        row | {"operation": name, "implementation": implementation}
        for name in ("pixel_nll", "layer")
        for implementation in ("reference", "torch")
    ]
    rates = {"float32": 4e11, "float32, default": 2e11}
    content = {
        "ceilings": {"copy_bytes_per_second": 1.5e10, "product_flops_per_second": rates},
        "rows": rows,
        "skipped": {"compile": "there is no compiler"},
    }
    (tmp_path / "operations.json").write_text(json.dumps(content))
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert text.count("data:image/png;base64,") == 4
    assert "compile: there is no compiler" in text
    summary = (tmp_path / "summary.md").read_text(encoding="utf-8")
    cells = "pixel_nll | M=2 | forward | torch | 2.000 | 1.400 to 2.600 | 3 | 0.50 | 25% | 1.0e-07"
    assert f"| {cells} |" in summary


def test_a_page_without_samples_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="is not there"):
        write_report(tmp_path)


def test_committed_summaries_are_those_of_their_samples(tmp_path: Path) -> None:
    found = sorted(REPORTS.glob("*/training.json"))
    assert found
    for path in found:
        shutil.copy(path, tmp_path)
        write_report(tmp_path)
        assert (tmp_path / "summary.md").read_text() == (path.parent / "summary.md").read_text()


def test_the_work_of_a_step_is_the_designs() -> None:
    """197.5 MFLOP for the default network and a batch of 128."""
    task = default_problem(1, 1)
    assert step_flops(task.stack(), task.config.batch) == pytest.approx(197.5e6, rel=1e-3)


def test_labels_of_like_heights_do_not_cover_each_other() -> None:
    assert apart([1.0, 5.0, 1.1, 1.05], 0.5) == pytest.approx([1.0, 5.0, 2.0, 1.5])


def test_a_time_that_the_machine_cannot_do_is_an_error() -> None:
    assert believed(1.0, 2.0) == pytest.approx(0.5)
    for impossible in (0.9, float("nan")):
        with pytest.raises(RuntimeError, match="cannot be right"):
            believed(1.0, impossible)


def test_the_ceilings_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of a quarter of the bytes and products of a hundredth of the work, but real ones."""
    monkeypatch.setattr(ceilings, "beyond_cache", lambda: 2**22)
    monkeypatch.setattr(ceilings, "PRODUCT", 128)
    found = ceilings.cpu_ceilings(rounds=3)
    rates = found["product_flops_per_second"]
    assert rates["float32"] == 2 * 128**3 / min(found["seconds"]["float32"])
    assert found["copy_bytes_per_second"] == 2**23 / min(found["seconds"]["copy"])
    assert 0 < found["seconds_per_call"] < 1e-3


def test_what_is_copied_is_far_beyond_the_largest_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ceilings, "CACHES", tmp_path)
    assert ceilings.beyond_cache() == 2**28
    for index, size in enumerate(("48K", "491520K", "2048K")):
        (tmp_path / f"index{index}").mkdir()
        (tmp_path / f"index{index}" / "size").write_text(f"{size}\n")
    assert ceilings.beyond_cache() == 2 * 480 * 2**20


def test_the_estimators_table_has_bias_error_and_a_mark_where_the_draws_are_too_few(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "bench.bench_estimators.league",
        lambda: [gaussian_channel(2, 1.0), gaussian_channel(9, 8.0)],
    )
    monkeypatch.setattr(critic, "STEPS", 400)
    monkeypatch.setattr(critic, "INFONCE_STEPS", 20)
    records = measure((256,), repeats=2)
    assert [record["estimator"] for record in records] == 2 * list(ESTIMATORS)
    *_, little, much = table(records).splitlines()
    assert little.startswith("| Gaussian, 2 pairs | 1.00 | 256 |")
    error = np.array(records[0]["nats"]) - 1.0
    assert f"| {error.mean():+.2f} ({np.sqrt((error**2).mean()):.2f}) |" in little
    assert "!" not in little
    records[4]["supported"] = [True, False]
    assert table(records).splitlines()[-1].count("!") == 1 + much.count("!")
