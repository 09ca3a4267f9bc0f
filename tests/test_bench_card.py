"""What the benchmark times on a card alone, at sizes that a CPU trains in a second."""

from __future__ import annotations

import pytest
import torch

from bench import card
from bench.eager import stacked_autograd, vaekit_engine
from bench.errors import BenchError
from bench.peers import OURS, OURS_AGAIN
from bench.problem import default_problem
from bench.tables import STAGES
from vaekit.config import SweepConfig
from vaekit.products import float32_products

CPU = torch.device("cpu")
TINY = {"hidden": (8,), "grid": 1, "tile": 3, "batch": 4}


def test_without_a_card_there_is_the_reason_alone() -> None:
    found = card.measure_card(CPU, {}, quick=True) | card.measure_sweeps(CPU, quick=False)
    assert found["full_float32"]["skipped"].keys() == {"full stacks and whole trainings"}
    assert found["full_tf32"] == found["whole"] == {}
    assert "on a card" in str(found["sweeps"]["skipped"])


def test_a_full_stack_is_timed_beside_its_peers_of_one_precision(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    peers = {OURS: vaekit_engine, "stacked autograd": stacked_autograd}
    monkeypatch.setattr(card, "PEERS", {"float32": peers})
    rates = {"product_flops_per_second": {"float32": 1e15, "float32, default": 1.0}}
    monkeypatch.setattr(
        card,
        "default_problem",
        lambda models, steps, device, **changes: default_problem(
            3, steps, device, **TINY, **changes
        ),
    )
    with float32_products("high"):
        found = card.full_stack(CPU, "float32", 3, rates, quick=True)
        assert torch.get_float32_matmul_precision() == "high"
    assert list(found["seconds"]) == [*peers, OURS_AGAIN]
    assert all(len(seconds) == 3 for seconds in found["seconds"].values())
    assert found["rows"]["stacked autograd"]["loss_error"] <= 1e-4
    said = capsys.readouterr().out
    assert "3 models, batch 4, float32" in said
    assert "stacked + torch.compile" in said and "skipped: --quick" in said


def test_whole_trainings_have_their_floor_and_are_not_quicker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tiny = SweepConfig(mu=(0.0, 1.0), beta=(1.0,), **TINY)
    monkeypatch.setattr(card, "PRECISIONS", ("float32",))
    monkeypatch.setattr(
        card.SweepConfig,
        "from_preset",
        lambda name, seeds, steps, precision: tiny.model_copy(update={"steps": steps}),
    )
    found = card.whole_trainings(CPU, {"copy_bytes_per_second": 1e12}, quick=True)
    parameters = 9 * 8 + 8 + 8 * 18 + 18 + 9 * 8 + 8 + 8 * 9 + 9
    least = found["rows"]["float32"]["floor_seconds"]
    assert least == pytest.approx(card.QUICK_STEPS * 24 * 2 * parameters / 1e12)
    assert found["seconds"]["float32"][0] > least
    with pytest.raises(BenchError, match="cannot be right"):
        card.whole_trainings(CPU, {"copy_bytes_per_second": 1.0}, quick=True)


def test_a_sweep_is_timed_whole_and_by_stage() -> None:
    small = {"mu": 0, "beta": 1, "steps": 1, "grid": 1, "evaluation-draws": 64, "device": "cpu"}
    options = [text for name, value in small.items() for text in (f"--{name}", str(value))]
    seconds, stages = card.sweep("smoke", *options)
    assert stages.keys() == STAGES.keys()
    # A process that imports torch, and draws two dozen figures, does more than it says.
    assert 0 < sum(stages.values()) < seconds - 1


def test_the_preset_is_swept_after_what_measures_it_is_compiled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def sweep(preset: str, *options: str) -> tuple[float, dict[str, float]]:
        asked.append((preset, *options))
        return float(len(asked)), {"train": 0.5}

    monkeypatch.setattr(card, "sweep", sweep)
    found = card.measure_sweeps(torch.device("cuda"), quick=False)["sweeps"]
    whole = ("post", "--precision", "bf16")
    assert asked == [(*whole, "--steps", "24"), whole]
    assert found == {"seconds": {"bf16": 2.0}, "stages": {"bf16": {"train": 0.5}}}
