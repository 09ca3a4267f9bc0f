"""The step's forward kernels: a hidden layer, the latents with their KL, the output with its NLL.

    hidden   h = max(x W + b, 0)
    latents  m, v = x W + b;  z = m + exp(v/2) e;  KL of each sample (see `latent`)
    output   a = h W + b;  -log p(x|z) of each sample and g_a = d(-log p)/da / B (see `pixel`)

A program takes BLOCK_B samples of one model and BLOCK_N columns (all of them, for the latents). The
decoder's output a is never stored: its gradient is made where it is made. A sum over pixels that
spans programs is left as one partial sum a program, so no two write to one place: the NLL as
[M, tiles, B], the column sums of gradients, which are the biases' gradients, as [M, tiles, T].
"""

from __future__ import annotations

import triton
import triton.language as tl

from vaekit_kernels.elementary import exp_and_expm1, sigmoid_and_slope, softplus_tail
from vaekit_kernels.philox_triton import normals

from .product import rows_times, store_transposed


@triton.jit
def place(tiles_b, tiles_n):
    """Model (as int64), tile of samples and tile of columns of this program: models slowest."""
    pid = tl.program_id(0)
    model = pid // (tiles_b * tiles_n)
    rest = pid % (tiles_b * tiles_n)
    return model.to(tl.int64), rest // tiles_n, rest % tiles_n


@triton.jit
def hidden_kernel(
    # output
    h_ptr,  # [M, B, N]
    # inputs
    x_ptr,  # [M / models_per_x, B, K]
    w_ptr,  # [M, K, N]
    bias_ptr,  # [M, T], at this layer
    # sizes
    batch,
    models_per_x,
    T,
    K: tl.constexpr,
    N: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Compute h = max(x W + b, 0)."""
    model, tile_b, tile_n = place(tl.cdiv(batch, BLOCK_B), tl.cdiv(N, BLOCK_N))
    offs_b = tile_b * BLOCK_B + tl.arange(0, BLOCK_B)
    mask_b = offs_b < batch
    offs_n = tile_n * BLOCK_N + tl.arange(0, BLOCK_N)
    mask_n = offs_n < N
    x_ptr += model // models_per_x * batch * K
    h = rows_times(
        x_ptr, w_ptr + model * (K * N), offs_b, mask_b, offs_n,
        K, N, BLOCK_B, BLOCK_N, BLOCK_K, PRECISION,
    )  # fmt: skip
    h += tl.load(bias_ptr + model * T + offs_n, mask=mask_n, other=0.0)[None, :]
    # Not tl.maximum: a NaN must go on, or a model that blew up would pass for a healthy one.
    h = tl.where(h <= 0.0, 0.0, h)
    h_ptr += model * batch * N + offs_b[:, None] * N + offs_n[None, :]
    tl.store(h_ptr, h.to(h_ptr.dtype.element_ty), mask=mask_b[:, None] & mask_n[None, :])


@triton.jit(do_not_specialize_on_alignment=("given_ptr", "seeds_ptr", "ids_ptr", "steps_ptr"))
def latent_kernel(
    # outputs
    stats_ptr,  # [M, B, 2 LP]: mean, then logvar
    noise_ptr,  # [M, B, LP]
    z_ptr,  # [M, B, LP]
    kl_ptr,  # [M, B]
    # inputs
    x_ptr,  # [M / models_per_x, B, K]
    w_ptr,  # [M, K, 2 LP]
    bias_ptr,  # [M, T], at this layer
    given_ptr,  # noise [M, B, L], or None
    seeds_ptr,  # labels of noise to draw [M], or None
    ids_ptr,
    steps_ptr,
    # sizes
    batch,
    models_per_x,
    T,
    STREAM: tl.constexpr,
    SAMPLE: tl.constexpr,
    L: tl.constexpr,
    LP: tl.constexpr,
    K: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_L: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Compute the posterior, draw z from it, and charge its KL."""
    model, tile_b, _ = place(tl.cdiv(batch, BLOCK_B), 1)
    offs_b = tile_b * BLOCK_B + tl.arange(0, BLOCK_B)
    mask_b = offs_b < batch
    offs_l = tl.arange(0, BLOCK_L)
    mask = mask_b[:, None] & (offs_l < L)[None, :]
    x_ptr += model // models_per_x * batch * K
    w_ptr += model * (K * 2 * LP)
    bias_ptr += model * T + offs_l
    mean = rows_times(
        x_ptr, w_ptr, offs_b, mask_b, offs_l, K, 2 * LP, BLOCK_B, BLOCK_L, BLOCK_K, PRECISION
    )
    logvar = rows_times(
        x_ptr, w_ptr, offs_b, mask_b, LP + offs_l, K, 2 * LP, BLOCK_B, BLOCK_L, BLOCK_K, PRECISION
    )
    mean += tl.load(bias_ptr, mask=offs_l < L, other=0.0)[None, :]
    logvar += tl.load(bias_ptr + LP, mask=offs_l < L, other=0.0)[None, :]
    # Past the last latent lie other columns' products: zeros there keep the padding zero.
    mean = tl.where(mask, mean, 0.0)
    logvar = tl.where(mask, logvar, 0.0)
    if given_ptr is None:
        seed = tl.load(seeds_ptr + model)
        label = tl.load(ids_ptr + model).to(tl.uint32)
        step = tl.load(steps_ptr + model).to(tl.uint32)
        offs_g = tl.arange(0, BLOCK_L // 4)
        element = offs_b[:, None] * ((L + 3) // 4) + offs_g[None, :]
        noise = tl.where(mask, normals(seed, element.to(tl.uint32), step, label, STREAM), 0.0)
    else:
        given_ptr += model * batch * L + offs_b[:, None] * L + offs_l[None, :]
        noise = tl.load(given_ptr, mask=mask, other=0.0)
    std, _ = exp_and_expm1(0.5 * logvar)
    z = tl.fma(std, noise, mean)
    if SAMPLE:
        term = z * z - noise * noise - logvar
    else:
        _, excess = exp_and_expm1(logvar)
        term = tl.fma(mean, mean, excess - logvar)
    tl.store(kl_ptr + model * batch + offs_b, 0.5 * tl.sum(term, 1), mask=mask_b)
    held = mask_b[:, None] & (offs_l < LP)[None, :]
    offsets = model * batch * LP + offs_b[:, None] * LP + offs_l[None, :]
    tl.store(z_ptr + offsets, z.to(z_ptr.dtype.element_ty), mask=held)
    tl.store(noise_ptr + offsets, noise, mask=held)
    stats_ptr += model * batch * 2 * LP + offs_b[:, None] * (2 * LP) + offs_l[None, :]
    tl.store(stats_ptr, mean, mask=held)
    tl.store(stats_ptr + LP, logvar, mask=held)


@triton.jit
def output_kernel(
    # outputs
    grad_ptr,  # [M, B, N]
    transposed_ptr,  # the same once more, [M, N, stride], or None
    columns_ptr,  # [M, tiles, T], at this layer
    nll_ptr,  # [M, tiles, B]
    # inputs
    h_ptr,  # [M, B, K]
    w_ptr,  # [M, K, N]
    bias_ptr,  # [M, T], at this layer
    image_ptr,  # [M / models_per_image, B, N]
    # sizes and scalars
    batch,
    stride,
    models_per_image,
    T,
    tiles,  # of samples that `columns` has room for
    factor,  # 1 / (2 v), and 1 for Bernoulli
    grad_factor,  # 1 / (v B), and 1 / B for Bernoulli
    P: tl.constexpr,
    K: tl.constexpr,
    N: tl.constexpr,
    BERNOULLI: tl.constexpr,
    LINEAR: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Compute the NLL and its gradient by the decoder's output."""
    tiles_b = tl.cdiv(batch, BLOCK_B)
    tiles_n = tl.cdiv(N, BLOCK_N)
    model, tile_b, tile_n = place(tiles_b, tiles_n)
    offs_b = tile_b * BLOCK_B + tl.arange(0, BLOCK_B)
    mask_b = offs_b < batch
    offs_n = tile_n * BLOCK_N + tl.arange(0, BLOCK_N)
    held = mask_b[:, None] & (offs_n < N)[None, :]
    mask = mask_b[:, None] & (offs_n < P)[None, :]
    a = rows_times(
        h_ptr + model * batch * K, w_ptr + model * (K * N), offs_b, mask_b, offs_n,
        K, N, BLOCK_B, BLOCK_N, BLOCK_K, PRECISION,
    )  # fmt: skip
    a += tl.load(bias_ptr + model * T + offs_n, mask=offs_n < N, other=0.0)[None, :]
    offsets = offs_b[:, None] * N + offs_n[None, :]
    x = tl.load(image_ptr + model // models_per_image * batch * N + offsets, mask=mask, other=0.0)
    x = x.to(tl.float32)
    y, slope = sigmoid_and_slope(a)
    if BERNOULLI:
        # max(a, 0) - a x in one piece: apart they cancel where a is large and x is 1.
        term = tl.fma(a, tl.where(a > 0, 1.0, 0.0) - x, softplus_tail(a))
        grad = (y - x) * grad_factor
    elif LINEAR:
        term = (a - x) * (a - x)
        grad = (a - x) * grad_factor
    else:
        term = (y - x) * (y - x)
        grad = (y - x) * slope * grad_factor
    term = tl.where(mask, term, 0.0)
    grad = tl.where(mask, grad, 0.0)
    tl.store(
        nll_ptr + (model * tiles_n + tile_n) * batch + offs_b, factor * tl.sum(term, 1), mask=mask_b
    )
    tl.store(columns_ptr + (model * tiles + tile_b) * T + offs_n, tl.sum(grad, 0), mask=offs_n < N)
    grad_ptr += model * batch * N + offsets
    tl.store(grad_ptr, grad.to(grad_ptr.dtype.element_ty), mask=held)
    if transposed_ptr is not None:
        transposed_ptr += model * N * stride
        store_transposed(transposed_ptr, grad, offs_b, offs_n, stride, N)
