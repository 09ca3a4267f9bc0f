"""The Triton half of `philox`: the same words, uniforms and normals, made inside a kernel.

Words agree with `philox.philox4x32` in every bit. Normals agree to 4e-6: the logarithm, the square
root and the two trigonometric series round their own way. This module imports Triton, so only the
kernel modules import it.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .philox import KEY_STEPS, MULTIPLIERS, ROUNDS, UNIFORM_SCALE, UNIFORM_SHIFT

_MULTIPLIER_0 = tl.constexpr(MULTIPLIERS[0])
_MULTIPLIER_1 = tl.constexpr(MULTIPLIERS[1])
_KEY_STEP_0 = tl.constexpr(KEY_STEPS[0])
_KEY_STEP_1 = tl.constexpr(KEY_STEPS[1])
_ROUNDS = tl.constexpr(ROUNDS)
_SHIFT = tl.constexpr(UNIFORM_SHIFT)
_SCALE = tl.constexpr(UNIFORM_SCALE)
_TWO_THIRDS = tl.constexpr(0x3F2AAAAB)  # the bits of 2/3 in float32
_EXPONENT = tl.constexpr(-0x800000)
_ONE = tl.constexpr(0x3F800000)
_MANTISSA = tl.constexpr(0x7FFFFF)
_SIGN = tl.constexpr(-0x80000000)


@triton.jit
def philox4x32(seed, c0, c1, c2, c3):
    """Ten rounds of Philox4x32: seed int64, counter words uint32; returns four uint32 blocks."""
    k0 = seed.to(tl.uint32)
    k1 = (seed >> 32).to(tl.uint32)
    for _ in tl.static_range(_ROUNDS):
        # A product of two 32-bit words in 64 bits is one instruction; its halves are free.
        first = c0.to(tl.uint64) * _MULTIPLIER_0
        second = c2.to(tl.uint64) * _MULTIPLIER_1
        c0 = (second >> 32).to(tl.uint32) ^ c1 ^ k0
        c2 = (first >> 32).to(tl.uint32) ^ c3 ^ k1
        c1 = second.to(tl.uint32)
        c3 = first.to(tl.uint32)
        k0 += _KEY_STEP_0
        k1 += _KEY_STEP_1
    return c0, c1, c2, c3


@triton.jit
def _minus_two_log(u):
    """-2 ln u of float32 u in [2**-24, 1], to a relative error of 3e-7, also just below 1.

    u = 2**e (1 + f) with f in [-1/3, 1/3); the series is a minimax fit of
    (2 f - 2 ln(1 + f)) / f^2.
    The kernels' generator is bound by its instructions: this takes two thirds of those of `tl.log`,
    which has special cases to look after.
    """
    bits = u.to(tl.int32, bitcast=True)
    exponent = (bits - _TWO_THIRDS) & _EXPONENT
    f = (bits - exponent).to(tl.float32, bitcast=True) - 1.0
    q = tl.fma(f, -0.28052533, 0.30777150)
    q = tl.fma(f, q, -0.27991650)
    q = tl.fma(f, q, 0.32831907)
    q = tl.fma(f, q, -0.40022334)
    q = tl.fma(f, q, 0.50015643)
    q = tl.fma(f, q, -0.66666394)
    q = tl.fma(f, q, 0.99999875)
    # The exponent is still shifted left by 23 bits: -2 ln 2 * 2**-23 shifts it back.
    tail = tl.fma(f * f, q, -2.0 * f)
    return tl.fma(exponent.to(tl.float32), -1.6525917e-07, tail)


@triton.jit
def _box_muller(radius_word, angle_word):
    """Both branches of Box-Muller from two words: radius times cosine, radius times sine."""
    u = ((radius_word >> _SHIFT) + 1).to(tl.int32).to(tl.float32) * _SCALE
    radius = tl.sqrt(_minus_two_log(u))
    # The angle is 2 pi times the word's top 24 bits. The first of them is half a turn: it flips the
    # sign of both branches. The other 23 are half turns h in [0, 1), read as the mantissa of 1 + h,
    # and with t = h - 1/2 the cosine is -sin(pi t), the sine cos(pi t). All of it is exact.
    sign = angle_word.to(tl.int32, bitcast=True) & _SIGN
    fraction = ((angle_word >> _SHIFT).to(tl.int32, bitcast=True) & _MANTISSA) | _ONE
    t = fraction.to(tl.float32, bitcast=True) - 1.5
    t2 = t * t
    # Minimax fits of -sin(pi t) / t and cos(pi t) over [-1/2, 1/2): errors below 5e-8.
    s = tl.fma(t2, -0.07722012, 0.59804517)
    s = tl.fma(t2, s, -2.5500314)
    s = tl.fma(t2, s, 5.1677070)
    s = tl.fma(t2, s, -3.1415925)
    c = tl.fma(t2, 0.21969679, -1.3318802)
    c = tl.fma(t2, c, 4.0584121)
    c = tl.fma(t2, c, -4.9347930)
    c = tl.fma(t2, c, 0.99999996)
    radius = (radius.to(tl.int32, bitcast=True) ^ sign).to(tl.float32, bitcast=True)
    return radius * (t * s), radius * c


@triton.jit
def normals(seed, element, step, label, STREAM: tl.constexpr):
    """Standard normals of a block of counters.

    Args:
        seed: int64 scalar.
        element: [R, G] uint32.
        step, label: uint32 scalars.
        STREAM: what the noise is for.

    Returns:
        [R, 4 G] float32, the four lanes of each counter side by side.
    """
    zero = element * 0
    w0, w1, w2, w3 = philox4x32(seed, element, zero + step, zero + label, zero + STREAM)
    n0, n1 = _box_muller(w0, w1)
    n2, n3 = _box_muller(w2, w3)
    # One reshape is one pass through shared memory; a chain of `tl.interleave` would be three.
    lanes = tl.join(tl.join(n0, n2), tl.join(n1, n3))
    return tl.reshape(lanes, (element.shape[0], 4 * element.shape[1]))
