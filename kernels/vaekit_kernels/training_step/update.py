"""The step's update kernels: Adam on the biases, and the weights' gradient with Adam in one.

    g = x^T g_out over the samples
    a <- b1 a + (1 - b1) g,   q <- b2 q + (1 - b2) g^2
    w <- w - lr / (1 - b1^t) a / (sqrt(q) / sqrt(1 - b2^t) + eps)

A weight's gradient is never stored: its program holds it in registers and reads and writes w, a and
q once, 24 bytes a parameter, which is what bounds a stack that is larger than the cache.

`finish_kernel` takes one model a program: it adds the partial sums up, counts the step, stops the
model if its terms or the norm of its biases' gradient are not finite (see `vaekit.adam.healthy`),
and updates the biases. `weights_kernel` runs after it and reads both. A weight gradient is known
there only: a program whose norm is not finite leaves its weights alone and notes -t in `stopped`,
which `finish_kernel` turns into t at the next step. In the step that it is noted, as no program
waits for another, the model's biases and its other weights are updated, whichever of them comes
first.

Source: Kingma and Ba 2015, arXiv:1412.6980, algorithm 1.
"""

from __future__ import annotations

import triton
import triton.language as tl

from vaekit_kernels.elementary import exp_and_expm1

from .product import columns_times

_BETA1 = tl.constexpr(0.9)
_BETA2 = tl.constexpr(0.999)
_LOG_BETA1 = tl.constexpr(-0.10536051565782628)
_LOG_BETA2 = tl.constexpr(-0.0010005003335835335)
_EPSILON = tl.constexpr(1e-8)
_UNROLLED = tl.constexpr(16)


@triton.jit
def _rates(learning_rate_ptr, step):
    """Step size lr / (1 - b1^t) and 1 / sqrt(1 - b2^t); t as float32 is exact to 2**24."""
    t = step.to(tl.float32)
    _, minus_first = exp_and_expm1(t * _LOG_BETA1)
    _, minus_second = exp_and_expm1(t * _LOG_BETA2)
    rate = tl.load(learning_rate_ptr).to(tl.float32)
    return rate / -minus_first, 1.0 / tl.sqrt(-minus_second)


@triton.jit
def _adam(w_ptr, avg_ptr, sq_ptr, offsets, mask, grad, rate, correction):
    w = tl.load(w_ptr + offsets, mask=mask, other=0.0)
    avg = tl.load(avg_ptr + offsets, mask=mask, other=0.0)
    sq = tl.load(sq_ptr + offsets, mask=mask, other=0.0)
    avg = tl.fma(avg, _BETA1, (1.0 - _BETA1) * grad)
    sq = tl.fma(sq, _BETA2, (1.0 - _BETA2) * grad * grad)
    w = tl.fma(avg / tl.fma(tl.sqrt(sq), correction, _EPSILON), -rate, w)
    tl.store(w_ptr + offsets, w, mask=mask)
    tl.store(avg_ptr + offsets, avg, mask=mask)
    tl.store(sq_ptr + offsets, sq, mask=mask)
    return w


@triton.jit
def _sum_tiles(columns_ptr, offs, mask, TILES: tl.constexpr, T):
    total = tl.zeros(offs.shape, tl.float32)
    # Unrolled, so that no load waits for the one before; but not thousands of them.
    if TILES <= _UNROLLED:
        for tile in tl.static_range(TILES):
            total += tl.load(columns_ptr + tile * T + offs, mask=mask, other=0.0)
    else:
        for tile in range(TILES):
            total += tl.load(columns_ptr + tile * T + offs, mask=mask, other=0.0)
    return total


@triton.jit(do_not_specialize_on_alignment=("stopped_ptr", "learning_rate_ptr"))
def finish_kernel(
    # outputs
    nll_ptr,  # [M, B]
    stopped_ptr,  # [M]: the step that stopped it, 0 while it trains; -t from `weights_kernel`
    count_ptr,  # [M]: updates made; this one is counted
    bias_ptr,  # [M, T]
    avg_ptr,
    sq_ptr,
    # inputs
    nll_parts_ptr,  # [M, NLL_TILES, B]
    kl_ptr,  # [M, B]
    columns_ptr,  # [M, TILES, T]
    learning_rate_ptr,  # [M]
    # sizes and scalars
    batch,
    T,
    constant,  # P/2 ln(2 pi v), and 0 for Bernoulli
    NLL_TILES: tl.constexpr,
    TILES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Add up, stop what is not finite, count the step, update the biases."""
    model = tl.program_id(0).to(tl.int64)
    columns_ptr += model * TILES * T
    # Anything that is not finite leaves a sum that is not.
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, batch, BLOCK):
        offs = start + tl.arange(0, BLOCK)
        mask = offs < batch
        nll = _sum_tiles(nll_parts_ptr + model * NLL_TILES * batch, offs, mask, NLL_TILES, batch)
        tl.store(nll_ptr + model * batch + offs, nll + constant, mask=mask)
        total += nll + tl.load(kl_ptr + model * batch + offs, mask=mask, other=0.0)
    for start in range(0, T, BLOCK):
        offs = start + tl.arange(0, BLOCK)
        grad = _sum_tiles(columns_ptr, offs, offs < T, TILES, T)
        total += grad * grad
    whole = tl.sum(total, 0)
    step = tl.load(count_ptr + model) + 1
    tl.store(count_ptr + model, step)
    stopped = tl.abs(tl.load(stopped_ptr + model))
    stopped = tl.where((stopped == 0) & (whole - whole != 0.0), step, stopped)
    tl.store(stopped_ptr + model, stopped)
    rate, correction = _rates(learning_rate_ptr + model, step)
    # A stopped model has nothing to update.
    for start in range(0, tl.where(stopped == 0, T, 0), BLOCK):
        offs = start + tl.arange(0, BLOCK)
        mask = offs < T
        grad = _sum_tiles(columns_ptr, offs, mask, TILES, T)
        _adam(bias_ptr, avg_ptr, sq_ptr, model * T + offs, mask, grad, rate, correction)


@triton.jit
def _halves(x, ROWS: tl.constexpr, COLS: tl.constexpr):
    """Cut a block [ROWS, COLS] into its left and its right half."""
    return tl.split(tl.permute(tl.reshape(x, (ROWS, 2, COLS // 2)), (0, 2, 1)))


# One kernel for any batch: all alignment comes from the padded sizes. And one for any part of a
# stack, whose labels may begin anywhere.
@triton.jit(
    do_not_specialize=("batch",),
    do_not_specialize_on_alignment=("stopped_ptr", "learning_rate_ptr"),
)
def weights_kernel(
    # outputs
    w_ptr,  # all layers [M, K, N] one after the other
    avg_ptr,
    sq_ptr,
    rounded_ptr,  # the updated weights once more, for products in bfloat16, or None
    stopped_ptr,  # [M]: more than 0 where nothing is to be updated
    # inputs
    activations_ptr,  # what layers read [M / share, B, K] and gradients of what they give [M, B, N]
    count_ptr,  # [M]: updates made, this one included
    learning_rate_ptr,  # [M]
    layers_ptr,  # [LAYERS, 7] int64: first program, K, N, models that share x, and where x, the
    #              gradient and w start
    # sizes
    batch,
    LAYERS: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_B: tl.constexpr,
    PARTS: tl.constexpr,  # 1 or 2, in which Adam goes over the columns
):
    """Update weights by a gradient that is made here: all layers of all models in one launch."""
    pid = tl.program_id(0)
    layer = 0
    for index in tl.static_range(1, LAYERS):
        layer = tl.where(pid >= tl.load(layers_ptr + index * 7), index, layer)
    row = layers_ptr + layer * 7
    # Rows are padded, so that every one starts where 128 bits can be loaded.
    K = tl.multiple_of(tl.load(row + 1).to(tl.int32), 16)
    N = tl.multiple_of(tl.load(row + 2).to(tl.int32), 16)
    share = tl.load(row + 3).to(tl.int32)
    x_start = tl.multiple_of(tl.load(row + 4), 16)
    grad_start = tl.multiple_of(tl.load(row + 5), 16)
    w_start = tl.multiple_of(tl.load(row + 6), 16)
    place = pid - tl.load(row).to(tl.int32)
    tiles_n = tl.cdiv(N, BLOCK_N)
    tiles = tl.cdiv(K, BLOCK_K) * tiles_n
    model = (place // tiles).to(tl.int64)
    tile = place % tiles
    offs_k = tile // tiles_n * BLOCK_K + tl.arange(0, BLOCK_K)
    first_n = tile % tiles_n * BLOCK_N
    offs_n = first_n + tl.arange(0, BLOCK_N)
    grad = columns_times(
        activations_ptr + x_start + model // share * batch * K,
        activations_ptr + grad_start + model * batch * N,
        batch, offs_k, offs_n, K, N, BLOCK_B, BLOCK_K, BLOCK_N, PRECISION,
    )  # fmt: skip
    step = tl.load(count_ptr + model)
    # Of the flat tile: along one axis of a product Triton 3.6 cannot sum for Blackwell.
    norm = tl.sum(grad * grad)
    finite = norm - norm == 0.0
    # Another program's -t must not be told from 0 here, or the order of the programs would show.
    trains = tl.load(stopped_ptr + model) <= 0
    tl.store(stopped_ptr + model, -step, mask=trains & (norm - norm != 0.0))
    rows = tl.where(trains & finite, K, 0)
    rate, correction = _rates(learning_rate_ptr + model, step)
    # One half after the other takes fewer registers, so that more programs are there to wait for
    # memory in turn.
    if PARTS == 2:
        left, right = _halves(grad, BLOCK_K, BLOCK_N)
    else:
        left, right = grad, grad
    # Where a model's weight starts may lie beyond 2**31, its values do not.
    start = w_start + model * (K * N)
    for part in tl.static_range(PARTS):
        offs_n = first_n + part * (BLOCK_N // PARTS) + tl.arange(0, BLOCK_N // PARTS)
        mask = (offs_k < rows)[:, None] & (offs_n < N)[None, :]
        offsets = offs_k[:, None] * N + offs_n[None, :]
        grad = left if part == 0 else right
        w = _adam(
            w_ptr + start, avg_ptr + start, sq_ptr + start, offsets, mask, grad, rate, correction
        )
        if rounded_ptr is not None:
            rounded = w.to(rounded_ptr.dtype.element_ty)
            tl.store(rounded_ptr + start + offsets, rounded, mask=mask)
