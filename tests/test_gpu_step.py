"""The fused training step on a card: precision, CUDA graphs, isolation: `nox -s gpu`."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="there is no Triton for this platform")

from checks import assert_matches, same_bits
from vaekit.block import BLOCK_STEPS, Block, Replay, make_block, train_steps
from vaekit.config import SweepConfig
from vaekit.data import draw
from vaekit.engine import make_step
from vaekit.model import StackedVAE
from vaekit.objective import latent_noise
from vaekit.stack import Stack
from vaekit.state import State, initial_state

pytestmark = pytest.mark.gpu

CUDA = "cuda"
SWEEP = {"mu": (0.0, 1.0, 2.0), "beta": (0.5, 1.0, 2.0, 4.0), "steps": 200}
STACK = Stack(mu=SWEEP["mu"], seeds=(0, 0, 0), beta=SWEEP["beta"])


def steps_of(**changes: object) -> tuple[Any, Block]:
    setup = SweepConfig(**{**SWEEP, **changes})
    labels = STACK.labels(torch.device(CUDA))
    step = make_step(setup, initial_state(setup, labels.seeds), streams=len(STACK.mu))
    return step, make_block(setup, labels, step)


# Relative difference of a loss: float32 by rule, the others by what their rounding should give (no
# card has tried them yet).
@pytest.mark.parametrize(
    ("precision", "limit"), [("float32", 1e-4), ("tf32", 2e-3), ("bf16", 1e-2)]
)
def test_two_hundred_fused_steps_follow_the_reference(precision: str, limit: float) -> None:
    _, fused = steps_of(engine="triton", precision=precision)
    _, reference = steps_of(engine="reference")
    for first in range(1, 201, BLOCK_STEPS):
        steps = range(first, first + BLOCK_STEPS)
        found, expected = fused(steps).clone(), reference(steps)
    torch.testing.assert_close(found[:, 2], expected[:, 2], rtol=limit, atol=0.0)


@pytest.mark.parametrize("changes", [{}, {"kl": "sample"}, {"likelihood": "bernoulli"}], ids=str)
def test_a_fused_step_of_full_size_is_as_good_as_its_definition(changes: dict) -> None:
    """The first gradients, by the rule of `checks`, at sizes that fill the card."""
    setup = SweepConfig(**{**SWEEP, **changes})
    labels = STACK.labels(torch.device(CUDA))
    vae = StackedVAE.initial(setup, labels.seeds)
    images, _ = draw(setup, labels.mu, labels.stream_seeds, 1, batch=setup.batch)
    noise = latent_noise(setup, labels.seeds, labels.beta, 1)
    inputs = {"flat": vae.flat, "images": images, "noise": noise, "beta": labels.beta}

    def step(
        engine: str, flat: Tensor, images: Tensor, noise: Tensor, beta: Tensor
    ) -> tuple[Tensor, ...]:
        state = State.initial(StackedVAE(vae.architecture, flat.clone()), 1e-3)
        made = make_step(setup.model_copy(update={"engine": engine}), state, streams=3)
        nll, kl = made(images, noise, beta)
        return nll.clone(), kl.clone(), made.save().exp_avg / 0.1

    assert_matches(partial(step, "triton"), partial(step, "reference"), inputs)


def test_a_replayed_block_has_the_bits_of_a_launched_one() -> None:
    launched, _ = steps_of(engine="triton")
    replayed, block = steps_of(engine="triton")
    assert isinstance(block, Replay)
    setup, labels = SweepConfig(**SWEEP), STACK.labels(torch.device(CUDA))
    for first in range(1, 5 * BLOCK_STEPS, BLOCK_STEPS):
        t = torch.arange(first, first + BLOCK_STEPS, device=CUDA)
        expected = train_steps(setup, labels, launched, t)
        assert same_bits(block(range(first, first + BLOCK_STEPS)), expected)
    for name, tensor in launched.save().tensors().items():
        assert same_bits(tensor, replayed.save().tensors()[name]), name


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_diverging_model_leaves_its_siblings_bits_in_a_replayed_run(poison: float) -> None:
    clean, clean_block = steps_of(engine="triton")
    hurt, block = steps_of(engine="triton")
    hurt.fused.memory.weights[0][1][5, 0, 0] = poison
    for first in range(1, 201, BLOCK_STEPS):
        clean_block(range(first, first + BLOCK_STEPS))
        block(range(first, first + BLOCK_STEPS))
    assert hurt.state.stopped.tolist() == [int(model == 5) for model in range(12)]
    pairs = [step.save().vae for step in (clean, hurt)]
    for model in set(range(12)) - {5}:
        assert same_bits(*(vae.slot(model).flat for vae in pairs))
