"""The gate: it is quiet when nothing changed, sees 5 %, and takes any commit's sources."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path

import numpy as np
import pytest

from bench import gate, paired
from bench.paired import AGAIN, BASE, NEW, ORDER, judge, measure

ROUNDS = 24


def noisy(rng: np.random.Generator, slowdown: float) -> dict[str, list[float]]:
    """A shared machine: a drift that all meet, 2 % of scatter, now and then a stall."""
    drift = np.exp(np.cumsum(rng.normal(0, 0.02, ROUNDS)))
    return {
        name: list(
            drift
            * rng.lognormal(0, 0.02, ROUNDS)
            * np.where(rng.random(ROUNDS) < 0.05, 1.5, 1.0)
            * (1 + slowdown if name == NEW else 1.0)
        )
        for name in ORDER
    }


def test_a_hundred_comparisons_of_the_same_raise_at_most_five_alarms() -> None:
    rng = np.random.default_rng(0)
    words = [judge(noisy(rng, 0.0)).word for _ in range(100)]
    assert words.count("slower") <= 5
    assert words.count("faster") <= 5


def test_five_percent_is_seen_when_the_scatter_is_one() -> None:
    """The interval of a median of 24 pairs is about 0.6 % wide each way, the limit is 3 %."""
    rng = np.random.default_rng(1)
    found = []
    for _ in range(20):
        samples = {
            name: list(rng.lognormal(0, 0.005, ROUNDS) * (1.05 if name == NEW else 1.0))
            for name in ORDER
        }
        found.append(judge(samples).word)
    assert found.count("slower") >= 19


def test_noise_raises_the_limit() -> None:
    quiet = {name: [1.0, 1.0, 1.0, 1.0] for name in ORDER}
    assert judge(quiet).limit == pytest.approx(1 + paired.SMALLEST)
    loud = quiet | {AGAIN: [1.1, 1.1, 1.1, 1.1], NEW: [1.1, 1.1, 1.1, 1.1]}
    assert judge(loud).limit == pytest.approx(1 + 2 * np.log(1.1))
    assert judge(loud).word == "no difference"
    assert judge(quiet | {NEW: [1.1] * 4}).word == "slower"
    assert judge(quiet | {NEW: [0.9] * 4}).word == "faster"


def test_a_time_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="not a positive number"):
        judge({BASE: [1.0], AGAIN: [1.0], NEW: [float("nan")]})


def test_the_order_turns_and_nothing_is_timed_twice_in_a_row() -> None:
    calls: list[str] = []

    def timer(name: str) -> float:
        calls.append(name)
        return 1.0

    samples = measure({name: lambda name=name: timer(name) for name in ORDER}, 4)
    first, second, third = ORDER
    turns = [second, third, first], [third, first, second]
    assert calls == [*ORDER, *turns[0], *turns[1], *ORDER]
    assert all(a != b for a, b in itertools.pairwise(calls))
    assert {len(seconds) for seconds in samples.values()} == {4}


def test_a_commit_that_there_is_not_is_refused() -> None:
    with (
        pytest.raises(SystemExit, match=r"against: got 'no-such-commit'; allowed: a commit"),
        gate.checkout("no-such-commit"),
    ):
        pass


def test_a_slow_tree_is_caught_and_the_samples_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Real processes, whose trees here are a few lines: the new one takes half as long again."""
    worker = tmp_path / "worker.py"
    worker.write_text(
        "import sys\nsys.path.insert(0, sys.argv[1])\nimport tree\n"
        "print('ready,work', flush=True)\n"
        "for line in sys.stdin: print(tree.SECONDS, flush=True)\n"
    )
    repository, new = tmp_path / "base", tmp_path / "new"
    for place, seconds in ((repository, 1.0), (new, 1.5)):
        place.mkdir()
        (place / "tree.py").write_text(f"SECONDS = {seconds}\n")
    for words in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "base"],
    ):
        subprocess.run(["git", *words], cwd=repository, check=True)
    kept: dict[str, object] = {}
    monkeypatch.setattr(gate, "ROOT", repository)
    monkeypatch.setattr(gate, "WORKER", worker)
    monkeypatch.setattr(gate, "store", lambda name, content: kept.update(content) or tmp_path)
    verdicts = gate.against("HEAD", 5, new)
    assert verdicts["work"].word == "slower"
    assert kept["seconds"] == {"work": {BASE: [1.0] * 5, AGAIN: [1.0] * 5, NEW: [1.5] * 5}}
    assert "1.500 (1.500 to 1.500)" in capsys.readouterr().out
    assert gate.against("HEAD", 5, repository)["work"].word == "no difference"


def test_the_worker_times_the_trees_own_sources(tmp_path: Path) -> None:
    """Here the tree is this one; in an empty folder what is installed must not stand in for it."""
    found = gate.Worker(gate.ROOT, "here")
    try:
        assert found.benchmarks == ["training", "generator", "pixel side", "latent side"]
        assert 0 < found.time("latent side") < 60
    finally:
        found.close()
    short = gate.Worker(gate.ROOT, "here", ("0.01", "latent side"))
    try:
        assert short.benchmarks == ["latent side"]
        assert 0 < short.time("latent side") < 60
    finally:
        short.close()
    with pytest.raises(SystemExit, match="the process of empty ended"):
        gate.Worker(tmp_path, "empty")


def test_a_process_that_ends_is_an_error_with_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = tmp_path / "worker.py"
    worker.write_text("print('ready,work', flush=True)\n")
    monkeypatch.setattr(gate, "WORKER", worker)
    found = gate.Worker(tmp_path, "v1")
    with pytest.raises(SystemExit, match="the process of v1 ended"):
        found.time("work")
    found.close()
