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
from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

import torch
from torch import Tensor

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
WORD = 0xFFFFFFFF
# 24 bits are what a float32 holds exactly: the uniforms are the same numbers on every machine.
UNIFORM_SHIFT = 8
UNIFORM_SCALE = 2.0**-24
# About as many counters a piece are the quickest on a CPU where freed memory is kept: with fewer
# its threads wait for each other, with more the words leave the cache. 11 streams of 128 default
# images took 11.7 ns a pixel, and 13.4 by half as many, on two threads of an AMD EPYC.
CPU_COUNTERS = 2**18


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


class Draw(NamedTuple):
    """Labels of noise that is yet to be drawn, so that a kernel can draw it where it is used.

    Attributes:
        seeds: [M] int64 keys.
        ids: [M] int64 in [0, 2**32).
        step: in [0, 2**32), one for all or an int64 tensor [M].
        stream: what the noise is for.
    """

    seeds: Tensor
    ids: Tensor
    step: int | Tensor
    stream: int = Stream.LATENT

    def normals(self, rows: int, cols: int) -> Tensor:
        """Draw it: [M, rows, cols] float32."""
        return normals(self.seeds, self.ids, self.step, self.stream, rows, cols)

    def part(self, models: slice) -> Draw:
        """Take the labels of some models."""
        step = self.step[models] if isinstance(self.step, Tensor) else self.step
        return Draw(self.seeds[models], self.ids[models], step, self.stream)


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
    x1, x2, x3 = (torch.as_tensor(c, dtype=torch.int64, device=device) for c in (c1, c2, c3))
    # int64 products wrap, which keeps all 64 bits right.
    first, second = c0 * MULTIPLIERS[0], x2 * MULTIPLIERS[1]
    for _ in range(ROUNDS - 1):
        x0, x2 = _xor(second >> 32, x1, k0), _xor(first >> 32, x3, k1)
        x1, x3 = second, first
        first, second = x0.mul_(MULTIPLIERS[0]), x2.mul_(MULTIPLIERS[1])
        k0, k1 = (k0 + KEY_STEPS[0]) & WORD, (k1 + KEY_STEPS[1]) & WORD
    x0, x2 = _xor(second >> 32, x1, k0), _xor(first >> 32, x3, k1)
    return x0, second.bitwise_and_(WORD), x2, first.bitwise_and_(WORD)


def _xor(word: Tensor, other: Tensor, key: Tensor) -> Tensor:
    """Combine words by exclusive or, whose upper halves count for nothing: signs, or a product's.

    In place once the words have their full shape: half the time.
    """
    if _fits(other, word) and _fits(key, word):
        return word.bitwise_xor_(other).bitwise_xor_(key).bitwise_and_(WORD)
    return (word ^ other ^ key) & WORD


def _fits(other: Tensor, word: Tensor) -> bool:
    """Whether a tensor spreads to the shape that words have already.

    By hand: torch.broadcast_shapes loads SymPy, 0.6 s of every process on two threads of an EPYC.
    """
    lead = word.ndim - other.ndim
    return lead >= 0 and all(
        size in (1, full) for size, full in zip(other.shape, word.shape[lead:], strict=True)
    )


def _draw(
    lanes: Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]],
    seeds: Tensor,
    ids: Tensor,
    step: int | Tensor,
    stream: int,
    rows: int,
    cols: int,
) -> Tensor:
    """Draw the words of a block, map each counter's four to four values, and lay them out."""
    groups = math.ceil(cols / 4)
    if isinstance(step, int) and not 0 <= step <= WORD:
        raise ValueError(f"step: got {step}; allowed: 0 to {WORD}")
    if rows * groups > WORD:
        raise ValueError(f"rows x cols: got {rows} x {cols}; allowed: fewer than 2**34 values")
    steps = torch.as_tensor(step, dtype=torch.int64, device=seeds.device).expand_as(seeds)
    keys = torch.stack((seeds, steps, ids))[..., None]
    element = torch.arange(rows * groups, device=seeds.device)
    drawn = torch.empty(len(seeds), rows, cols, device=seeds.device)
    # A CPU draws in pieces whose words stay in its cache: twice as fast for a large block. A
    # compiled program keeps them in registers, and would repeat itself for every piece.
    whole = drawn.device.type != "cpu" or torch.compiler.is_compiling()
    piece = len(seeds) if whole else max(1, CPU_COUNTERS // len(element))
    for first in range(0, len(seeds), piece):
        seed, t, label = keys[:, first : first + piece]
        words = philox4x32(seed, element, t, label, int(stream))
        values = torch.stack(lanes(words), dim=-1).view(-1, rows, 4 * groups)
        drawn[first : first + piece] = values[:, :, :cols]
    return drawn


def uniforms(
    seeds: Tensor, ids: Tensor, step: int | Tensor, stream: int, rows: int, cols: int
) -> Tensor:
    """Uniforms k / 2**24 in [0, 1).

    Args:
        seeds: [S] int64 keys.
        ids: [S] int64 in [0, 2**32).
        step: in [0, 2**32), one for all or an int64 tensor [S].
        stream: what the draw is for.
        rows, cols: size of the block that each (seed, id) draws.

    Returns:
        [S, rows, cols] float32.

    Raises:
        ValueError: step or the block does not fit its counter field.
    """
    return _draw(_uniform, seeds, ids, step, stream, rows, cols)


def normals(
    seeds: Tensor, ids: Tensor, step: int | Tensor, stream: int, rows: int, cols: int
) -> Tensor:
    """Standard normals by Box-Muller, both branches used.

    With words (w0, w1): radius sqrt(-2 ln(((w0 >> 8) + 1) / 2**24)), angle 2 pi (w1 >> 8) / 2**24;
    lanes 0 and 1 are its cosine and sine branch, lanes 2 and 3 those of (w2, w3). The largest
    magnitude is sqrt(48 ln 2) = 5.77.

    Args and raises: as `uniforms`.

    Returns:
        [S, rows, cols] float32.
    """
    return _draw(_box_muller, seeds, ids, step, stream, rows, cols)


def _uniform(words: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple((w >> UNIFORM_SHIFT).to(torch.float32).mul_(UNIFORM_SCALE) for w in words)


def _box_muller(words: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    u0, u1, u2, u3 = _uniform(words)
    lanes: list[Tensor] = []
    for radius, angle in ((u0, u1), (u2, u3)):
        # u + 2**-24 is exact and lies in (0, 1], so the logarithm is finite.
        radius.add_(UNIFORM_SCALE).log_().mul_(-2.0).sqrt_()
        angle.mul_(2.0 * math.pi)
        lanes += [torch.cos(angle).mul_(radius), torch.sin(angle).mul_(radius)]
    return tuple(lanes)
