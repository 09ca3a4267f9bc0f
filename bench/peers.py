"""The ways to train M small VAEs that people use today, each on the same problem.

Every peer trains the same networks from the same initial weights on the same images and noise with
the same Adam, so after the same number of steps all must stand at the same losses. `check` holds
them to that before anything is timed.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from vaekit.config import SweepConfig
from vaekit.data import draw
from vaekit.model import StackedVAE
from vaekit.objective import latent_noise
from vaekit.products import fast_products
from vaekit.state import State
from vaekit.step import ReferenceStep, TorchStep

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Problem:
    """M models of one data stream, and a block of T steps of images and noise to train them on."""

    config: SweepConfig
    steps: int

    @cached_property
    def models(self) -> int:
        """Number of models."""
        return len(self.config.beta)

    @cached_property
    def beta(self) -> Tensor:
        """Beta of each model, [M]."""
        return torch.tensor(self.config.beta)

    @cached_property
    def seeds(self) -> Tensor:
        """Seed of each model, [M]."""
        return torch.zeros(self.models, dtype=torch.int64)

    @cached_property
    def images(self) -> Tensor:
        """Images of every step, shared by the models: [T, 1, B, P]."""
        mu = torch.tensor(self.config.mu[:1])
        return torch.stack(
            [
                draw(self.config, mu, self.seeds[:1], t, batch=self.config.batch)[0]
                for t in range(1, self.steps + 1)
            ]
        )

    @cached_property
    def noise(self) -> Tensor:
        """Noise of every step: [T, M, B, L]."""
        return torch.stack(
            [latent_noise(self.config, self.seeds, self.beta, t) for t in range(1, self.steps + 1)]
        )

    def stack(self) -> StackedVAE:
        """Return the models untrained."""
        return StackedVAE.initial(self.config, self.seeds)

    def state(self) -> State:
        """Return the models before their first step."""
        return State.initial(self.stack(), self.config.learning_rate)


# A peer is made ready once and then trains the problem's block of steps each time it is called,
# returning the loss of every model at the block's last step.
Block = Callable[[], Tensor]


def vaekit_torch(problem: Problem) -> Block:
    """Train with vaekit's CPU engine: stacked, backward pass written out, fastest products."""
    step = TorchStep(problem.config, problem.state(), streams=1)

    def block() -> Tensor:
        with torch.no_grad(), fast_products(CPU):
            for images, noise in zip(problem.images, problem.noise, strict=True):
                nll, kl = step(images, noise, problem.beta)
        return (nll + problem.beta[:, None] * kl).mean(1)

    return block


def stacked_autograd(problem: Problem) -> Block:
    """Train stacked tensors with autograd and fused Adam, PyTorch's defaults otherwise."""
    step = ReferenceStep(problem.config, problem.state())

    def block() -> Tensor:
        for images, noise in zip(problem.images, problem.noise, strict=True):
            nll, kl = step(images, noise, problem.beta)
        return (nll + problem.beta[:, None] * kl).mean(1)

    return block


class PlainVAE(nn.Module):
    """One VAE as anyone writes it."""

    def __init__(self, vae: StackedVAE, index: int) -> None:
        super().__init__()
        self.encoder = _sequential(vae.encoder, index)
        self.decoder = _sequential(vae.decoder, index)

    def forward(self, x: Tensor, noise: Tensor, beta: Tensor, variance: float) -> Tensor:
        """Return the loss: mean over samples of the Gaussian NLL and beta times the KL."""
        mean, logvar = self.encoder(x).chunk(2, dim=-1)
        z = mean + torch.exp(0.5 * logvar) * noise
        y = torch.sigmoid(self.decoder(z))
        nll = (x - y).square().sum(-1) / (2 * variance)
        nll = nll + 0.5 * x.shape[-1] * math.log(2 * math.pi * variance)
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum(-1)
        return (nll + beta * kl).mean()


def _sequential(layers: list[tuple[Tensor, Tensor]], index: int) -> nn.Sequential:
    modules: list[nn.Module] = []
    for weight, bias in layers:
        linear = nn.Linear(*weight.shape[1:])
        linear.weight.data.copy_(weight[index].T)
        linear.bias.data.copy_(bias[index])
        modules += [linear, nn.ReLU()]
    return nn.Sequential(*modules[:-1])


def one_after_another(problem: Problem) -> Block:
    """Train one plain module after another, each with fused Adam."""
    stack = problem.stack()
    modules = [PlainVAE(stack, index) for index in range(problem.models)]
    rate = problem.config.learning_rate
    adams = [torch.optim.Adam(module.parameters(), lr=rate, fused=True) for module in modules]

    def block() -> Tensor:
        losses = []
        for index, (module, adam) in enumerate(zip(modules, adams, strict=True)):
            for images, noise in zip(problem.images, problem.noise, strict=True):
                loss = module(
                    images[0], noise[index], problem.beta[index], problem.config.decoder_variance
                )
                adam.zero_grad()
                loss.backward()
                adam.step()
            losses.append(loss.detach())
        return torch.stack(losses)

    return block


def functional_vmap(problem: Problem) -> Block:
    """Train with torch.func: stacked module state, vmap of the gradient, fused Adam."""
    stack = problem.stack()
    modules = [PlainVAE(stack, index) for index in range(problem.models)]
    parameters, _ = torch.func.stack_module_state(modules)
    base = copy.deepcopy(modules[0]).to("meta")
    variance = problem.config.decoder_variance

    def loss(state: dict[str, Tensor], x: Tensor, noise: Tensor, beta: Tensor) -> Tensor:
        return torch.func.functional_call(base, state, (x, noise, beta, variance))

    gradient = torch.func.vmap(torch.func.grad_and_value(loss), in_dims=(0, None, 0, 0))
    adam = torch.optim.Adam(parameters.values(), lr=problem.config.learning_rate, fused=True)

    def block() -> Tensor:
        for images, noise in zip(problem.images, problem.noise, strict=True):
            with torch.no_grad():
                detached = {name: value.detach() for name, value in parameters.items()}
            grads, values = gradient(detached, images[0], noise, problem.beta)
            for name, value in parameters.items():
                value.grad = grads[name]
            adam.step()
        return values.detach()

    return block


def jax_vmap_scan(problem: Problem) -> Block:
    """Train with JAX: vmap over the models, lax.scan over the steps, one compiled program."""
    import jax
    import jax.numpy as jnp

    config = problem.config
    stack = problem.stack()
    half = len(stack.encoder)
    layers = [(jnp.asarray(w.numpy()), jnp.asarray(b.numpy())) for w, b in stack.layers]

    def mlp(part: list, x: jax.Array) -> jax.Array:
        for index, (weight, bias) in enumerate(part):
            x = x @ weight + bias
            x = jax.nn.relu(x) if index < len(part) - 1 else x
        return x

    def loss(model: list, x: jax.Array, noise: jax.Array, beta: jax.Array) -> jax.Array:
        mean, logvar = jnp.split(mlp(model[:half], x), 2, axis=-1)
        z = mean + jnp.exp(0.5 * logvar) * noise
        y = jax.nn.sigmoid(mlp(model[half:], z))
        nll = ((x - y) ** 2).sum(-1) / (2 * config.decoder_variance)
        nll = nll + 0.5 * config.pixels * math.log(2 * math.pi * config.decoder_variance)
        kl = 0.5 * (mean**2 + jnp.exp(logvar) - 1 - logvar).sum(-1)
        return (nll + beta * kl).mean()

    def one(model: list, m: list, v: list, t: jax.Array, x, noise, beta):  # noqa: ANN001, ANN202
        value, grads = jax.value_and_grad(loss)(model, x, noise, beta)
        tree = jax.tree_util.tree_map
        m = tree(lambda a, g: 0.9 * a + 0.1 * g, m, grads)
        v = tree(lambda a, g: 0.999 * a + 0.001 * g * g, v, grads)
        rate = config.learning_rate * jnp.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        # eps is scaled so that this is torch's Adam: sqrt(v / c2) + eps.
        scaled = 1e-8 * jnp.sqrt(1 - 0.999**t)
        model = tree(lambda p, a, b: p - rate * a / (jnp.sqrt(b) + scaled), model, m, v)
        return model, m, v, value

    stacked = jax.vmap(one, in_axes=(0, 0, 0, None, None, 0, 0))
    beta = jnp.asarray(problem.beta.numpy())

    @jax.jit
    def train(state, images, noise):  # noqa: ANN001, ANN202
        def body(carry, data):  # noqa: ANN001, ANN202
            model, m, v, t = carry
            model, m, v, value = stacked(model, m, v, t + 1, data[0], data[1], beta)
            return (model, m, v, t + 1), value

        return jax.lax.scan(body, state, (images, noise))

    zeros = jax.tree_util.tree_map(jnp.zeros_like, layers)
    images = jnp.asarray(problem.images[:, 0].numpy())
    noise = jnp.asarray(problem.noise.numpy())
    state = [(layers, zeros, zeros, jnp.asarray(0.0))]

    def block() -> Tensor:
        state[0], values = train(state[0], images, noise)
        return torch.from_numpy(jax.device_get(values[-1]).copy())

    return block


PEERS: dict[str, Callable[[Problem], Block]] = {
    "vaekit": vaekit_torch,
    "stacked autograd": stacked_autograd,
    "torch.func vmap": functional_vmap,
    "one after another": one_after_another,
    "JAX vmap + scan": jax_vmap_scan,
}


def check(problem: Problem, peers: dict[str, Block]) -> dict[str, float]:
    """Train every peer one block and compare its losses with the reference's.

    Returns:
        The largest relative difference of a model's loss, by peer.

    Raises:
        AssertionError: a peer stands elsewhere than the reference: its times would mean nothing.
    """
    expected = stacked_autograd(problem)()
    errors = {
        name: float(((block() - expected).abs() / expected.abs()).max())
        for name, block in peers.items()
    }
    wrong = {name: error for name, error in errors.items() if not error <= 1e-4}
    if wrong:
        raise AssertionError(f"peers that do not train to the reference's losses: {wrong}")
    return errors
