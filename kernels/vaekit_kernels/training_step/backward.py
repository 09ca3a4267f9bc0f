"""The step's backward kernels: gradients of a hidden layer and of the latents.

    hidden   g_h = g W^T where h > 0
    latents  g_z = g W^T;  g_m and g_v from it and from beta KL / B (see `latent`)

A program takes BLOCK_B samples of one model and BLOCK_K columns (all of them, for the latents) and
also leaves the sums of its columns, the partial gradient of the biases, in [M, tiles, T].
"""

from __future__ import annotations

import triton
import triton.language as tl

from vaekit_kernels.elementary import exp_and_expm1

from .forward import place
from .product import rows_times, rows_times_transposed, store_transposed


@triton.jit
def hidden_gradient_kernel(
    # outputs
    grad_h_ptr,  # [M, B, K]
    transposed_h_ptr,  # the same once more, [M, K, stride], or None
    columns_ptr,  # [M, tiles, T], at the layer that made h
    # inputs
    grad_ptr,  # [M, B, N]
    transposed_ptr,  # the same, [M, N, stride], or None
    w_ptr,  # [M, K, N]
    h_ptr,  # [M, B, K]
    # sizes
    batch,
    stride,
    T,
    tiles,  # of samples that `columns` has room for
    K: tl.constexpr,
    N: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Compute g W^T where h > 0."""
    tiles_b = tl.cdiv(batch, BLOCK_B)
    model, tile_b, tile_k = place(tiles_b, tl.cdiv(K, BLOCK_K))
    offs_b = tile_b * BLOCK_B + tl.arange(0, BLOCK_B)
    mask_b = offs_b < batch
    offs_k = tile_k * BLOCK_K + tl.arange(0, BLOCK_K)
    mask = mask_b[:, None] & (offs_k < K)[None, :]
    if transposed_ptr is not None:
        grad = tl.trans(rows_times(
            w_ptr + model * (K * N), transposed_ptr + model * N * stride,
            offs_k, offs_k < K, offs_b, N, stride, BLOCK_K, BLOCK_B, BLOCK_N, PRECISION,
        ))  # fmt: skip
    else:
        grad = rows_times_transposed(
            grad_ptr + model * batch * N, w_ptr + model * (K * N), offs_b, mask_b, offs_k,
            K, N, BLOCK_B, BLOCK_K, BLOCK_N, PRECISION,
        )  # fmt: skip
    offsets = model * batch * K + offs_b[:, None] * K + offs_k[None, :]
    h = tl.load(h_ptr + offsets, mask=mask, other=0.0)
    grad = tl.where(h > 0.0, grad, 0.0)
    tl.store(grad_h_ptr + offsets, grad.to(grad_h_ptr.dtype.element_ty), mask=mask)
    if transposed_h_ptr is not None:
        transposed_h_ptr += model * K * stride
        store_transposed(transposed_h_ptr, grad, offs_b, offs_k, stride, K)
    tl.store(columns_ptr + (model * tiles + tile_b) * T + offs_k, tl.sum(grad, 0), mask=offs_k < K)


@triton.jit(do_not_specialize_on_alignment=("beta_ptr",))
def latent_gradient_kernel(
    # outputs
    grad_stats_ptr,  # [M, B, 2 LP]: of mean, then of logvar
    transposed_stats_ptr,  # the same once more, [M, 2 LP, stride], or None
    columns_ptr,  # [M, tiles, T], at the encoder's last layer
    # inputs
    grad_ptr,  # [M, B, N]
    w_ptr,  # [M, LP, N]
    stats_ptr,  # [M, B, 2 LP]
    noise_ptr,  # [M, B, LP]
    beta_ptr,  # [M]
    # sizes and scalars
    batch,
    stride,
    T,
    tiles,  # of samples that `columns` has room for
    per_sample,  # 1 / B
    SAMPLE: tl.constexpr,
    L: tl.constexpr,
    LP: tl.constexpr,
    N: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_L: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Compute the gradients of mean and logvar."""
    tiles_b = tl.cdiv(batch, BLOCK_B)
    model, tile_b, _ = place(tiles_b, 1)
    offs_b = tile_b * BLOCK_B + tl.arange(0, BLOCK_B)
    mask_b = offs_b < batch
    offs_l = tl.arange(0, BLOCK_L)
    held = mask_b[:, None] & (offs_l < LP)[None, :]
    mask = mask_b[:, None] & (offs_l < L)[None, :]
    grad_z = rows_times_transposed(
        grad_ptr + model * batch * N, w_ptr + model * (LP * N), offs_b, mask_b, offs_l,
        LP, N, BLOCK_B, BLOCK_L, BLOCK_N, PRECISION,
    )  # fmt: skip
    rows = model * batch * (2 * LP) + offs_b[:, None] * (2 * LP) + offs_l[None, :]
    mean = tl.load(stats_ptr + rows, mask=held, other=0.0)
    logvar = tl.load(stats_ptr + rows + LP, mask=held, other=0.0)
    noise_ptr += model * batch * LP + offs_b[:, None] * LP + offs_l[None, :]
    noise = tl.load(noise_ptr, mask=held, other=0.0)
    weight = tl.load(beta_ptr + model) * per_sample
    std, _ = exp_and_expm1(0.5 * logvar)
    if SAMPLE:
        grad_mean = tl.fma(weight, tl.fma(std, noise, mean), grad_z)
        grad_logvar = 0.5 * tl.fma(grad_mean * noise, std, -weight)
    else:
        _, excess = exp_and_expm1(logvar)
        grad_mean = tl.fma(weight, mean, grad_z)
        grad_logvar = 0.5 * tl.fma(grad_z * noise, std, weight * excess)
    grad_mean = tl.where(mask, grad_mean, 0.0)
    grad_logvar = tl.where(mask, grad_logvar, 0.0)
    dtype = grad_stats_ptr.dtype.element_ty
    tl.store(grad_stats_ptr + rows, grad_mean.to(dtype), mask=held)
    tl.store(grad_stats_ptr + rows + LP, grad_logvar.to(dtype), mask=held)
    if transposed_stats_ptr is not None:
        transposed_stats_ptr += model * (2 * LP) * stride
        store_transposed(transposed_stats_ptr, grad_mean, offs_b, offs_l, stride, LP)
        transposed_stats_ptr += LP * stride
        store_transposed(transposed_stats_ptr, grad_logvar, offs_b, offs_l, stride, LP)
    columns_ptr += (model * tiles + tile_b) * T + offs_l
    tl.store(columns_ptr, tl.sum(grad_mean, 0), mask=offs_l < LP)
    tl.store(columns_ptr + LP, tl.sum(grad_logvar, 0), mask=offs_l < LP)
