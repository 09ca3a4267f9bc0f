"""The fused training step against autograd, in Triton's interpreter: `nox -s interpret`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip("triton", reason="there is no Triton for this platform")

import vaekit_kernels
from checks import assert_matches, same_bits
from poison import scale_last_layer
from vaekit.block import inputs, make_block, train_steps
from vaekit.config import SweepConfig
from vaekit.data import draw
from vaekit.model import StackedVAE
from vaekit.objective import latent_noise
from vaekit.parts import Parts
from vaekit.stack import Stack
from vaekit.state import BETA1, BETA2, EPSILON, State, initial_state
from vaekit.step import ReferenceStep, TorchStep, TritonStep
from vaekit_kernels import Draw, Stream, float_ids

pytestmark = pytest.mark.interpret

BETA = (0.5, 4.0)
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    # Its rounding is not the interpreter's, but its gradients are multiplied another way.
    "tensor-cores": {"precision": "tf32", "hidden": (37, 17)},
    "sampled-kl": {"kl": "sample"},
    "bernoulli": {"likelihood": "bernoulli"},
    "linear-output": {"decoder_output": "linear", "generator": "linear"},
    "decoder-variance": {"decoder_variance": 0.05},
    "one-hidden": {"hidden": (24,)},
    "no-hidden": {"hidden": ()},
    "three-hidden": {"hidden": (16, 8, 5)},
    "prime-widths": {"hidden": (37, 17), "latents": 5},
    "block-of-columns": {"hidden": (32, 33)},
    "more-latents-than-a-block": {"latents": 19, "kl": "sample"},
    "one-latent": {"latents": 1},
    "one-pixel": {"grid": 1, "tile": 1},
    "one-sample": {"batch": 1, "kl": "sample"},
    "batch-below-block": {"batch": 31},
    "batch-at-block": {"batch": 32},
    "batch-above-block": {"batch": 33},
    "more-tiles-than-are-unrolled": {"batch": 2112, "hidden": (8,), "beta": BETA[:1]},
}


def config(**changes: Any) -> SweepConfig:
    small = {"mu": (0.0, 2.0), "beta": BETA, "steps": 50, "hidden": (32, 16), "batch": 16}
    geometry = {"grid": 2, "tile": 3, "latents": 4}
    return SweepConfig(**{**small, **geometry, **changes})


class Run:
    """A stack of the betas on some streams, and what its steps are given."""

    def __init__(
        self, setup: SweepConfig, engine: str = "triton", mu: tuple[float, ...] | None = None
    ) -> None:
        self.setup = setup
        self.mu = torch.tensor(mu or setup.mu)
        self.stream_seeds = torch.full((len(self.mu),), 3)
        self.beta = torch.tensor(setup.beta * len(self.mu))
        self.seeds = torch.full((len(self.beta),), 3)
        self.state = initial_state(setup, self.seeds)
        self.engine = engine
        self.start()

    def start(self) -> None:
        if self.engine == "triton":
            self.step: Any = TritonStep(self.setup, self.state, streams=len(self.mu))
        else:
            self.step = ReferenceStep(self.setup, self.state)

    def given(self, t: int) -> tuple[Tensor, Tensor]:
        images, _ = draw(self.setup, self.mu, self.stream_seeds, t, batch=self.setup.batch)
        return images, latent_noise(self.setup, self.seeds, self.beta, t)

    def go(self, t: int) -> Tensor:
        """Train step t; return the loss of every model."""
        nll, kl = self.step(*self.given(t), self.beta)
        return (nll + self.beta[:, None] * kl).mean(1)

    def pieces(self, model: int) -> list[Tensor]:
        """Parameters and both moments of one model."""
        state = self.step.save()
        flats = (state.vae.flat, state.exp_avg, state.exp_avg_sq)
        return [StackedVAE(state.vae.architecture, flat).slot(model).flat for flat in flats]


def poison(step: TritonStep) -> None:
    """Fill what a step must write with NaN; only inputs' padding is there to be read."""
    fused, memory = step.fused, step.fused.memory
    transposed = [tensor for tensor in memory.transposed if tensor is not None]
    written = [memory.stats, memory.noise, *memory.inputs[1:], *memory.grads, *transposed]
    for tensor in [*written, fused.nll_parts, fused.columns]:
        tensor.fill_(torch.nan)
    # Where the programs of a layer take more samples than those of another, the rest stays zero.
    for start, (_, out), grad in zip(memory.bias_starts, memory.sizes, memory.grads, strict=True):
        row = fused.output_row if grad is memory.grads[-1] else fused.backward_row
        tiles = -(-fused.batch // row.rows)
        fused.columns[:, tiles:, start : start + out] = 0.0


def test_products_of_bf16_begin_with_the_weights_rounded() -> None:
    """The interpreter computes nothing right in bfloat16; a card's test has the steps."""
    memory = Run(config(precision="bf16")).step.fused.memory
    assert memory.states[0].any()
    assert same_bits(memory.rounded, memory.states[0].bfloat16())
    assert memory.operands[0].data_ptr() == memory.rounded.data_ptr()


def test_gradients_are_transposed_where_a_product_reads_them_so() -> None:
    """Neighbours lie apart; those two apart in the same memory, where the lower one stands last."""
    run = Run(config(hidden=(24, 16), batch=13))
    memory = run.step.fused.memory
    run.go(1)
    *_, last = memory.transposed
    kept = [tensor is not None for tensor in memory.transposed]
    assert kept == [False, True, True, False, True, True]
    assert last.data_ptr() == memory.transposed[1].data_ptr()
    assert last.data_ptr() != memory.transposed[4].data_ptr()
    for index in (1, 2):
        found = memory.transposed[index][:, :, :13]
        assert same_bits(found, memory.grads[index].transpose(1, 2))
        assert found.any()
    other = Run(config(hidden=(24, 16), batch=13, precision="tf32")).step.fused.memory
    assert other.transposed == [None] * 6


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS.keys())
def test_terms_and_gradients_are_those_of_autograd(changes: dict) -> None:
    """By the rule of `checks`; the gradient of a first step is ten times its first moment."""
    run = Run(config(**changes))
    images, noise = run.given(1)
    architecture = run.state.vae.architecture
    inputs = {"flat": run.state.vae.flat, "images": images, "noise": noise, "beta": run.beta}

    def step(
        engine: Any, flat: Tensor, images: Tensor, noise: Tensor, beta: Tensor
    ) -> tuple[Tensor, ...]:
        state = State.initial(StackedVAE(architecture, flat.clone()), 1e-3)
        made = engine(state)
        nll, kl = made(images, noise, beta)
        assert not made.save().stopped.any()
        return nll, kl, state.exp_avg / (1 - BETA1)

    def triton(state: State) -> TritonStep:
        made = TritonStep(run.setup, state, streams=len(run.mu))
        poison(made)
        return made

    assert_matches(
        lambda **given: step(triton, **given),
        lambda **given: step(lambda state: ReferenceStep(run.setup, state), **given),
        inputs,
    )


def test_the_update_is_adams() -> None:
    """From the moments that the engine left: bias correction, epsilon, rates of their own."""
    run = Run(config())
    rates = torch.tensor([1e-3, 1e-2, 1e-4, 1e-3], dtype=torch.float64)
    run.state.learning_rate.copy_(rates)
    for t in range(1, 6):
        before = [run.pieces(model) for model in range(4)]
        run.go(t)
        for model, rate in enumerate(rates.tolist()):
            w, a, q = (piece.double() for piece in before[model])
            w_new, a_new, q_new = (piece.double() for piece in run.pieces(model))
            grad = (a_new - BETA1 * a) / (1 - BETA1)
            torch.testing.assert_close(
                q_new, BETA2 * q + (1 - BETA2) * grad.square(), rtol=2e-4, atol=1e-9
            )
            corrected = (q_new / (1 - BETA2**t)).sqrt() + EPSILON
            change = rate / (1 - BETA1**t) * a_new / corrected
            torch.testing.assert_close(w_new, w - change, rtol=0.0, atol=2e-6 * rate + 1e-7)
    assert run.step.save().steps.item() == 5


def test_two_hundred_steps_follow_the_reference() -> None:
    setup = config(beta=(2.0,), hidden=(16,), tile=2, batch=8)
    fused, reference = Run(setup, mu=(0.5,)), Run(setup, "reference", mu=(0.5,))
    for t in range(1, 201):
        torch.testing.assert_close(fused.go(t), reference.go(t), rtol=1e-4, atol=0.0)


@pytest.mark.parametrize("mu", [(0.0, 2.0), (2.0,)], ids=["between streams", "within one"])
def test_a_stack_trains_in_parts_to_the_same_bits(mu: tuple[float, ...]) -> None:
    """By blocks, whose noise is drawn, and step by step, with noise that is given."""
    setup = config(mu=mu, beta_warmup=3)
    whole, cut = Run(setup), Run(setup)
    cut.step = Parts(setup, cut.state, streams=len(mu), count=2)
    labels = Stack(mu=mu, seeds=(3,) * len(mu), beta=BETA).labels(torch.device("cpu"))
    with torch.no_grad():
        t = torch.arange(1, 3)
        assert same_bits(*(train_steps(setup, labels, run.step, t) for run in (whole, cut)))
        t = torch.arange(3, 5)
        given = inputs(setup, labels, t)
        assert same_bits(*(train_steps(setup, labels, run.step, t, given) for run in (whole, cut)))
        labels_of_noise = Draw(whole.seeds, float_ids(whole.beta), 5)
        images, noise = whole.given(5)
        for drawn in (noise, labels_of_noise):
            made = [run.step(images, drawn, run.beta) for run in (whole, cut)]
            assert all(same_bits(a, b) for a, b in zip(*made, strict=True))
    assert cut.step.save() is cut.state
    for name, tensor in whole.step.save().tensors().items():
        assert same_bits(tensor, cut.state.tensors()[name]), name


def test_a_save_without_moments_brings_the_weights_up_to_date_alone() -> None:
    run = Run(config())
    run.go(1)
    before = run.step.save().exp_avg.clone()
    run.go(2)
    state = run.step.save(moments=False)
    parameters = state.vae.flat.clone()
    assert state.steps.item() == 2
    assert same_bits(state.exp_avg, before)
    assert same_bits(run.step.save().vae.flat, parameters)
    assert not same_bits(state.exp_avg, before)


def test_drawn_noise_is_the_noise_that_would_be_given() -> None:
    drawn, given = Run(config()), Run(config())
    images, noise = given.given(7)
    labels = Draw(drawn.seeds, float_ids(drawn.beta), 7, Stream.LATENT)
    for a, b in zip(
        drawn.step(images, labels, drawn.beta), given.step(images, noise, given.beta), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        drawn.step.fused.memory.noise, given.step.fused.memory.noise, rtol=0, atol=4e-6
    )


def test_a_model_trains_to_the_same_bits_in_any_slot_of_any_stack() -> None:
    together = Run(config())
    other_way = Run(config(beta=BETA[::-1]), mu=(2.0, 0.0))
    alone = Run(config(beta=BETA[:1]), mu=(2.0,))
    for t in range(1, 6):
        for run in (together, other_way, alone):
            run.go(t)
    for a, b, c in zip(together.pieces(2), other_way.pieces(1), alone.pieces(0), strict=True):
        assert same_bits(a, b)
        assert same_bits(a, c)


def test_the_same_steps_twice_have_the_same_bits() -> None:
    first, second = Run(config()), Run(config())
    for t in range(1, 4):
        assert same_bits(first.go(t), second.go(t))
    for model in range(4):
        pairs = zip(first.pieces(model), second.pieces(model), strict=True)
        assert all(same_bits(a, b) for a, b in pairs)


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("victim", [0, 2])
def test_a_model_that_is_not_finite_stops_before_its_update(poison: float, victim: int) -> None:
    clean, hurt = Run(config()), Run(config())
    for t in range(1, 4):
        if t == 2:
            hurt.step.save().vae.layers[1][0][victim, 0, 0] = poison
            hurt.start()
            before = hurt.pieces(victim)
        clean.go(t)
        with np.errstate(over="ignore", invalid="ignore"):  # NumPy warns where a card does not
            hurt.go(t)
    assert hurt.state.stopped.tolist() == [2 * (model == victim) for model in range(4)]
    for a, b in zip(before, hurt.pieces(victim), strict=True):
        assert same_bits(a, b)
    for model in set(range(4)) - {victim}:
        for a, b in zip(clean.pieces(model), hurt.pieces(model), strict=True):
            assert same_bits(a, b)


@pytest.mark.parametrize(("size", "saved"), [(1e22, True), (1e38, False)])
def test_a_weight_gradient_that_overflows_alone_stops_its_model(size: float, saved: bool) -> None:
    """Huge activations before tiny weights: terms and biases' gradients show nothing.

    At 1e22 the gradient is finite and its square is not, at 1e38 neither is. Those weights stay as
    they were; from the next step on the whole model does, saved and taken up again or not.
    """
    setup = config(decoder_output="linear", generator="linear")
    clean, hurt = Run(setup), Run(setup)
    clean.go(1), hurt.go(1)
    scale_last_layer(hurt.step.save().vae, 2, size)
    hurt.start()
    weight = hurt.state.vae.layers[-1][0][2].clone()
    with np.errstate(over="ignore", invalid="ignore"):  # NumPy warns where a card does not
        for t in range(2, 5):
            clean.go(t), hurt.go(t)
            if t == 2:
                after = hurt.pieces(2) if saved else None
    assert hurt.step.save().stopped.tolist() == [0, 0, 2, 0]
    assert same_bits(hurt.state.vae.layers[-1][0][2], weight)
    assert all(piece.isfinite().all() for piece in hurt.pieces(2))
    for a, b in zip(after or hurt.pieces(2), hurt.pieces(2), strict=True):
        assert same_bits(a, b)
    for model in {0, 1, 3}:
        for a, b in zip(clean.pieces(model), hurt.pieces(model), strict=True):
            assert same_bits(a, b)


def test_a_stopped_model_keeps_its_bits() -> None:
    run = Run(config())
    run.go(1)
    run.state.stopped[1] = 2
    before = run.pieces(1)
    run.go(2)
    assert all(same_bits(a, b) for a, b in zip(before, run.pieces(1), strict=True))
    assert run.state.stopped.tolist() == [0, 2, 0, 0]


def test_a_state_goes_through_the_engine_unchanged_and_its_padding_stays_zero() -> None:
    run = Run(config(hidden=(37, 17), latents=5))
    run.go(1)
    before = {name: tensor.clone() for name, tensor in run.step.save().tensors().items()}
    run.start()
    after = run.step.save().tensors()
    for name, tensor in before.items():
        assert same_bits(tensor, after[name]), name
    run.go(2)
    for kind, flat in enumerate((run.state.vae.flat, run.state.exp_avg, run.state.exp_avg_sq)):
        run.step.save()
        memory = run.step.fused.memory
        held = [*memory.weights[kind], memory.biases[kind]]
        assert sum(tensor.count_nonzero() for tensor in held) == flat.count_nonzero()
        total = sum(tensor.double().abs().sum() for tensor in held)
        assert total.item() == pytest.approx(flat.double().abs().sum().item(), rel=1e-12)


def test_streams_that_do_not_divide_the_models_are_refused() -> None:
    run = Run(config())
    with pytest.raises(ValueError, match="streams: got 3"):
        TritonStep(run.setup, run.state, streams=3)


def test_blocks_draw_and_train_as_the_definition() -> None:
    """What a CUDA graph captures: images, labels of noise and betas made from the step's number."""
    setup = config(beta_warmup=3)
    labels = Stack(mu=setup.mu, seeds=(3, 3), beta=setup.beta).labels(torch.device("cpu"))
    terms = []
    for engine in (TritonStep, TorchStep):
        step = engine(setup, initial_state(setup, labels.seeds), streams=2)
        with torch.no_grad():
            terms.append(make_block(setup, labels, step)(range(1, 5)))
    torch.testing.assert_close(terms[0], terms[1], rtol=1e-4, atol=1e-5)


class NeverWaits(TorchDispatchMode):
    """Refuses what a CUDA graph cannot hold: asking the device, and values from the host."""

    WAITS = frozenset(
        {
            "_local_scalar_dense",  # item, int, float, bool
            "equal",
            "is_nonzero",
            "lift_fresh",  # torch.tensor of Python's numbers
            "masked_select",
            "nonzero",
            "_unique2",
        }
    )

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        assert name not in self.WAITS, f"{name} waits for the device"
        return func(*args, **(kwargs or {}))


def test_the_body_of_a_graph_never_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the step's number to the terms, with every op on its Triton side."""
    setup = config(kl="sample", beta_warmup=3)
    monkeypatch.setattr(vaekit_kernels, "runs_triton", lambda backend, tensor: backend != "torch")
    labels = Stack(mu=setup.mu, seeds=(3, 3), beta=setup.beta).labels(torch.device("cpu"))
    step = TritonStep(setup, initial_state(setup, labels.seeds), streams=2)
    first = torch.zeros((), dtype=torch.int64)
    offsets = torch.arange(1, 3)
    with torch.no_grad(), NeverWaits():
        terms = train_steps(setup, labels, step, first + offsets)
    assert terms.isfinite().all() and step.fused.memory.count.tolist() == [2] * 4


def test_what_waits_for_the_device_is_seen() -> None:
    value = torch.ones(())
    for waits in (value.item, lambda: torch.tensor([1.0]), lambda: value[value > 0]):
        with pytest.raises(AssertionError, match="waits for the device"), NeverWaits():
            waits()
