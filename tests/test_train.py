"""Training gives every model what it would get alone, and says how it went."""

from __future__ import annotations

import pytest
import torch

from vaekit.config import ConfigError, SweepConfig
from vaekit.model import StackedVAE
from vaekit.progress import Silent
from vaekit.stack import (
    Stack,
    checkpoint_bytes,
    model_bytes,
    plan,
    stack_size,
    stream_bytes,
    training_bytes,
)
from vaekit.train import curve_steps, train

CPU = torch.device("cpu")


def config(**changes: object) -> SweepConfig:
    small = {
        "mu": (0.0, 2.0),
        "beta": (0.5, 1.0, 4.0),
        "steps": 40,
        "hidden": (32, 16),
        "batch": 16,
        "evaluation_draws": 256,
    }
    return SweepConfig(**{**small, **changes})


class Counter(Silent):
    """Adds up what the trainer reports."""

    total = 0

    def advance(self, amount: int) -> None:
        self.total += amount


def test_the_stack_does_not_change_a_model() -> None:
    setup = config()
    together = train(setup, Stack((0.0, 2.0), (0, 0), setup.beta), CPU, Silent())
    for index, (mu, beta) in enumerate([(mu, beta) for mu in setup.mu for beta in setup.beta]):
        alone = train(setup, Stack((mu,), (0,), (beta,)), CPU, Silent())
        torch.testing.assert_close(
            together.curves.loss[index], alone.curves.loss[0], rtol=1e-6, atol=0.0
        )
        torch.testing.assert_close(
            together.vae.slot(index).flat, alone.vae.flat, rtol=1e-3, atol=1e-5
        )


def test_the_same_run_twice_has_the_same_bits() -> None:
    stack = Stack((0.0, 2.0), (0, 0), config().beta)
    first, second = (train(config(), stack, CPU, Silent()) for _ in range(2))
    assert torch.equal(first.vae.flat, second.vae.flat)
    assert torch.equal(first.curves.loss, second.curves.loss)


def test_curves_are_window_means() -> None:
    """Summed over windows of any length, the curves hold the same losses."""
    stack = Stack((0.0,), (0,), config().beta)
    every = train(config(curve_points=40), stack, CPU, Silent()).curves
    windows = train(config(curve_points=5), stack, CPU, Silent()).curves
    assert curve_steps(config(curve_points=5)) == [8, 16, 24, 32, 40]
    for name in ("nll", "kl", "loss"):
        means = getattr(every, name).view(3, 5, 8).mean(-1)
        torch.testing.assert_close(getattr(windows, name), means, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("steps", "points"), [(1, 1), (7, 3), (10, 200), (4000, 200)])
def test_curve_steps_end_at_the_end(steps: int, points: int) -> None:
    found = curve_steps(config(steps=steps, curve_points=points))
    assert found[-1] == steps
    assert len(set(found)) == len(found) == min(steps, points)


def test_progress_counts_every_model_step() -> None:
    counter = Counter()
    train(config(steps=21), Stack((0.0,), (0,), (1.0, 2.0)), CPU, counter)
    assert counter.total == 42


@pytest.mark.parametrize("size", [1, 2, 3, 4, 6, 7, 100])
def test_plans_hold_every_model_once_and_none_too_many(size: int) -> None:
    setup = config(seeds=3)
    stacks = plan(setup, size)
    cells = [
        (mu, seed, beta)
        for stack in stacks
        for mu, seed in zip(stack.mu, stack.seeds, strict=True)
        for beta in stack.beta
    ]
    expected = {(mu, s, b) for mu in setup.mu for s in setup.seed_values for b in setup.beta}
    assert set(cells) == expected
    assert len(cells) == len(expected)
    assert max(stack.models for stack in stacks) <= size


def test_the_stack_size_obeys_the_user_and_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = config(seeds=9)
    assert stack_size(config(stack=4), CPU) == 4
    assert stack_size(config(stack=1000), CPU) == 6
    # On a CPU a checkpoint is made in the same memory. A stream's three betas share its images.
    own, images = model_bytes(setup) + checkpoint_bytes(setup), stream_bytes(setup)
    for half, size in (
        (6 * own + 2 * images, 6),
        (6 * own + 2 * images - 1, 3),
        (3 * own + images - 1, 2),
        (2 * own + images, 2),
        (2 * own + images - 1, 1),
        (own + images, 1),
        ((own + images) / 2, 1),
    ):
        monkeypatch.setattr("vaekit.stack.free_memory", lambda _, half=half: int(2 * half))
        assert stack_size(setup, CPU) == size, size
    one, cuda = own + images, torch.device("cuda")
    monkeypatch.setattr("vaekit.stack.free_memory", lambda _: model_bytes(setup) + images)
    assert stack_size(setup, cuda) == 1
    monkeypatch.setattr("vaekit.stack.free_memory", lambda _: one - 1)
    with pytest.raises(ConfigError, match=f"trains in {one:,} bytes, and {one - 1:,} are free"):
        stack_size(setup, CPU)


def test_a_stack_is_planned_by_its_models_and_its_streams() -> None:
    """Of some betas of a stream too: they have its images as all of them would."""
    setup = config(beta=(1.0, 2.0, 3.0))
    own, images = model_bytes(setup), stream_bytes(setup)
    for betas, streams in ((3, 2), (1, 2), (2, 1)):
        stack = Stack((0.0, 1.0)[:streams], (0,) * streams, setup.beta[:betas])
        assert training_bytes(setup, stack) == streams * (betas * own + images)


def test_a_model_that_blows_up_is_seen_in_its_curve_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    setup = config(beta=(1.0, 2.0))
    clean = train(setup, Stack((0.0,), (0,), setup.beta), CPU, Silent())
    initial = StackedVAE.initial

    def poisoned(setup: SweepConfig, seeds: torch.Tensor) -> StackedVAE:
        vae = initial(setup, seeds)
        vae.layers[0][0][1, 0, 0] = torch.inf
        return vae

    monkeypatch.setattr(StackedVAE, "initial", poisoned)
    hurt = train(setup, Stack((0.0,), (0,), setup.beta), CPU, Silent())
    assert torch.equal(hurt.curves.loss[0], clean.curves.loss[0])
    assert torch.equal(hurt.vae.slot(0).flat, clean.vae.slot(0).flat)
    assert not torch.isfinite(hurt.curves.loss[1]).any()
    assert hurt.stopped.tolist() == [0, 1]
