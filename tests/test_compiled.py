"""The compiled engine: where it is chosen, what it draws, and that a run of it resumes."""

from __future__ import annotations

import subprocess
from contextvars import copy_context
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch

from vaekit import compiled_step, engine
from vaekit.block import inputs, make_block
from vaekit.compiler import compiler_missing, compiler_version, program
from vaekit.config import PRESETS, ConfigError, SweepConfig
from vaekit.engine import REPAID_MODEL_STEPS, engine_name, make_step
from vaekit.interrupt import Interrupted, Interrupts
from vaekit.progress import Silent
from vaekit.stack import Stack
from vaekit.state import initial_state
from vaekit.sweep import run_sweep

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
STACK = Stack(mu=(0.0, 2.0), seeds=(0, 3), beta=(0.5, 4.0))


def config(**changes: object) -> SweepConfig:
    tiny = {"mu": STACK.mu, "beta": STACK.beta, "hidden": (16,), "batch": 8, "grid": 2, "tile": 3}
    return SweepConfig(**{**tiny, "latents": 3, "engine": "compiled", "device": "cpu", **changes})


@pytest.fixture
def compiler() -> None:
    if missing := compiler_missing():
        pytest.skip(missing)


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "compiler_missing", lambda: "")


@pytest.mark.usefixtures("pretended")
def test_auto_compiles_what_trains_for_long_enough() -> None:
    long = REPAID_MODEL_STEPS // 4
    assert engine_name(config(engine="auto", steps=long), CPU) == "compiled"
    assert engine_name(config(engine="auto", steps=long - 1), CPU) == "torch"
    names = {name: engine_name(SweepConfig.from_preset(name), CPU) for name in PRESETS}
    assert (names["smoke"], names["laptop"], names["post"]) == ("torch", "compiled", "compiled")


@pytest.mark.usefixtures("pretended")
@pytest.mark.parametrize("changes", [{"precision": "bf16"}, {"hidden": (2048,)}, {"stack": 200}])
def test_auto_does_not_compile_what_it_would_not_train_faster(changes: dict) -> None:
    """Other precisions than the engine has, and steps whose memory goes back to the system."""
    many = tuple(float(beta) for beta in range(1, 101))
    setup = config(engine="auto", steps=REPAID_MODEL_STEPS, beta=many, grid=3, tile=7, batch=128)
    assert engine_name(setup, CPU) == "compiled"
    assert engine_name(setup.model_copy(update=changes), CPU) == "torch"


def test_without_a_compiler_auto_is_torch_and_compiled_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine, "compiler_missing", lambda: "no compiler here")
    assert engine_name(config(engine="auto", steps=REPAID_MODEL_STEPS), CPU) == "torch"
    with pytest.raises(ConfigError, match=r"engine: got 'compiled'; allowed: .*no compiler here"):
        engine_name(config(), CPU)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("no g++ here\nat all"),
        PermissionError(13, "Permission denied", "/tmp/x"),
        RuntimeError(),
    ],
)
def test_whatever_keeps_torch_from_building_is_a_reason(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(torch, "compile", mock.Mock(side_effect=error))
    said = compiler_missing.__wrapped__()
    assert said.startswith(f"torch.compile builds no programs here ({type(error).__name__}: ")
    assert "\n" not in said


@pytest.mark.parametrize(
    ("answer", "name"),
    [("a compiler 12\nand more", "a compiler 12"), ("", "g++"), ("x" * 300, "x" * 200)],
)
def test_the_compiler_is_named_by_its_version_if_it_tells_one(
    monkeypatch: pytest.MonkeyPatch, answer: str, name: str
) -> None:
    monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", lambda: "g++")
    run = mock.Mock(return_value=SimpleNamespace(stdout=answer))
    monkeypatch.setattr(subprocess, "run", run)
    assert compiler_version.__wrapped__() == name
    run.side_effect = PermissionError(13, "Permission denied")
    assert compiler_version.__wrapped__() == "g++"


def test_calls_of_a_program_leave_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's own settings are variables of the thread's context, which keeps every one."""
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    made = program(lambda x: x + 1, 1)
    before = len(copy_context())
    assert [made(x) for x in range(100)] == list(range(1, 101))
    assert len(copy_context()) == before


@pytest.mark.usefixtures("pretended")
def test_it_is_refused_elsewhere_than_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.torch, "zeros", lambda *_, **__: None)
    with pytest.raises(ConfigError, match="engine: got 'compiled'; allowed: auto, .* on cuda"):
        engine_name(config(), CUDA)


@pytest.mark.usefixtures("compiler")
def test_its_images_and_noise_are_the_same_numbers_up_to_rounding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Blocks of eight steps are drawn by a program, a shorter one is not."""
    setup = config(beta_warmup=100)
    labels = STACK.labels(CPU)
    step = make_step(setup, initial_state(setup, labels.seeds), streams=2)
    block = make_block(setup, labels, step)
    given: list[tuple[torch.Tensor, ...]] = []

    def watched(*now: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        given.append(tuple(tensor.clone() for tensor in now))
        return torch.zeros(4, 8), torch.zeros(4, 8)

    monkeypatch.setattr(type(step), "__call__", lambda self, *now: watched(*now))
    with torch.no_grad():
        block(range(9, 17)), block(range(17, 19))
    expected = list(zip(*inputs(setup, labels, torch.arange(9, 19)), strict=True))
    assert len(given) == len(expected) == 10
    for found, wanted in zip(given[:8], expected[:8], strict=True):
        for one, other in zip(found, wanted, strict=True):
            # Two units of the last place of a value between 2 and 4.
            torch.testing.assert_close(one, other, rtol=0, atol=5e-7)
    assert any(not torch.equal(a[0], b[0]) for a, b in zip(given[:8], expected[:8], strict=True))
    for found, wanted in zip(given[8:], expected[8:], strict=True):
        assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))


@pytest.mark.usefixtures("compiler")
def test_images_that_are_copied_for_the_products_train_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where oneDNN multiplies, which this machine's processor may not let it."""
    labels = STACK.labels(CPU)
    given = [tensor[0] for tensor in inputs(config(), labels, torch.arange(1, 2))]
    found = []
    for library in ("mkl", "onednn"):
        monkeypatch.setattr(compiled_step, "product_library", lambda _, library=library: library)
        step = make_step(config(), initial_state(config(), labels.seeds), streams=2)
        assert step.copied == (library == "onednn")
        with torch.no_grad():
            found.append(step(*given))
    torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=0.0)


class Leave(Silent):
    """Asks to leave at the third sign of progress."""

    def __init__(self, interrupts: Interrupts) -> None:
        self.interrupts, self.count = interrupts, 0

    def advance(self, amount: int) -> None:
        self.count += 1
        if self.count == 3:
            self.interrupts.asked = 15


@pytest.mark.usefixtures("compiler")
def test_a_run_that_is_interrupted_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    setup = config(steps=45, evaluation_draws=128, baseline_seeds=2, curve_points=4, threads=1)
    whole = run_sweep(setup, tmp_path / "whole")
    interrupts = Interrupts()
    with pytest.raises(Interrupted):
        run_sweep(setup, tmp_path / "run", progress=Leave(interrupts), interrupts=interrupts)
    resumed = run_sweep(setup, tmp_path / "run")
    assert resumed.attrs["engine"] == "compiled"
    for name in whole.data_vars:
        np.testing.assert_array_equal(resumed[name].values, whole[name].values, err_msg=str(name))
