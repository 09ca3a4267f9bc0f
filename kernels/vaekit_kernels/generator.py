"""The generator's kernels: noisy tile images from their counters, and clean ones from intensities.

    x[s, b, p] = G(sigmoid(z[s, b]))[p] + sqrt(noise_variance) e[s, b, p],  z ~ N(mu_s, I)

`_sigmoid_grid_kernel`: one program makes BLOCK_B images of one stream: it draws their truths, looks
the intensity of each pixel's tile up, adds the noise, and writes each pixel once. It reads nothing
but S labels and writes 4 S B (P + F) bytes. `_render_kernel` is the look-up alone.

Neither keeps anything for a backward pass: images are data. `render` is linear, so its gradient is
the sum over each tile, which torch does.

Defined by `reference.sigmoid_grid` and `reference.render`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .arguments import check_constant, check_kernel, each_step
from .elementary import sigmoid
from .launch import on_device, pinned
from .philox import Stream
from .philox_triton import normals


@triton.jit
def _tile_of(cols, GRID: tl.constexpr, TILE: tl.constexpr):
    """Tile that each pixel of a row belongs to; the padding past the last pixel gets the last."""
    SIDE: tl.constexpr = GRID * TILE
    tile = cols // (SIDE * TILE) * GRID + cols % SIDE // TILE
    return tl.where(cols < SIDE * SIDE, tile, GRID * GRID - 1)


@triton.jit
def _sigmoid_grid_kernel(
    # outputs
    images_ptr,
    truth_ptr,
    # labels of the streams
    mu_ptr,
    seeds_ptr,
    ids_ptr,
    steps_ptr,
    # sizes and scalars
    batch,
    noise_scale,
    TRUTH_STREAM: tl.constexpr,
    NOISE_STREAM: tl.constexpr,
    GRID: tl.constexpr,
    TILE: tl.constexpr,
    LINEAR: tl.constexpr,
    NOISY: tl.constexpr,
    TRUTH_GROUPS: tl.constexpr,  # counters of a row of truths, rounded up to a power of two
    BLOCK_B: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    F: tl.constexpr = GRID * GRID
    P: tl.constexpr = GRID * GRID * TILE * TILE
    blocks = tl.cdiv(batch, BLOCK_B)
    stream = tl.program_id(0) // blocks
    offs_b = tl.program_id(0) % blocks * BLOCK_B + tl.arange(0, BLOCK_B)
    mask_b = (offs_b < batch)[:, None]
    mu = tl.load(mu_ptr + stream).to(tl.float32)
    seed = tl.load(seeds_ptr + stream)
    label = tl.load(ids_ptr + stream).to(tl.uint32)
    step = tl.load(steps_ptr + stream).to(tl.uint32)
    # A stream's block has fewer than 2**31 pixels; where it starts may lie beyond.
    images_ptr += stream.to(tl.int64) * batch * P
    truth_ptr += stream.to(tl.int64) * batch * F

    truths = offs_b[:, None] * ((F + 3) // 4) + tl.arange(0, TRUTH_GROUPS)[None, :]
    z = mu + normals(seed, truths.to(tl.uint32), step, label, TRUTH_STREAM)
    offs_f = tl.arange(0, 4 * TRUTH_GROUPS)[None, :]
    tl.store(truth_ptr + offs_b[:, None] * F + offs_f, z, mask=mask_b & (offs_f < F))
    intensity = z if LINEAR else sigmoid(z)

    for start in range(0, P, BLOCK_P):
        offs_p = start + tl.arange(0, BLOCK_P)
        tile = tl.broadcast_to(_tile_of(offs_p, GRID, TILE)[None, :], (BLOCK_B, BLOCK_P))
        pixel = tl.gather(intensity, tile, 1)
        if NOISY:
            offs_g = start // 4 + tl.arange(0, BLOCK_P // 4)
            element = offs_b[:, None] * ((P + 3) // 4) + offs_g[None, :]
            noise = normals(seed, element.to(tl.uint32), step, label, NOISE_STREAM)
            pixel = tl.fma(noise, noise_scale, pixel)
        offsets = offs_b[:, None] * P + offs_p[None, :]
        tl.store(images_ptr + offsets, pixel, mask=mask_b & (offs_p < P)[None, :])


@triton.jit
def _render_kernel(
    image_ptr,
    intensity_ptr,
    rows,
    GRID: tl.constexpr,
    TILE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    F: tl.constexpr = GRID * GRID
    P: tl.constexpr = GRID * GRID * TILE * TILE
    offs_n = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    offs_n = offs_n[:, None]
    for start in range(0, P, BLOCK_P):
        offs_p = (start + tl.arange(0, BLOCK_P))[None, :]
        mask = (offs_n < rows) & (offs_p < P)
        tile = _tile_of(offs_p, GRID, TILE)
        pixel = tl.load(intensity_ptr + offs_n * F + tile, mask=mask)
        tl.store(image_ptr + offs_n * P + offs_p, pixel, mask=mask)


class _Render(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, intensity: Tensor, grid: int, tile: int) -> Tensor:
        ctx.geometry = grid, tile
        lead = intensity.shape[:-1]
        pixels = (grid * tile) ** 2
        image = torch.empty(*lead, pixels, dtype=intensity.dtype, device=intensity.device)
        rows = lead.numel()
        launch = pinned("render", intensity.device)
        with on_device(intensity):
            _render_kernel[(triton.cdiv(rows, launch.rows),)](
                image,
                intensity,
                rows,
                GRID=grid,
                TILE=tile,
                BLOCK_N=launch.rows,
                BLOCK_P=launch.cols,
                **launch.options,
            )
        return image

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_image: Tensor) -> tuple[Tensor, None, None]:
        grid, tile = ctx.geometry
        tiles = grad_image.unflatten(-1, (grid, tile, grid, tile))
        return tiles.sum((-3, -1)).flatten(-2), None, None


def render(intensity: Tensor, *, grid: int, tile: int) -> Tensor:
    """`reference.render` as a kernel; arguments have been checked by the public op."""
    check_kernel(intensity=intensity)
    image: Tensor = _Render.apply(intensity, grid, tile)
    return image


def sigmoid_grid(
    mu: Tensor,
    seeds: Tensor,
    ids: Tensor,
    step: int | Tensor,
    *,
    batch: int,
    grid: int = 3,
    tile: int = 7,
    noise_variance: float = 0.25,
    linear: bool = False,
    truth_stream: int = Stream.IMAGE_TRUTH,
    noise_stream: int = Stream.IMAGE_NOISE,
) -> tuple[Tensor, Tensor]:
    """`reference.sigmoid_grid` as a kernel; arguments have been checked by the public op."""
    steps = each_step(step, len(mu), mu.device)
    check_kernel(mu=mu, seeds=seeds, ids=ids, step=steps)
    check_constant(mu=mu)
    streams, factors, pixels = len(mu), grid * grid, (grid * tile) ** 2
    images = torch.empty(streams, batch, pixels, dtype=torch.float32, device=mu.device)
    truth = torch.empty(streams, batch, factors, dtype=torch.float32, device=mu.device)
    launch = pinned("sigmoid_grid", mu.device)
    with on_device(mu):
        _sigmoid_grid_kernel[(streams * triton.cdiv(batch, launch.rows),)](
            images,
            truth,
            mu,
            seeds,
            ids,
            steps,
            batch,
            math.sqrt(noise_variance),
            TRUTH_STREAM=int(truth_stream),
            NOISE_STREAM=int(noise_stream),
            GRID=grid,
            TILE=tile,
            LINEAR=linear,
            NOISY=noise_variance > 0,
            # A gather from fewer is none that Triton 3.6 can compile.
            TRUTH_GROUPS=max(4, triton.next_power_of_2(-(-factors // 4))),
            BLOCK_B=launch.rows,
            BLOCK_P=launch.cols,
            **launch.options,
        )
    return images, truth
