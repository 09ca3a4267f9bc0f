"""A model that blows up touches no other: not a bit of their parameters, moments or measures."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from checks import same_bits
from test_cli import TINY
from vaekit import cli
from vaekit.block import train_steps
from vaekit.compiler import compiler_missing
from vaekit.config import SweepConfig
from vaekit.engine import make_step
from vaekit.model import StackedVAE
from vaekit.results import open_results
from vaekit.stack import Stack
from vaekit.state import initial_state

BETA = (0.5, 1.0, 4.0)
STACKS = {
    "reference": Stack(mu=(0.0, 2.0), seeds=(3, 3), beta=BETA),
    "torch": Stack(mu=(0.0, 2.0), seeds=(3, 3), beta=BETA),
    "compiled": Stack(mu=(0.0, 2.0), seeds=(3, 3), beta=BETA),
    # One stream and few steps: a kernel that is interpreted takes a quarter of a second.
    "triton": Stack(mu=(2.0,), seeds=(3,), beta=BETA),
}


class Run:
    """A stack in training on one engine."""

    def __init__(self, engine: str) -> None:
        small: dict[str, Any] = {"hidden": (12,), "batch": 8, "grid": 2, "tile": 3, "latents": 4}
        if engine == "compiled" and (missing := compiler_missing()):
            pytest.skip(missing)
        self.stack = STACKS[engine]
        self.setup = SweepConfig(mu=self.stack.mu, beta=BETA, engine=engine, **small)
        self.labels = self.stack.labels(torch.device("cpu"))
        self.state = initial_state(self.setup, self.labels.seeds)
        self.start()

    def start(self) -> None:
        self.step = make_step(self.setup, self.state, streams=len(self.stack.mu))

    def go(self, first: int, last: int) -> None:
        """Train the steps from the first to the last."""
        # NumPy, which interprets the kernels, warns where a card does not.
        with torch.no_grad(), np.errstate(over="ignore", invalid="ignore"):
            for begin in range(first, last + 1, 20):
                block = torch.arange(begin, min(begin + 20, last + 1))
                train_steps(self.setup, self.labels, self.step, block)

    def poison(self, model: int, value: float) -> None:
        """Put a value into a weight, whatever layout the engine keeps it in."""
        self.step.save().vae.layers[1][0][model, 0, 0] = value
        self.start()

    def pieces(self, model: int) -> list[Tensor]:
        """Parameters and both moments of one model."""
        state = self.step.save()
        flats = (state.vae.flat, state.exp_avg, state.exp_avg_sq)
        return [StackedVAE(state.vae.architecture, flat).slot(model).flat for flat in flats]


@cache
def undisturbed(engine: str, steps: int) -> list[list[Tensor]]:
    run = Run(engine)
    run.go(1, steps)
    return [run.pieces(model) for model in range(run.stack.models)]


PLACES = ("first", "middle", "last")


def cases() -> list[Any]:
    """Engine, steps, the step that meets the poison, the poison, and the place of its model."""
    kinds = [math.nan, math.inf, 1e30]
    found = [
        pytest.param(engine, 200, when, value, place, id=f"{engine}-{when}-{value:g}-{place}")
        for engine in ("reference", "torch", "compiled")
        for when in (1, 60, 200)
        for value in (kinds if when == 60 else kinds[:1])
        for place in PLACES
    ]
    return found + [
        pytest.param(
            "triton", 4, when, math.nan, place, id=f"triton-{when}", marks=pytest.mark.interpret
        )
        for when, place in zip((1, 2, 4), PLACES, strict=True)
    ]


@pytest.mark.parametrize(("engine", "steps", "when", "value", "place"), cases())
def test_a_poisoned_model_leaves_every_bit_of_its_siblings(
    engine: str, steps: int, when: int, value: float, place: str
) -> None:
    run, clean = Run(engine), undisturbed(engine, steps)
    models = range(run.stack.models)
    victim = {"first": models[0], "middle": models[len(models) // 2], "last": models[-1]}[place]
    run.go(1, when - 1)
    run.poison(victim, value)
    before = run.pieces(victim)
    run.go(when, steps)
    # 1e30 is a number, and whether it blows up at once is its own affair.
    if not math.isfinite(value):
        assert run.step.save().stopped.tolist() == [when * (m == victim) for m in models]
        assert all(map(same_bits, run.pieces(victim), before))
    for model in set(models) - {victim}:
        assert all(map(same_bits, run.pieces(model), clean[model])), model
    assert not all(map(same_bits, run.pieces(victim), clean[victim]))


@pytest.mark.parametrize("policy", ["keep", "fail"])
def test_a_sweep_whose_models_all_diverge_ends_and_says_so(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    policy: str,
) -> None:
    initial = StackedVAE.initial

    def poisoned(config: SweepConfig, seeds: Tensor) -> StackedVAE:
        vae = initial(config, seeds)
        if vae.models == 4:  # and not the baseline's networks
            vae.layers[0][0][:, 0, 0] = torch.nan
        return vae

    monkeypatch.setattr(StackedVAE, "initial", poisoned)
    out = tmp_path / "run"
    words = ["sweep", "--preset", "smoke", *TINY, "--out", str(out), "--on-diverge", policy]
    code = cli.run(words)
    said = capsys.readouterr()
    if policy == "fail":
        assert code == 1
        assert "the run failed: diverged: mu = 0, beta = 0.5, seed = 0 at step 1; " in said.err
        assert not (out / "report.html").exists()
        return
    assert code == 0
    assert "4 models: 4 diverged\n" in said.err
    dataset = open_results(out)
    assert (dataset["status"] == "diverged").all() and (dataset["diverged_at"] == 1).all()
    assert dataset["recovery_r2"].isnull().all() and dataset["baseline_probe_mse"].notnull().all()
    page = (out / "report.html").read_text(encoding="utf-8").replace("\u00a0", " ")
    assert "No model recovered anything: every one collapsed or diverged." in page
    assert page.count('class="diverged"') == 4
    assert "diverged at step 1" in page
