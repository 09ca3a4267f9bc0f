"""Ways to train M small VAEs without a compiler: vaekit's engine and three that people write."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn

from bench.problem import Block, Problem
from vaekit.block import Labels, Replay, train_steps
from vaekit.engine import make_step
from vaekit.model import Layer, StackedVAE, mlp
from vaekit.parts import Replayable
from vaekit.products import fast_products, float32_products
from vaekit.step import ReferenceStep, Step
from vaekit_kernels import reference


def trained_by(step: Step, problem: Problem) -> Block:
    """Train with one of the package's engines."""
    if isinstance(step, Replayable) and problem.device.type == "cuda":
        return _replayed(step, problem)

    def block() -> Tensor:
        with torch.no_grad(), fast_products(problem.device):
            for images, noise in zip(problem.images, problem.noise, strict=True):
                nll, kl = step(images, noise, problem.beta)
        return (nll + problem.beta[:, None] * kl).mean(1)

    return block


def _replayed(step: Replayable, problem: Problem) -> Block:
    """Train a block as the package does on a card: as one CUDA graph, once it has been run."""
    labels = Labels(torch.zeros(1), problem.seeds[:1], problem.seeds, problem.beta)
    given = problem.images, problem.noise, problem.beta.repeat(problem.steps, 1)
    replay = Replay(
        lambda t: train_steps(problem.config, labels, step, t, given),
        problem.device,
        problem.steps,
    )

    def block() -> Tensor:
        with torch.no_grad():
            return replay(range(1, problem.steps + 1))[-1, 2].clone()

    return block


def vaekit_engine(problem: Problem) -> Block:
    """Train with the engine that vaekit chooses on the problem's device."""
    return trained_by(make_step(problem.config, problem.state(), streams=1), problem)


def vaekit_bf16(problem: Problem) -> Block:
    """Train as `vaekit_engine`, with products of bfloat16."""
    config = problem.config.model_copy(update={"precision": "bf16"})
    return trained_by(make_step(config, problem.state(), streams=1), problem)


def vaekit_compiled(problem: Problem) -> Block:
    """Train with the engine that vaekit takes on a CPU for a sweep that is long enough."""
    config = problem.config.model_copy(update={"engine": "compiled"})

    @cache
    def built() -> Block:
        return trained_by(make_step(config, problem.state(), streams=1), problem)

    # Built in the first block, as what other peers compile is.
    return lambda: built()()


def definition(problem: Problem) -> Block:
    """Train as the objective is defined: what every peer must agree with."""
    block = trained_by(ReferenceStep(problem.config, problem.state()), problem)

    def in_float32() -> Tensor:
        with float32_products("highest"):
            return block()

    return in_float32


def stacked_losses(
    problem: Problem, parameters: list[Tensor], images: Tensor, noise: Tensor
) -> Tensor:
    """Loss [M] of stacked parameters [M, ...], with torch's operations alone."""
    layers: list[Layer] = list(zip(parameters[::2], parameters[1::2], strict=True))
    half = len(layers) // 2
    x = images.expand(problem.models, *images.shape[1:])
    mean, logvar = mlp(layers[:half], x).chunk(2, dim=-1)
    z, kl = reference.reparameterise(mean, logvar, noise)
    variance = problem.config.decoder_variance
    nll = reference.pixel_nll(mlp(layers[half:], z), images, decoder_variance=variance)
    return (nll + problem.beta[:, None] * kl).mean(1)


def stacked_autograd(problem: Problem, losses: Callable[..., Tensor] = stacked_losses) -> Block:
    """Train stacked tensors with autograd and fused Adam, PyTorch's defaults otherwise.

    Args:
        problem: what to train on.
        losses: takes the place of `stacked_losses`.
    """
    parameters = [
        piece.clone().requires_grad_() for layer in problem.stack().layers for piece in layer
    ]
    adam = torch.optim.Adam(
        parameters,
        lr=problem.config.learning_rate,
        fused=True,
        # As it must be in a CUDA graph.
        capturable=problem.device.type == "cuda",
    )

    def block() -> Tensor:
        for images, noise in zip(problem.images, problem.noise, strict=True):
            found = losses(problem, parameters, images, noise)
            adam.zero_grad()
            found.sum().backward()
            adam.step()
        return found.detach()

    return block


def with_fast_products(block: Block, device: torch.device) -> Block:
    """Train a block with float32 products by the library that vaekit takes."""

    def trained() -> Tensor:
        with fast_products(device):
            return block()

    return trained


def stacked_autograd_fast(problem: Problem) -> Block:
    """Train as `stacked_autograd`, with float32 products by the library that vaekit takes."""
    return with_fast_products(stacked_autograd(problem), problem.device)


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


def plain_modules(problem: Problem) -> list[PlainVAE]:
    """Make a module of each model of a problem."""
    stack = problem.stack()
    return [PlainVAE(stack, index).to(problem.device) for index in range(problem.models)]


def one_after_another(problem: Problem, program: Callable[..., Tensor] | None = None) -> Block:
    """Train one plain module after another, each with fused Adam.

    Args:
        problem: what to train on.
        program: takes the place of `PlainVAE.forward`.
    """
    forward = program or PlainVAE.forward
    modules = plain_modules(problem)
    rate = problem.config.learning_rate
    adams = [torch.optim.Adam(module.parameters(), lr=rate, fused=True) for module in modules]

    def block() -> Tensor:
        losses = []
        for index, (module, adam) in enumerate(zip(modules, adams, strict=True)):
            for images, noise in zip(problem.images, problem.noise, strict=True):
                loss = forward(
                    module,
                    images[0],
                    noise[index],
                    problem.beta[index],
                    problem.config.decoder_variance,
                )
                adam.zero_grad()
                loss.backward()
                adam.step()
            losses.append(loss.detach())
        return torch.stack(losses)

    return block


def functional_vmap(problem: Problem) -> Block:
    """Train with torch.func: stacked module state, vmap of the gradient, fused Adam."""
    modules = plain_modules(problem)
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
