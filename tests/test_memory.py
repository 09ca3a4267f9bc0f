"""What a sweep takes is counted as it is, and refused before anything is written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vaekit import memory, sweep
from vaekit.config import FILE_BYTES, ConfigError, SweepConfig
from vaekit.estimators import critic
from vaekit.memory import DATASET_COPIES, check_memory, dataset_bytes, draws_bytes, grid_bytes

CPU = torch.device("cpu")


def config(**changes: Any) -> SweepConfig:
    tiny = {"mu": (0.0, 3.0), "beta": (0.5, 2.0, 8.0), "seeds": 2, "steps": 5, "hidden": (4,)}
    tiny |= {"batch": 4, "grid": 2, "tile": 3, "latents": 3, "evaluation_draws": 64}
    return SweepConfig(**{**tiny, "baseline_seeds": 4, "device": "cpu", **changes})


@pytest.mark.parametrize("everything", [False, True])
def test_every_variable_is_counted_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, everything: bool
) -> None:
    monkeypatch.setattr(sweep, "write_report", lambda *_: None)
    for name in ("STEPS", "INFONCE_STEPS"):
        monkeypatch.setattr(critic, name, 2)
    asked = {"estimators": ("gaussian", "infonce"), "axis_scores": ("mig", "dci")}
    setup = config(**(asked if everything else {}))
    dataset = sweep.run_sweep(setup, tmp_path / "run")
    counted = dataset_bytes(setup)
    assert counted.keys() == set(dataset.variables)
    for name in dataset.variables:
        if dataset[name].dtype.kind != "U":
            assert counted[name] == dataset[name].nbytes, name
    assert counted["status"] == dataset["status"].nbytes


MANY = tuple(np.linspace(-20, 20, 200_000).tolist())
# What is asked, the field that is named for it, and what is said to take the memory.
TOO_MUCH = [
    ({"mu": MANY}, "mu", "the dataset takes"),
    ({"beta": MANY[100_000:]}, "beta", "the dataset takes"),
    ({"seeds": 10_000, "curve_points": 9_000, "steps": 9_000}, "seeds", "the dataset takes"),
    ({"curve_points": 100_000, "steps": 100_000, "seeds": 99}, "curve_points", "the dataset takes"),
    ({"latents": 1024, "tile": 64, "grid": 1, "test_levels": (0.2, 0.8)}, "latents", "the dataset"),
    ({"tile": 64, "grid": 2, "beta": tuple(range(1, 101))}, "tile", "the dataset takes"),
    ({"evaluation_draws": 2**24}, "evaluation_draws", "a model is measured in"),
    ({"grid": 4, "tile": 1, "latents": 512, "test_levels": (0.2, 0.8)}, "grid", "a model is meas"),
    ({"grid": 3, "baseline_seeds": 10_000}, "baseline_seeds", "untrained networks are measured in"),
]


@pytest.mark.parametrize(("changes", "field", "what"), TOO_MUCH, ids=[row[1] for row in TOO_MUCH])
def test_what_cannot_fit_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict, field: str, what: str
) -> None:
    free = 2**29
    monkeypatch.setattr(memory, "free_memory", lambda _: free)
    assert check_memory(config(), CPU, 1) == 1
    # Where a run would begin.
    monkeypatch.setattr(sweep, "restore", lambda _: pytest.fail("was not refused"))
    with pytest.raises(ConfigError, match=what) as caught:
        sweep.run_sweep(config(**changes), tmp_path / "runs" / "run")
    assert caught.value.field == field
    assert f"{field}: got " in str(caught.value)
    figures = re.findall(r"([\d,]+) bytes, and ([\d,]+) are free on cpu$", str(caught.value))
    needed, left = (int(figure.replace(",", "")) for figure in figures[0])
    assert needed > left <= free
    assert not list(tmp_path.iterdir())


def test_the_refusal_is_at_the_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = config(baseline_seeds=0)
    dataset = DATASET_COPIES * sum(dataset_bytes(setup).values())
    one = grid_bytes(setup) + draws_bytes(setup)
    for free, allowed in ((dataset + one, 1), (dataset + 6 * one, 3), (dataset + 99 * one, 12)):
        monkeypatch.setattr(memory, "free_memory", lambda _, free=free: free)
        assert check_memory(setup, CPU, 12) == allowed
    for free, field in ((dataset + one - 1, "grid"), (dataset - 1, "tile")):
        monkeypatch.setattr(memory, "free_memory", lambda _, free=free: free)
        with pytest.raises(ConfigError, match=f"^{field}: "):
            check_memory(setup, CPU, 12)


def test_a_sweep_whose_configuration_is_too_long_to_be_read_again_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda _: 2**60)
    with pytest.raises(ConfigError, match=f"^mu: .* config.toml holds in {FILE_BYTES:,} bytes; th"):
        sweep.run_sweep(config(mu=MANY), tmp_path / "run")
    assert not list(tmp_path.iterdir())
