"""The benchmarks' own machinery: peers that agree, a check that can fail, statistics that hold."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch

from bench.bench_estimators import measure, table
from bench.peers import PEERS, Problem, check, stacked_autograd
from bench.timing import interleave, ratio
from vaekit.config import SweepConfig
from vaekit.estimators import ESTIMATORS, critic
from vaekit.estimators.channels import gaussian_channel


def small() -> Problem:
    setup = SweepConfig(mu=(0.0,), beta=(0.5, 1.0, 4.0), steps=1, hidden=(16, 8), tile=2, batch=16)
    return Problem(setup, steps=5)


@pytest.mark.parametrize("name", PEERS)
def test_every_peer_trains_to_the_references_losses(name: str) -> None:
    if name.startswith("JAX") and importlib.util.find_spec("jax") is None:
        pytest.skip("jax is not installed")
    problem = small()
    assert check(problem, {name: PEERS[name](problem)})[name] <= 1e-4


def test_a_peer_that_trains_to_something_else_is_refused() -> None:
    problem = small()
    block = stacked_autograd(problem)
    with pytest.raises(AssertionError, match="lazy"):
        check(problem, {"lazy": lambda: block() * 1.001})
    with pytest.raises(AssertionError, match="broken"):
        check(problem, {"broken": lambda: torch.full((3,), torch.nan)})


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
