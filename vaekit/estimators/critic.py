"""Bounds on mutual information by trained critics, one critic a model, all of a stack at once.

The first half of the draws trains a critic, the next quarter says when to stop, and the last one is
what it is scored on: on its own training draws a critic proves information that is not there.
Batches are taken in the order of the draws, and a pair that belongs to nobody is a truth with the
code of another row, so that the only noise is the initial weights'.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from vaekit.model import Layer, mlp
from vaekit_kernels import Stream
from vaekit_kernels.philox import uniforms

HIDDEN = (64, 64)
EMBEDDING = 32
STEPS = 1500
BATCH = 512
# The matrix of scores is quadratic in the batch.
INFONCE_BATCH = 256
INFONCE_STEPS = 1000
CHECK_STEPS = 100
LEARNING_RATE = 1e-3
# Weight of a batch in the running mean of exp(T), as Belghazi et al. have it.
EMA = 0.01
# Ids of the PROBE stream from here on are the critics'; the linear probe's lie below.
FIRST_ID = 2**16


def mine(truth: Tensor, code: Tensor, seeds: Tensor, *, steps: int | None = None) -> Tensor:
    """Estimate I(truth; code) by MINE, the Donsker-Varadhan bound of a trained critic T.

        I >= E_joint[T] - ln E_product[e^T]

    The gradient of the second term has a running mean in its denominator, which takes most of the
    bias of small batches out of it.

    Args:
        truth: [M, N, F].
        code: [M, N, L].
        seeds: [M] int64.
        steps: Adam steps; `STEPS` unless given.

    Returns:
        nats [M], scored on held-out draws.

    Source: Belghazi et al. 2018, arXiv:1801.04062, equations 10 and 12.
    """
    z, c = _standard(truth), _standard(code)
    width = z.shape[2] + c.shape[2]
    layers = _initial(seeds, (width, *HIDDEN, 1), FIRST_ID)
    running = torch.zeros(len(seeds), device=code.device)

    def both(z: Tensor, c: Tensor, offset: int) -> tuple[Tensor, Tensor]:
        other = c.roll(offset, dims=1)
        joint = mlp(layers, torch.cat((z, c), dim=-1))[..., 0]
        product = mlp(layers, torch.cat((z, other), dim=-1))[..., 0]
        return joint, product

    def loss(z: Tensor, c: Tensor, step: int) -> Tensor:
        nonlocal running
        joint, product = both(z, c, 1 + step % (z.shape[1] - 1))
        partition = product.exp().mean(dim=1)
        share = 1.0 if step == 0 else EMA
        running = (1.0 - share) * running + share * partition.detach()
        return (partition / running - joint.mean(dim=1)).sum()

    def score(z: Tensor, c: Tensor) -> Tensor:
        joint, product = both(z, c, 1)
        rows = z.shape[1]
        return joint.mean(dim=1) - torch.logsumexp(product, dim=1) + math.log(rows)

    return _train(z, c, layers, loss, score, steps or STEPS, min(BATCH, z.shape[1] // 2))


def infonce(
    truth: Tensor,
    code: Tensor,
    seeds: Tensor,
    *,
    batch: int = INFONCE_BATCH,
    steps: int | None = None,
) -> Tensor:
    """Estimate I(truth; code) by InfoNCE: how well a critic finds each truth's own code.

        I >= E ln [ e^f(z, c) / (1/B sum_b e^f(z, c_b)) ],  f(z, c) = g(z) . h(c)

    It cannot exceed ln B.

    Args:
        truth: [M, N, F].
        code: [M, N, L].
        seeds: [M] int64.
        batch: B, in training and in scoring; at most a quarter of the draws.
        steps: Adam steps; `INFONCE_STEPS` unless given.

    Returns:
        nats [M], scored on held-out draws.

    Source: van den Oord et al. 2018, arXiv:1807.03748; Poole et al. 2019, arXiv:1905.06922.
    """
    z, c = _standard(truth), _standard(code)
    first = _initial(seeds, (z.shape[2], *HIDDEN, EMBEDDING), FIRST_ID + 16)
    second = _initial(seeds, (c.shape[2], *HIDDEN, EMBEDDING), FIRST_ID + 32)

    def gain(z: Tensor, c: Tensor) -> Tensor:
        scores = mlp(first, z) @ mlp(second, c).transpose(1, 2)
        own = scores.diagonal(dim1=1, dim2=2)
        return (own - torch.logsumexp(scores, dim=2)).mean(dim=1) + math.log(z.shape[1])

    def score(z: Tensor, c: Tensor) -> Tensor:
        whole = z.shape[1] // batch * batch
        parts = zip(z[:, :whole].split(batch, 1), c[:, :whole].split(batch, 1), strict=True)
        return torch.stack([gain(*part) for part in parts]).mean(dim=0)

    steps = steps or INFONCE_STEPS
    return _train(z, c, first + second, lambda z, c, _: -gain(z, c).sum(), score, steps, batch)


def _standard(values: Tensor) -> Tensor:
    """Bring columns to mean 0 and variance 1; those that do not vary become 0."""
    values = values.float()
    centred = values - values.mean(dim=1, keepdim=True)
    scale = centred.square().mean(dim=1, keepdim=True).sqrt()
    return torch.where(scale > 0, centred / scale.clamp(min=1e-30), 0.0)


def _initial(seeds: Tensor, widths: Sequence[int], first_id: int) -> list[Layer]:
    """Draw the layers of every model's critic as torch.nn.Linear does."""
    layers = []
    for index, (fan_in, fan_out) in enumerate(pairwise(widths)):
        ids = torch.full_like(seeds, first_id + index)
        draw = uniforms(seeds, ids, 0, Stream.PROBE, fan_in + 1, fan_out)
        draw = draw.mul_(2.0).sub_(1.0).div_(math.sqrt(fan_in))
        weight, bias = draw[:, :-1].contiguous(), draw[:, -1].contiguous()
        layers.append((weight.requires_grad_(), bias.requires_grad_()))
    return layers


def _train(
    truth: Tensor,
    code: Tensor,
    layers: list[Layer],
    loss: Callable[[Tensor, Tensor, int], Tensor],
    score: Callable[[Tensor, Tensor], Tensor],
    steps: int,
    batch: int,
) -> Tensor:
    """Train on half of the rows, stop by a quarter, score on the other; each model for itself."""
    half, quarter = truth.shape[1] // 2, truth.shape[1] // 4
    choose, held = slice(half, half + quarter), slice(half + quarter, half + 2 * quarter)
    adam = torch.optim.Adam([piece for layer in layers for piece in layer], lr=LEARNING_RATE)
    batches = half // batch
    best = truth.new_full((truth.shape[0],), -torch.inf)
    found = torch.zeros_like(best)
    for step in range(steps + 1):
        if step % CHECK_STEPS == 0 or step == steps:
            with torch.no_grad():
                chosen = score(truth[:, choose], code[:, choose])
                found = torch.where(chosen > best, score(truth[:, held], code[:, held]), found)
                best = torch.maximum(best, chosen)
        start = step % batches * batch
        rows = slice(start, start + batch)
        adam.zero_grad()
        with torch.enable_grad():
            loss(truth[:, rows], code[:, rows], step).backward()
        adam.step()
    return found.double()
