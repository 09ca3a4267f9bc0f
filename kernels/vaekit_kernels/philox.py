"""Counter-based noise: Philox4x32-10 words and the normals and uniforms made from them.

A draw is a pure function of five named numbers, so it depends neither on the size of a stack, nor
on a model's place in it, nor on what was drawn before:

    key      the 64-bit seed
    counter  (element, step, id, stream)

`element` numbers the groups of four values inside one draw: a block of `rows` x `cols` values gives
every row ceil(cols / 4) groups of its own, so row r is the same whatever the number of rows. `step`
is the training step, `id` tells the data streams or models of a seed apart, and `stream` says what
the noise is for. One counter yields four words, four uniforms or four normals.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

import math
from enum import IntEnum

import torch
from torch import Tensor

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
WORD = 0xFFFFFFFF
# 24 bits are what a float32 holds exactly: the uniforms are the same numbers on every machine.
UNIFORM_SHIFT = 8
UNIFORM_SCALE = 2.0**-24


class Stream(IntEnum):
    """What a draw is for: the last counter word."""

    IMAGE_TRUTH = 0
    IMAGE_NOISE = 1
    LATENT = 2
    WEIGHT = 3
    EVALUATION_TRUTH = 4
    EVALUATION_NOISE = 5
    EVALUATION_LATENT = 6
    PROBE = 7


def float_ids(values: Tensor) -> Tensor:
    """Number floats for the counter's id field by their float32 bit pattern (-0.0 counts as 0.0).

    Args:
        values: any shape; two values that differ in float32 get different ids.

    Returns:
        int64 tensor of the same shape, each in [0, 2**32).
    """
    return (values.to(torch.float32) + 0.0).view(torch.int32).to(torch.int64) & WORD


def philox4x32(
    seed: Tensor | int, c0: Tensor, c1: Tensor | int, c2: Tensor | int, c3: Tensor | int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ten rounds of Philox4x32.

    Args:
        seed: 64-bit key as int64 (its bits count, so negative values are keys too).
        c0, c1, c2, c3: counter words in [0, 2**32); tensors are int64 and broadcast with the seed.

    Returns:
        Four int64 tensors, each holding 32-bit words in [0, 2**32).
    """
    device = c0.device
    key = torch.as_tensor(seed, dtype=torch.int64, device=device)
    k0, k1 = key & WORD, (key >> 32) & WORD
    x0: Tensor = c0
    x1, x2, x3 = (torch.as_tensor(c, dtype=torch.int64, device=device) for c in (c1, c2, c3))
    for _ in range(ROUNDS):
        # int64 products wrap, which keeps all 64 bits right; the mask drops the sign's copies.
        first, second = x0 * MULTIPLIERS[0], x2 * MULTIPLIERS[1]
        x0, x1, x2, x3 = (
            ((second >> 32) & WORD) ^ x1 ^ k0,
            second & WORD,
            ((first >> 32) & WORD) ^ x3 ^ k1,
            first & WORD,
        )
        k0, k1 = (k0 + KEY_STEPS[0]) & WORD, (k1 + KEY_STEPS[1]) & WORD
    return x0, x1, x2, x3


def _words(
    seeds: Tensor, ids: Tensor, step: int, stream: int, rows: int, cols: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    groups = math.ceil(cols / 4)
    if not 0 <= step <= WORD:
        raise ValueError(f"step: got {step}; allowed: 0 to {WORD}")
    if rows * groups > WORD:
        raise ValueError(f"rows x cols: got {rows} x {cols}; allowed: fewer than 2**34 values")
    element = torch.arange(rows * groups, device=seeds.device)
    return philox4x32(seeds[:, None], element, step, ids[:, None], int(stream))


def _lanes(lanes: tuple[Tensor, ...], rows: int, cols: int) -> Tensor:
    """Interleave the four lanes of every counter and cut each row to its length."""
    block = torch.stack(lanes, dim=-1).view(lanes[0].shape[0], rows, -1)
    return block[:, :, :cols].contiguous()


def uniforms(seeds: Tensor, ids: Tensor, step: int, stream: int, rows: int, cols: int) -> Tensor:
    """Uniforms k / 2**24 in [0, 1).

    Args:
        seeds: [S] int64 keys.
        ids: [S] int64 in [0, 2**32).
        step: in [0, 2**32).
        stream: what the draw is for.
        rows, cols: size of the block that each (seed, id) draws.

    Returns:
        [S, rows, cols] float32.

    Raises:
        ValueError: step or the block does not fit its counter field.
    """
    lanes = _words(seeds, ids, step, stream, rows, cols)
    uniform = tuple((w >> UNIFORM_SHIFT).to(torch.float32) * UNIFORM_SCALE for w in lanes)
    return _lanes(uniform, rows, cols)


def normals(seeds: Tensor, ids: Tensor, step: int, stream: int, rows: int, cols: int) -> Tensor:
    """Standard normals by Box-Muller, both branches used.

    With words (w0, w1): radius sqrt(-2 ln((w0 >> 8) + 1) / 2**24), angle 2 pi (w1 >> 8) / 2**24;
    lanes 0 and 1 are its cosine and sine branch, lanes 2 and 3 those of (w2, w3). The largest
    magnitude is sqrt(48 ln 2) = 5.77.

    Args and raises: as `uniforms`.

    Returns:
        [S, rows, cols] float32.
    """
    w0, w1, w2, w3 = _words(seeds, ids, step, stream, rows, cols)
    lanes: list[Tensor] = []
    for radius_word, angle_word in ((w0, w1), (w2, w3)):
        uniform = ((radius_word >> UNIFORM_SHIFT) + 1).to(torch.float32) * UNIFORM_SCALE
        radius = uniform.log_().mul_(-2.0).sqrt_()
        angle = (angle_word >> UNIFORM_SHIFT).to(torch.float32) * (2.0 * math.pi * UNIFORM_SCALE)
        lanes += [radius * torch.cos(angle), radius * torch.sin(angle)]
    return _lanes(tuple(lanes), rows, cols)
