"""Exponential functions that the kernels share, in forms that overflow at neither end.

`tl.exp` and `tl.sigmoid` are not enough: the first loses accuracy in proportion to its argument
(the argument times log2(e) is rounded) and guards denormal results, which costs three instructions;
the second takes exp(-x), which overflows below -88.
"""

from __future__ import annotations

import triton
import triton.language as tl

_LOG2E = tl.constexpr(1.4426950408889634)
# ln 2 in two parts: n times the first is exact for |n| < 256 (Cody and Waite).
_LN2_HIGH = tl.constexpr(0.693359375)
_LN2_LOW = tl.constexpr(-2.12194440e-4)
# Below this exp is 0 in float32; the clamp keeps the reduced argument small for any input.
_LOWEST = tl.constexpr(-104.0)


@triton.jit
def exp_and_expm1(x):
    """exp(x) and exp(x) - 1, both to a few units in the last place, from one series.

    x = n ln 2 + r with |r| <= ln(2) / 2 and a Taylor series for exp(r) - 1. Infinite above 88.7;
    a NaN stays one.
    """
    x = tl.where(x < _LOWEST, _LOWEST, x)
    n = tl.floor(tl.fma(x, _LOG2E, 0.5))
    n = tl.where(n > 127.0, 127.0, n)
    r = tl.fma(n, -_LN2_HIGH, x)
    r = tl.fma(n, -_LN2_LOW, r)
    p = tl.fma(r, 1.0 / 5040, 1.0 / 720)
    p = tl.fma(r, p, 1.0 / 120)
    p = tl.fma(r, p, 1.0 / 24)
    p = tl.fma(r, p, 1.0 / 6)
    p = tl.fma(r, p, 0.5)
    p = tl.fma(r * r, p, r)
    scale = tl.exp2(n)
    return tl.fma(scale, p, scale), tl.fma(scale, p, scale - 1.0)


@triton.jit
def _exp_minus_abs(x):
    """exp(-|x|), for uses in which an error of 2e-8 of the largest value, 1, is nothing."""
    return tl.exp2(tl.abs(x) * -_LOG2E)


@triton.jit
def sigmoid(x):
    """1 / (1 + exp(-x))."""
    e = _exp_minus_abs(x)
    r = 1.0 / (1.0 + e)
    return tl.where(x >= 0, r, e * r)


@triton.jit
def sigmoid_and_slope(x):
    """sigmoid(x) and its derivative e / (1 + e)^2 with e = exp(-|x|), exact at saturation too."""
    e = _exp_minus_abs(x)
    r = 1.0 / (1.0 + e)
    return tl.where(x >= 0, r, e * r), e * r * r


@triton.jit
def softplus_tail(x):
    """ln(1 + exp(-|x|)), what softplus(x) is more than max(x, 0).

    With e = exp(-|x|) it is 2 artanh(s), s = e / (2 + e) in [0, 1/3]: the series keeps the relative
    accuracy where e is tiny and needs no logarithm.
    """
    e = _exp_minus_abs(x)
    s = e / (2.0 + e)
    s2 = s * s
    p = tl.fma(s2, 2.0 / 15, 2.0 / 13)
    p = tl.fma(s2, p, 2.0 / 11)
    p = tl.fma(s2, p, 2.0 / 9)
    p = tl.fma(s2, p, 2.0 / 7)
    p = tl.fma(s2, p, 2.0 / 5)
    p = tl.fma(s2, p, 2.0 / 3)
    p = tl.fma(s2, p, 2.0)
    return s * p
