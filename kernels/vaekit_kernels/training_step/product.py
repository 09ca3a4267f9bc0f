"""The matrix product inside the step's kernels, and how it is rounded.

    ieee    float32 as it stands, without tensor cores
    tf32x3  float32 as three products of tf32, of each operand's 10 leading bits and of its next 10
    tf32    operands rounded to 10 bits of mantissa inside the product, float32 sums
    bf16    operands rounded to 7 bits, float32 sums; activations are stored as bfloat16 too

Rows of everything that a product reads are padded to multiples of PAD values, so that each starts
at a multiple of 16 bytes and is loaded 128 bits at a time: rows of 441 floats would leave not one
such load. The padding holds zeros, and the kernels keep it so.

Without tensor cores a product reads its right operand from shared memory by columns, many at once.
Of a transposed matrix they start whole rows apart, in the same banks, and are read one after the
other. So g W^T is made there as the transpose of W g^T, from a copy of g that its kernel leaves
with the samples last.
"""

from __future__ import annotations

from typing import Literal

import torch
import triton
import triton.language as tl

Precision = Literal["ieee", "tf32x3", "tf32", "bf16"]
PAD = 16


def padded(width: int) -> int:
    """Round a row's length up to whole PADs."""
    return -(-width // PAD) * PAD


def storage(precision: Precision) -> torch.dtype:
    """Dtype that activations and their gradients are stored in."""
    return torch.bfloat16 if precision == "bf16" else torch.float32


@triton.jit
def _dot(a, b, acc, PRECISION: tl.constexpr):
    if PRECISION == "bf16":
        acc = tl.dot(a.to(tl.bfloat16), b.to(tl.bfloat16), acc)
    else:
        acc = tl.dot(a, b, acc, input_precision=PRECISION)
    return acc


@triton.jit
def rows_times(
    x_ptr, w_ptr, offs_b, mask_b, offs_n,
    K: tl.constexpr, N,
    BLOCK_B: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Multiply x [B, K] by w [K, N], at rows offs_b and columns offs_n."""
    acc = tl.zeros((BLOCK_B, BLOCK_N), tl.float32)
    for start in range(0, K, BLOCK_K):
        offs_k = start + tl.arange(0, BLOCK_K)
        x_mask = mask_b[:, None] & (offs_k < K)[None, :]
        x = tl.load(x_ptr + offs_b[:, None] * K + offs_k[None, :], mask=x_mask, other=0.0)
        w_mask = (offs_k < K)[:, None] & (offs_n < N)[None, :]
        w = tl.load(w_ptr + offs_k[:, None] * N + offs_n[None, :], mask=w_mask, other=0.0)
        acc = _dot(x, w, acc, PRECISION)
    return acc


@triton.jit
def rows_times_transposed(
    g_ptr, w_ptr, offs_b, mask_b, offs_k,
    K: tl.constexpr, N: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Multiply g [B, N] by the transpose of w [K, N], at rows offs_b and columns offs_k."""
    acc = tl.zeros((BLOCK_B, BLOCK_K), tl.float32)
    for start in range(0, N, BLOCK_N):
        offs_n = start + tl.arange(0, BLOCK_N)
        g_mask = mask_b[:, None] & (offs_n < N)[None, :]
        g = tl.load(g_ptr + offs_b[:, None] * N + offs_n[None, :], mask=g_mask, other=0.0)
        w_mask = (offs_k < K)[:, None] & (offs_n < N)[None, :]
        w = tl.load(w_ptr + offs_k[:, None] * N + offs_n[None, :], mask=w_mask, other=0.0)
        acc = _dot(g, tl.trans(w), acc, PRECISION)
    return acc


@triton.jit
def store_transposed(gt_ptr, grad, offs_b, offs_n, stride, N: tl.constexpr):
    """Store a block of a gradient [B, N], which is zero beyond B, as columns of [N, stride]."""
    mask = (offs_n < N)[:, None] & (offs_b < stride)[None, :]
    tl.store(gt_ptr + offs_n[:, None] * stride + offs_b[None, :], tl.trans(grad), mask=mask)


@triton.jit
def columns_times(
    x_ptr, g_ptr, batch, offs_k, offs_n,
    K, N,
    BLOCK_B: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Multiply the transpose of x [B, K] by g [B, N], at rows offs_k and columns offs_n."""
    acc = tl.zeros((BLOCK_K, BLOCK_N), tl.float32)
    for start in range(0, batch, BLOCK_B):
        offs_b = start + tl.arange(0, BLOCK_B)
        x_mask = (offs_b < batch)[:, None] & (offs_k < K)[None, :]
        x = tl.load(x_ptr + offs_b[:, None] * K + offs_k[None, :], mask=x_mask, other=0.0)
        g_mask = (offs_b < batch)[:, None] & (offs_n < N)[None, :]
        g = tl.load(g_ptr + offs_b[:, None] * N + offs_n[None, :], mask=g_mask, other=0.0)
        acc = _dot(tl.trans(x), g, acc, PRECISION)
    return acc
