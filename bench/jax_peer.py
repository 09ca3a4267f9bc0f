"""The nearest peer, in JAX, which is an optional dependency."""

from __future__ import annotations

import importlib.util
import math
from functools import partial

import torch
from torch import Tensor

from bench.problem import Block, Problem


def jax_elsewhere(device: torch.device) -> dict[str, str]:
    """Say why JAX is left out on a card that it does not see; nothing where there is no reason."""
    if device.type == "cpu" or importlib.util.find_spec("jax") is None:
        return {}
    import jax

    if jax.default_backend() == "gpu":
        return {}
    return {"JAX vmap + scan": f"this jax computes on {jax.default_backend()}, not on the card"}


def jax_vmap_scan(problem: Problem) -> Block:
    """Train with JAX: vmap over the models, lax.scan over the steps, one compiled program."""
    import jax
    import jax.numpy as jnp

    config = problem.config
    stack = problem.stack()
    half = len(stack.encoder)
    tree = jax.tree_util.tree_map
    layers = [(jnp.array(w.cpu().numpy()), jnp.array(b.cpu().numpy())) for w, b in stack.layers]

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
        m = tree(lambda a, g: 0.9 * a + 0.1 * g, m, grads)
        v = tree(lambda a, g: 0.999 * a + 0.001 * g * g, v, grads)
        rate = config.learning_rate * jnp.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        # eps is scaled so that this is torch's Adam: sqrt(v / c2) + eps.
        scaled = 1e-8 * jnp.sqrt(1 - 0.999**t)
        model = tree(lambda p, a, b: p - rate * a / (jnp.sqrt(b) + scaled), model, m, v)
        return model, m, v, value

    stacked = jax.vmap(one, in_axes=(0, 0, 0, None, None, 0, 0))
    beta = jnp.asarray(problem.beta.cpu().numpy())

    # What a block begins with is not needed after it, so the next state may take its memory.
    @partial(jax.jit, donate_argnums=0)
    def train(state, images, noise):  # noqa: ANN001, ANN202
        def body(carry, data):  # noqa: ANN001, ANN202
            model, m, v, t = carry
            model, m, v, value = stacked(model, m, v, t + 1, data[0], data[1], beta)
            return (model, m, v, t + 1), value

        return jax.lax.scan(body, state, (images, noise))

    images = jnp.asarray(problem.images[:, 0].cpu().numpy())
    noise = jnp.asarray(problem.noise.cpu().numpy())
    state = [(layers, tree(jnp.zeros_like, layers), tree(jnp.zeros_like, layers), jnp.array(0.0))]

    # Its own default rounds to tf32 on some cards.
    rounding = {"float32": "float32", "tf32": "tensorfloat32"}[config.precision]

    def block() -> Tensor:
        with jax.default_matmul_precision(rounding):
            state[0], values = train(state[0], images, noise)
        return torch.from_numpy(jax.device_get(values[-1]).copy()).to(problem.device)

    return block
