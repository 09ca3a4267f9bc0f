"""The hand-derived step is the reference's, and no model of a stack touches another."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from poison import scale_last_layer
from vaekit.adam import SWEEP
from vaekit.compiled_step import CompiledStep
from vaekit.compiler import compiler_missing
from vaekit.config import SweepConfig
from vaekit.data import draw
from vaekit.model import Layer, StackedVAE
from vaekit.objective import beta_at, latent_noise
from vaekit.products import fast_products
from vaekit.state import State
from vaekit.step import ReferenceStep, TorchStep

BETA = (0.5, 1.0, 4.0)
# The engines whose backward pass is written out.
EXPLICIT = ("torch", "compiled")
VARIANTS = {
    "default": {},
    "sampled-kl": {"kl": "sample"},
    "bernoulli": {"likelihood": "bernoulli"},
    "linear-output": {"decoder_output": "linear", "generator": "linear"},
    "decoder-variance": {"decoder_variance": 1.7},
    "one-hidden": {"hidden": (24,), "latents": 4},
    "no-hidden": {"hidden": (), "decoder_output": "linear"},
    "batch-of-one": {"batch": 1, "kl": "sample"},
}


def config(**changes: object) -> SweepConfig:
    small = {"mu": (0.0, 2.0), "beta": BETA, "steps": 50, "hidden": (32, 16), "batch": 16}
    return SweepConfig(**{**small, **changes})


class Run:
    """A stack of the betas on the streams mu = 0 and 2, seed 0, and its noise."""

    def __init__(self, setup: SweepConfig, engine: str, dtype: torch.dtype = torch.float32) -> None:
        self.setup, self.dtype = setup, dtype
        self.mu = torch.tensor(setup.mu)
        self.stream_seeds = torch.zeros(len(setup.mu), dtype=torch.int64)
        self.seeds = self.stream_seeds.repeat_interleave(len(setup.beta))
        self.beta = torch.tensor(setup.beta * len(setup.mu))
        if engine == "compiled" and (missing := compiler_missing()):
            pytest.skip(missing)
        initial = StackedVAE.initial(setup, self.seeds)
        self.vae = StackedVAE(initial.architecture, initial.flat.to(dtype))
        self.state = State.initial(self.vae, setup.learning_rate)
        self.step: ReferenceStep | TorchStep | CompiledStep
        if engine == "reference":
            self.step = ReferenceStep(setup, self.state)
        else:
            kind = TorchStep if engine == "torch" else CompiledStep
            self.step = kind(setup, self.state, streams=len(setup.mu))
        update = self.step.update

        def seen(healthy: Tensor, gradients: list[Layer]) -> None:
            pieces = [piece.reshape(-1) for layer in gradients for piece in layer]
            self.gradient = torch.cat(pieces)
            update(healthy, gradients)

        self.step.update = seen

    def go(self, t: int, beta: Tensor | None = None) -> Tensor:
        """Train step t; return the loss of every model."""
        images, _ = draw(self.setup, self.mu, self.stream_seeds, t, batch=self.setup.batch)
        noise = latent_noise(self.setup, self.seeds, self.beta, t)
        beta = (self.beta if beta is None else beta).to(self.dtype)
        with torch.no_grad():
            nll, kl = self.step(images.to(self.dtype), noise.to(self.dtype), beta)
        return (nll + beta[:, None] * kl).mean(1).detach()


@pytest.mark.parametrize("engine", EXPLICIT)
@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS.keys())
def test_gradients_are_those_of_autograd(changes: dict, engine: str) -> None:
    setup = config(**changes)
    reference = Run(setup, "reference", torch.float64)
    explicit = Run(setup, engine, torch.float64)
    for t in (1, 2, 3):
        torch.testing.assert_close(explicit.go(t), reference.go(t), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(explicit.gradient, reference.gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("engine", EXPLICIT)
@pytest.mark.parametrize("kl", ["analytic", "sample"])
def test_two_hundred_steps_follow_the_reference(kl: str, engine: str) -> None:
    setup = config(kl=kl, steps=200, hidden=(64, 32), batch=64)
    reference, explicit = Run(setup, "reference"), Run(setup, engine)
    for t in range(1, 201):
        torch.testing.assert_close(explicit.go(t), reference.go(t), rtol=1e-4, atol=0.0)


def test_the_loss_sums_over_models_and_averages_over_samples() -> None:
    """A model's gradient is the same alone as among others: nothing is divided by M."""
    together = Run(config(mu=(0.0,)), "torch", torch.float64)
    alone = Run(config(mu=(0.0,), beta=(BETA[1],)), "torch", torch.float64)
    together.go(1), alone.go(1)
    stacked = StackedVAE(together.vae.architecture, together.gradient).slot(1).flat
    torch.testing.assert_close(stacked, alone.gradient, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("sizes", [{}, {"hidden": (256, 128), "batch": 128}], ids=["small", "full"])
def test_a_model_trains_in_any_slot_as_it_does_alone(sizes: dict) -> None:
    """In the products that training takes, which cut a stack's work by its size."""
    together = Run(config(**sizes), "torch")
    alone = Run(config(**sizes, mu=(2.0,), beta=(BETA[0],)), "torch")
    with fast_products(torch.device("cpu")):
        for t in range(1, 51):
            among, single = together.go(t)[3], alone.go(t)[0]
            torch.testing.assert_close(among, single, rtol=1e-6, atol=0.0)


def test_models_permute() -> None:
    forward, backward = Run(config(), "torch"), Run(config(beta=BETA[::-1]), "torch")
    for t in range(1, 11):
        torch.testing.assert_close(
            forward.go(t).view(2, 3), backward.go(t).view(2, 3).flip(1), rtol=1e-6, atol=0.0
        )


def test_beta_reaches_its_own_model_only() -> None:
    one, other = Run(config(), "torch"), Run(config(), "torch")
    changed = one.beta.clone()
    changed[4] = 50.0
    for t in range(1, 4):
        one.go(t), other.go(t, changed)
    same = [torch.equal(one.vae.slot(i).flat, other.vae.slot(i).flat) for i in range(6)]
    assert same == [True, True, True, True, False, True]


def test_warm_up_is_linear_and_ends() -> None:
    beta = torch.tensor([2.0, 8.0])
    found = beta_at(beta, torch.tensor([1, 25, 100, 101]), 100)
    assert found[1:].tolist() == [[0.5, 2.0], [2.0, 8.0], [2.0, 8.0]]
    torch.testing.assert_close(found[0], beta / 100)
    assert torch.equal(beta_at(beta, torch.tensor([1, 2]), 0), beta.expand(2, 2))


def test_a_stopped_model_keeps_every_bit_and_its_siblings_train_on() -> None:
    free, stopped = Run(config(), "torch"), Run(config(), "torch")
    for t in range(1, 21):
        if t == 8:
            stopped.state.stopped[3] = t
            kept = [piece.clone() for piece in state_of(stopped, 3)]
        free.go(t), stopped.go(t)
    assert all(torch.equal(a, b) for a, b in zip(kept, state_of(stopped, 3), strict=True))
    for index in set(range(6)) - {3}:
        pairs = zip(state_of(free, index), state_of(stopped, index), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def state_of(run: Run, model: int) -> list[Tensor]:
    """Parameters and both moments of one model."""
    flats = (run.vae.flat, run.state.exp_avg, run.state.exp_avg_sq)
    return [StackedVAE(run.vae.architecture, flat).slot(model).flat for flat in flats]


@pytest.mark.parametrize("engine", ["reference", *EXPLICIT])
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 1e30])
def test_a_model_that_is_not_finite_is_stopped_before_its_update(
    engine: str, poison: float
) -> None:
    run = Run(config(), engine)
    for t in range(1, 4):
        run.go(t)
    run.vae.layers[1][0][2, 0, 0] = poison
    before = [piece.clone() for piece in state_of(run, 2)]
    run.go(4)
    assert run.state.stopped.tolist() == [0, 0, 4, 0, 0, 0]
    for a, b in zip(before, state_of(run, 2), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("engine", ["reference", *EXPLICIT])
@pytest.mark.parametrize("size", [1e22, 1e38])
def test_a_weight_gradient_that_overflows_alone_stops_its_model(engine: str, size: float) -> None:
    """Huge activations before tiny weights: terms and biases' gradients show nothing.

    At 1e22 the gradient is finite and its square is not, at 1e38 neither is.
    """
    setup = config(decoder_output="linear", generator="linear")
    clean, hurt = Run(setup, engine), Run(setup, engine)
    for t in range(1, 4):
        clean.go(t), hurt.go(t)
    scale_last_layer(hurt.vae, 2, size)
    before = [piece.clone() for piece in state_of(hurt, 2)]
    clean.go(4), hurt.go(4)
    assert hurt.state.stopped.tolist() == [0, 0, 4, 0, 0, 0]
    for a, b in zip(before, state_of(hurt, 2), strict=True):
        assert torch.equal(a, b)
    for index in set(range(6)) - {2}:
        pairs = zip(state_of(clean, index), state_of(hurt, index), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_each_model_may_have_its_own_learning_rate() -> None:
    rates = torch.tensor([1e-3, 1e-2, 1e-4, 1e-3, 1e-2, 1e-4], dtype=torch.float64)
    mixed = Run(config(), "torch")
    mixed.state.learning_rate.copy_(rates)
    mixed.step = TorchStep(mixed.setup, mixed.state, streams=2)
    for rate in rates.unique().tolist():
        same = Run(config(learning_rate=rate), "torch")
        for t in range(1, 21):
            same.go(t)
            if rate == rates.min():
                mixed.go(t)
        for index in (rates == rate).nonzero().flatten().tolist():
            expected, found = same.vae.slot(index).flat, mixed.vae.slot(index).flat
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_the_update_is_the_one_of_torch_optim() -> None:
    """Bias correction included: the first steps are where it matters."""
    run = Run(config(), "torch", torch.float64)
    plain = run.vae.flat.clone().requires_grad_()
    adam = torch.optim.Adam([plain], lr=run.setup.learning_rate)
    for t in range(1, 6):
        run.go(t)
        plain.grad = run.gradient.clone()
        adam.step()
        torch.testing.assert_close(run.vae.flat, plain.detach(), rtol=1e-12, atol=1e-14)


def test_a_dead_units_moments_become_nothing_and_never_denormal() -> None:
    """As torch's, but for what is too small to move a weight; a stopped model keeps even that."""
    run = Run(config(), "torch")
    run.go(1)
    plain = run.vae.flat.clone().requires_grad_()
    adam = torch.optim.Adam([plain], lr=run.setup.learning_rate)
    plain.grad = run.gradient.clone()
    fresh = Run(config(), "torch")
    plain.data.copy_(fresh.vae.flat)
    adam.step()
    plain.grad.zero_()
    nothing = run.vae.architecture.split(torch.zeros_like(run.vae.flat))
    tiny = torch.finfo(torch.float32).tiny
    seen = 0
    for _ in range(2, 1101):
        run.step.update(torch.ones(6, dtype=torch.bool), nothing)
        adam.step()
        small = run.state.exp_avg.abs()
        assert not ((small > 0) & (small < tiny)).any()
        theirs = adam.state[plain]["exp_avg"].abs()
        seen += int(((theirs > 0) & (theirs < tiny)).any())
    assert seen > 50
    assert not run.state.exp_avg.any() and run.state.exp_avg_sq.any()
    torch.testing.assert_close(run.vae.flat, plain.detach(), rtol=1e-5, atol=1e-7)

    run.state.exp_avg.fill_(1e-35)
    run.state.stopped[3] = 1101
    for _ in range(SWEEP):
        run.step.update(torch.ones(6, dtype=torch.bool), nothing)
    moments = StackedVAE(run.vae.architecture, run.state.exp_avg)
    assert [bool(moments.slot(model).flat.any()) for model in range(6)] == [
        model == 3 for model in range(6)
    ]


def test_one_engine_continues_where_another_stopped() -> None:
    setup = config(hidden=(64, 32))
    whole, first = Run(setup, "torch"), Run(setup, "reference")
    for t in range(1, 21):
        whole.go(t)
    for t in range(1, 11):
        first.go(t)
    second = Run(setup, "torch")
    second.state.load({name: tensor.clone() for name, tensor in first.state.tensors().items()})
    for t in range(11, 21):
        found = second.go(t)
    expected = Run(setup, "torch")
    for t in range(1, 21):
        loss = expected.go(t)
    torch.testing.assert_close(found, loss, rtol=1e-4, atol=0.0)
    assert second.state.steps.item() == 20


def test_a_state_that_does_not_fit_is_refused_and_nothing_changes() -> None:
    run = Run(config(), "torch")
    run.go(1)
    before = {name: tensor.clone() for name, tensor in run.state.tensors().items()}
    other = Run(config(hidden=(8,)), "torch").state.tensors()
    with pytest.raises(ValueError, match="parameters: got"):
        run.state.load(other)
    with pytest.raises(ValueError, match="state: got"):
        run.state.load({name: other[name] for name in ("parameters", "stopped")})
    for name, tensor in run.state.tensors().items():
        assert torch.equal(tensor, before[name])
