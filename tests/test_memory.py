"""What a sweep takes is counted as it is, and refused before anything is written."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vaekit import memory, sweep
from vaekit.config import FILE_BYTES, ConfigError, SweepConfig
from vaekit.estimators import critic
from vaekit.keeper import Keeper
from vaekit.memory import DATASET_COPIES, check_memory, dataset_bytes, draws_bytes, grid_bytes
from vaekit.model import Architecture
from vaekit.progress import Silent
from vaekit.shard import PICTURES, run_shard
from vaekit.stack import plan

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[1]


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


def test_of_pictures_no_more_is_held_than_the_dataset_has() -> None:
    """Those of the first seed, wherever its streams are in the stacks."""
    setup = config(mu=(0.0, 1.0, 3.0), seeds=3, first_seed=5)
    stacks = plan(setup, 12)
    shards = [run_shard(setup, stack, CPU, Silent(), Keeper()) for stack in stacks]
    assert len(stacks) == 3
    for name in PICTURES:
        held = sum(found[name].nbytes for found in shards if name in found)
        assert held == dataset_bytes(setup)[name]


# Prints how much more a process took at its most for a large evaluation than for a small one, and
# the same of what is counted: what does not grow, or only up to a limit, is in both. The peak is
# the kernel's VmHWM; that of `getrusage` begins with the parent's.
MEASURE = f"""
import re, sys
from pathlib import Path
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "kernels")!r}]
import torch
from vaekit import memory
from vaekit.config import SweepConfig
from vaekit.estimators import critic
from vaekit.evaluate import evaluate_stack
from vaekit.host import keep_freed_memory
from vaekit.model import StackedVAE
torch.set_num_threads(1)
critic.STEPS = 2
keep_freed_memory()
fields = {{"mu": (0.0,), "beta": (0.5, 1.0, 2.0, 4.0), "hidden": (256,), "tile": 1, "latents": 4}}

def measure(**sizes):
    config = SweepConfig(**{{**fields, **sizes}})
    vae = StackedVAE.initial(config, torch.zeros(len(config.beta), dtype=torch.int64))
    evaluate_stack(vae, config, mu=config.mu, seeds=(0,), betas=config.beta)
    status = Path("/proc/self/status").read_text()
    taken = 1024 * int(re.search(r"VmHWM:\\s*(\\d+) kB", status)[1])
    return taken, len(config.beta) * (memory.draws_bytes(config) + memory.grid_bytes(config))

small, large = measure(**SMALL), measure(**LARGE)
print(large[0] - small[0], large[1] - small[1])
"""
LEVELS = (0.2, 0.4, 0.6, 0.8)
DRAWS = {"grid": 2, "estimators": ()}
CRITICS = {"grid": 2, "estimators": ("mine",)}
# More codes than truths: all models share those, and they are counted for each.
GRID = {"grid": 3, "evaluation_draws": 64, "latents": 16}
GROWTH = {
    "draws": [{**DRAWS, "evaluation_draws": count} for count in (2**15, 2**19)],
    "critics": [{**CRITICS, "evaluation_draws": count} for count in (2**15, 2**18)],
    "grid": [{**GRID, "test_levels": levels} for levels in (LEVELS[:3], LEVELS)],
}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps such a record")
@pytest.mark.parametrize("what", GROWTH)
def test_measuring_takes_no_more_than_is_counted(what: str) -> None:
    small, large = GROWTH[what]
    code = MEASURE.replace("SMALL", repr(small)).replace("LARGE", repr(large))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    taken, counted = map(int, done.stdout.split())
    assert counted / 8 < taken < counted


# The same of a stack in training, small and large, of streams of one beta or of several.
TRAINING = f"""
import re, sys
from pathlib import Path
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "kernels")!r}]
import torch
from vaekit.config import SweepConfig
from vaekit.host import keep_freed_memory
from vaekit.progress import Silent
from vaekit.stack import Stack, training_bytes
from vaekit.train import train
torch.set_num_threads(1)
keep_freed_memory()

def measure(streams):
    config = SweepConfig(
        mu=[0], beta=BETA, hidden=[32], grid=2, tile=8, latents=4, steps=16, engine="torch"
    )
    mu = tuple(0.1 * index for index in range(streams))
    stack = Stack(mu, (0,) * streams, config.beta)
    train(config, stack, torch.device("cpu"), Silent())
    status = Path("/proc/self/status").read_text()
    taken = 1024 * int(re.search(r"VmHWM:\\s*(\\d+) kB", status)[1])
    return taken, training_bytes(config, stack)

small, large = measure(2), measure(STREAMS)
print(large[0] - small[0], large[1] - small[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps such a record")
@pytest.mark.parametrize(("beta", "streams"), [((1.0,), 90), (tuple(range(1, 9)), 20)])
def test_training_takes_no_more_than_is_planned(beta: tuple[float, ...], streams: int) -> None:
    code = TRAINING.replace("BETA", repr(beta)).replace("STREAMS", repr(streams))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    taken, planned = map(int, done.stdout.split())
    assert planned / 2 < taken < planned


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
    monkeypatch.setattr(sweep, "claim", lambda _: pytest.fail("was not refused"))
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


def test_what_a_card_leaves_to_the_host_must_fit_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parameters and moments, 12 bytes a parameter, and the checkpoint that is made of them.

    A stack that nobody asked for is made smaller instead.
    """
    setup, card = config(baseline_seeds=0, stack=12), torch.device("cuda")
    dataset = DATASET_COPIES * sum(dataset_bytes(setup).values())
    waiting = 2 * 12 * 12 * Architecture.of(setup).parameters
    assert memory.host_bytes(setup, CPU, 12) == 0
    for short in (0, 1):
        free = {"cpu": dataset + waiting - short, "cuda": 2**40}
        monkeypatch.setattr(memory, "free_memory", lambda device, free=free: free[device.type])
        if not short:
            assert check_memory(setup, card, 12) == 12
            continue
        with pytest.raises(ConfigError, match="^stack: .*a checkpoint of 12 models take"):
            check_memory(setup, card, 12)
        assert check_memory(setup.model_copy(update={"stack": 0}), card, 12) == 11


def test_a_sweep_whose_configuration_is_too_long_to_be_read_again_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda _: 2**60)
    monkeypatch.setattr(sweep, "claim", lambda _: pytest.fail("was not refused"))
    with pytest.raises(ConfigError, match=f"^mu: .* config.toml holds in {FILE_BYTES:,} bytes; th"):
        sweep.run_sweep(config(mu=MANY), tmp_path / "run")
    assert not list(tmp_path.iterdir())
