"""The trial of the gate: the planted work is real, and the counts are those of the gate."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from bench import demonstrate, gate
from bench.demonstrate import PLACE, PLANT, PLANTED, SAME, count, kept_its_word, plant
from bench.paired import AGAIN, BASE, NEW
from bench.report import write_report
from bench_samples import samples


def test_every_twentieth_call_of_the_copy_is_made_twice_with_its_gradients(tmp_path: Path) -> None:
    tree, copy = tmp_path / "tree", tmp_path / "copy"
    (tree / PLACE).parent.mkdir(parents=True)
    (tree / PLACE).write_text("def reparameterise(*given): return CALLED(*given)\n")
    plant(tree, copy)
    assert PLANT not in (tree / PLACE).read_text()
    calls: list[torch.Tensor] = []

    def called(mean: torch.Tensor, logvar: torch.Tensor, noise: object) -> tuple[torch.Tensor, ...]:
        calls.append(mean)
        return mean * logvar, mean + logvar

    space: dict[str, Any] = {"CALLED": called}
    exec((copy / PLACE).read_text(), space)
    mean, logvar = torch.rand(2, 3).requires_grad_().unbind()
    gradients = []
    mean.register_hook(gradients.append)
    for _ in range(40):
        z, kl = space["reparameterise"](mean, logvar, None)
    assert len(calls) == 42
    assert len(gradients) == 2
    assert torch.equal(z, mean * logvar)
    assert torch.equal(kl, mean + logvar)


def test_the_gate_keeps_its_word_with_few_alarms_and_most_slowdowns_seen() -> None:
    def words(same: int, planted: int) -> dict[str, dict[str, int]]:
        rows = [{"kind": SAME, "word": "slower" if k < same else "faster"} for k in range(100)]
        rows += [
            {"kind": PLANTED, "word": "slower" if k < planted else "faster"} for k in range(20)
        ]
        return count(rows)

    assert words(5, 19)[SAME] == {"slower": 5, "no difference": 0, "faster": 95}
    assert kept_its_word(words(5, 19))
    assert not kept_its_word(words(6, 19))
    assert not kept_its_word(words(5, 18))


@pytest.mark.parametrize("slowdown", [1.0, 1.05])
def test_every_comparison_is_kept_and_counted(
    slowdown: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    started = []

    @contextmanager
    def workers(trees: dict[str, Any], options: tuple[str, ...]) -> Iterator[dict[str, Any]]:
        started.append(trees)
        assert options == (str(demonstrate.SECONDS), demonstrate.BENCHMARK)
        yield {
            role: SimpleNamespace(
                time=lambda _, by=slowdown if role == PLANTED else 1.0: by * rng.lognormal(0, 0.002)
            )
            for role in trees
        }

    @contextmanager
    def checkout(ref: str) -> Iterator[Path]:
        (tmp_path / "tree" / PLACE).parent.mkdir(parents=True)
        (tmp_path / "tree" / PLACE).touch()
        yield tmp_path / "tree"

    def store(name: str, content: dict[str, Any]) -> Path:
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
        return tmp_path / f"{name}.json"

    monkeypatch.setattr(gate, "workers", workers)
    monkeypatch.setattr(gate, "checkout", checkout)
    monkeypatch.setattr(demonstrate, "store", store)
    assert demonstrate.demonstrate(sets=2, rounds=6) is (slowdown > 1.0)
    assert [sorted(trees) for trees in started] == 2 * [sorted((BASE, AGAIN, NEW, PLANTED))]
    kept = json.loads((tmp_path / "demonstration.json").read_text())["comparisons"]
    assert [row["kind"] for row in kept] == 2 * [*[SAME] * 5, PLANTED]
    assert {len(seconds) for row in kept for seconds in row["seconds"].values()} == {6}
    store("training", samples())
    write_report(tmp_path)
    summary = (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert f"| {SAME} | 10 | 0 | 10 | 0 |" in summary
    seen = 2 if slowdown > 1.0 else 0
    assert f"| {PLANTED} | 2 | {seen} | {2 - seen} | 0 |" in summary
