"""The ELBO's latent side: z and each sample's KL, forward and backward.

    z = m + exp(v/2) e                                e given, or drawn here from its counters
    analytic  KL = 1/2 sum_l (m^2 + exp(v) - 1 - v)   g_m = g_z + g_kl m
                                                      g_v = (g_z e exp(v/2) + g_kl (exp(v) - 1)) / 2
    sample    KL = 1/2 sum_l (z^2 - e^2 - v)          g_m = g_z + g_kl z
                                                      g_v = (g_m e exp(v/2) - g_kl) / 2

m, v, e, z and their gradients are [M, B, L], KL is [M, B]. A program takes BLOCK_B samples of one
model, forward and backward alike. With the noise drawn here the forward pass moves 12 bytes for
each value (float32) and 4 for each KL, the backward pass 20 and 4; noise that is given costs 4 more
in each. Only the inputs are kept: backward draws the noise again and recomputes z.

Source: Kingma and Welling 2014, arXiv:1312.6114, equations 4 and 10. Defined by
`reference.reparameterise`.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .arguments import check_constant, check_kernel, each_step
from .elementary import exp_and_expm1
from .launch import on_device, pinned
from .philox import Draw
from .philox_triton import normals
from .reference import Kl


@triton.jit
def _noise(
    noise_ptr, seeds_ptr, ids_ptr, steps_ptr, model, offs_b, start, offsets, mask,
    STREAM: tl.constexpr, DRAWN: tl.constexpr, L: tl.constexpr, BLOCK_L: tl.constexpr,
):  # fmt: skip
    """Noise of a block of samples: drawn from the model's labels, or loaded."""
    if DRAWN:
        seed = tl.load(seeds_ptr + model)
        label = tl.load(ids_ptr + model).to(tl.uint32)
        step = tl.load(steps_ptr + model).to(tl.uint32)
        offs_g = start // 4 + tl.arange(0, BLOCK_L // 4)
        element = offs_b[:, None] * ((L + 3) // 4) + offs_g[None, :]
        noise = normals(seed, element.to(tl.uint32), step, label, STREAM)
    else:
        noise = tl.load(noise_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    return noise


@triton.jit
def _reparameterise_kernel(
    # outputs
    z_ptr,
    kl_ptr,
    # inputs; those of the unused kind of noise are None
    mean_ptr,
    logvar_ptr,
    noise_ptr,
    seeds_ptr,
    ids_ptr,
    steps_ptr,
    # sizes and scalars
    batch,
    STREAM: tl.constexpr,
    L: tl.constexpr,
    SAMPLE: tl.constexpr,
    DRAWN: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_L: tl.constexpr,
):
    blocks = tl.cdiv(batch, BLOCK_B)
    model = (tl.program_id(0) // blocks).to(tl.int64)
    offs_b = tl.program_id(0) % blocks * BLOCK_B + tl.arange(0, BLOCK_B)
    mask_b = offs_b < batch
    # A model's block has fewer than 2**31 values; where it starts may lie beyond.
    base = model * batch * L
    terms = tl.zeros((BLOCK_B, BLOCK_L), tl.float32)
    for start in range(0, L, BLOCK_L):
        offs_l = start + tl.arange(0, BLOCK_L)
        offsets = offs_b[:, None] * L + offs_l[None, :]
        mask = mask_b[:, None] & (offs_l < L)[None, :]
        mean = tl.load(mean_ptr + base + offsets, mask=mask, other=0.0).to(tl.float32)
        logvar = tl.load(logvar_ptr + base + offsets, mask=mask, other=0.0).to(tl.float32)
        noise = _noise(
            noise_ptr if DRAWN else noise_ptr + base, seeds_ptr, ids_ptr, steps_ptr, model,
            offs_b, start, offsets, mask, STREAM, DRAWN, L, BLOCK_L,
        )  # fmt: skip
        std, _ = exp_and_expm1(0.5 * logvar)
        z = tl.fma(std, noise, mean)
        tl.store(z_ptr + base + offsets, z.to(z_ptr.dtype.element_ty), mask=mask)
        if SAMPLE:
            term = z * z - noise * noise - logvar
        else:
            _, excess = exp_and_expm1(logvar)
            term = tl.fma(mean, mean, excess - logvar)
        terms += tl.where(mask, term, 0.0)
    tl.store(kl_ptr + model * batch + offs_b, 0.5 * tl.sum(terms, 1), mask=mask_b)


@triton.jit
def _reparameterise_backward_kernel(
    # outputs
    grad_mean_ptr,
    grad_logvar_ptr,
    # inputs; those of the unused kind of noise are None
    grad_z_ptr,
    grad_kl_ptr,
    mean_ptr,
    logvar_ptr,
    noise_ptr,
    seeds_ptr,
    ids_ptr,
    steps_ptr,
    # sizes and scalars
    batch,
    STREAM: tl.constexpr,
    L: tl.constexpr,
    SAMPLE: tl.constexpr,
    DRAWN: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_L: tl.constexpr,
):
    blocks = tl.cdiv(batch, BLOCK_B)
    model = (tl.program_id(0) // blocks).to(tl.int64)
    offs_b = tl.program_id(0) % blocks * BLOCK_B + tl.arange(0, BLOCK_B)
    mask_b = offs_b < batch
    base = model * batch * L
    grad_kl = tl.load(grad_kl_ptr + model * batch + offs_b, mask=mask_b, other=0.0)[:, None]
    for start in range(0, L, BLOCK_L):
        offs_l = start + tl.arange(0, BLOCK_L)
        offsets = offs_b[:, None] * L + offs_l[None, :]
        mask = mask_b[:, None] & (offs_l < L)[None, :]
        grad_z = tl.load(grad_z_ptr + base + offsets, mask=mask, other=0.0).to(tl.float32)
        mean = tl.load(mean_ptr + base + offsets, mask=mask, other=0.0).to(tl.float32)
        logvar = tl.load(logvar_ptr + base + offsets, mask=mask, other=0.0).to(tl.float32)
        noise = _noise(
            noise_ptr if DRAWN else noise_ptr + base, seeds_ptr, ids_ptr, steps_ptr, model,
            offs_b, start, offsets, mask, STREAM, DRAWN, L, BLOCK_L,
        )  # fmt: skip
        std, _ = exp_and_expm1(0.5 * logvar)
        if SAMPLE:
            grad_mean = tl.fma(grad_kl, tl.fma(std, noise, mean), grad_z)
            grad_logvar = 0.5 * tl.fma(grad_mean * noise, std, -grad_kl)
        else:
            _, excess = exp_and_expm1(logvar)
            grad_mean = tl.fma(grad_kl, mean, grad_z)
            grad_logvar = 0.5 * tl.fma(grad_z * noise, std, grad_kl * excess)
        dtype = grad_mean_ptr.dtype.element_ty
        tl.store(grad_mean_ptr + base + offsets, grad_mean.to(dtype), mask=mask)
        tl.store(grad_logvar_ptr + base + offsets, grad_logvar.to(dtype), mask=mask)


class _Reparameterise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        mean: Tensor,
        logvar: Tensor,
        noise: Tensor | None,
        seeds: Tensor | None,
        ids: Tensor | None,
        steps: Tensor | None,
        stream: int,
        kl: Kl,
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(mean, logvar, noise, seeds, ids, steps)
        ctx.settings = stream, kl
        models, batch, latents = mean.shape
        z = torch.empty(mean.shape, dtype=mean.dtype, device=mean.device)
        terms = torch.empty(models, batch, dtype=torch.float32, device=mean.device)
        launch = pinned("reparameterise", mean.device)
        with on_device(mean):
            _reparameterise_kernel[(models * triton.cdiv(batch, launch.rows),)](
                z,
                terms,
                mean,
                logvar,
                noise,
                seeds,
                ids,
                steps,
                batch,
                STREAM=stream,
                L=latents,
                SAMPLE=kl == "sample",
                DRAWN=noise is None,
                BLOCK_B=launch.rows,
                BLOCK_L=launch.cols,
                **launch.options,
            )
        return z, terms

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_z: Tensor, grad_kl: Tensor) -> tuple[Tensor | None, ...]:
        mean, logvar, noise, seeds, ids, steps = ctx.saved_tensors
        stream, kl = ctx.settings
        models, batch, latents = mean.shape
        grad_mean = torch.empty(mean.shape, dtype=mean.dtype, device=mean.device)
        grad_logvar = torch.empty(mean.shape, dtype=mean.dtype, device=mean.device)
        launch = pinned("reparameterise_backward", mean.device)
        with on_device(mean):
            _reparameterise_backward_kernel[(models * triton.cdiv(batch, launch.rows),)](
                grad_mean,
                grad_logvar,
                # autograd may hand over an expanded tensor, such as the gradient of a sum
                grad_z.contiguous(),
                grad_kl.contiguous(),
                mean,
                logvar,
                noise,
                seeds,
                ids,
                steps,
                batch,
                STREAM=stream,
                L=latents,
                SAMPLE=kl == "sample",
                DRAWN=noise is None,
                BLOCK_B=launch.rows,
                BLOCK_L=launch.cols,
                **launch.options,
            )
        return grad_mean, grad_logvar, None, None, None, None, None, None


def reparameterise(
    mean: Tensor, logvar: Tensor, noise: Tensor | Draw, *, kl: Kl = "analytic"
) -> tuple[Tensor, Tensor]:
    """`reference.reparameterise` as kernels; arguments have been checked by the public op."""
    check_kernel(mean=mean, logvar=logvar)
    z: Tensor
    terms: Tensor
    labels: tuple[Any, ...]
    if isinstance(noise, Draw):
        steps = each_step(noise.step, len(mean), mean.device)
        check_kernel(seeds=noise.seeds, ids=noise.ids, step=steps)
        labels = (None, noise.seeds, noise.ids, steps, int(noise.stream))
    else:
        check_kernel(noise=noise)
        check_constant(noise=noise)
        labels = (noise, None, None, None, 0)
    z, terms = _Reparameterise.apply(mean, logvar, *labels, kl)
    return z, terms
