"""The ELBO's pixel side: each sample's -log p(x|z) from the decoder's output, forward and backward.

    gaussian   sum_p (x - y)^2 / (2 v) + P/2 ln(2 pi v), y = sigmoid(a)   g_a = g (y - x) y' / v
    bernoulli  sum_p softplus(a) - a x                                    g_a = g (sigmoid(a) - x)

a [M, B, P] is the decoder's output before its sigmoid, x [S, B, P] the images of S streams, each
shared by M / S models; y' is the sigmoid's slope (y = a and y' = 1 where the output is linear). The
result and g are [M, B]. Forward: a program takes BLOCK_B samples of one model; backward: BLOCK
values of the flat block of one model. Both number their programs with the models of a stream
fastest, so an image comes from memory once and then from cache. Bytes in float32: forward
4 P (M + S) B + 4 M B, backward 4 P (2 M + S) B + 4 M B. Only the inputs are kept.

Source: Kingma and Welling 2014, arXiv:1312.6114, appendix C. Defined by `reference.pixel_nll`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .arguments import check_constant, check_kernel
from .elementary import sigmoid, sigmoid_and_slope, softplus_tail
from .launch import on_device, pinned
from .reference import Likelihood


@triton.jit
def _locate(blocks, models_per_stream):
    """Stream, block and model of this program: the models of a stream are neighbours."""
    pid = tl.program_id(0)
    stream = pid // (blocks * models_per_stream)
    rest = pid % (blocks * models_per_stream)
    model = stream * models_per_stream + rest % models_per_stream
    return stream.to(tl.int64), rest // models_per_stream, model.to(tl.int64)


@triton.jit
def _pixel_nll_kernel(
    # output, inputs
    nll_ptr,
    output_ptr,
    image_ptr,
    # sizes and scalars
    batch,
    models_per_stream,
    factor,  # 1 / (2 v), and 1 for Bernoulli
    constant,  # P/2 ln(2 pi v), and 0 for Bernoulli
    P: tl.constexpr,
    BERNOULLI: tl.constexpr,
    LINEAR: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    stream, block, model = _locate(tl.cdiv(batch, BLOCK_B), models_per_stream)
    offs_b = block * BLOCK_B + tl.arange(0, BLOCK_B)
    mask_b = offs_b < batch
    # A model's block has fewer than 2**31 pixels; where it starts may lie beyond.
    # Rows and columns are added one after the other: the columns of a thread then differ by
    # constants, which a load takes as an immediate, where a sum would be computed for each.
    output_ptr += model * batch * P + (offs_b * P)[:, None]
    image_ptr += stream * batch * P + (offs_b * P)[:, None]
    terms = tl.zeros((BLOCK_B, BLOCK_P), tl.float32)
    for start in range(0, P, BLOCK_P):
        offs_p = start + tl.arange(0, BLOCK_P)
        mask = mask_b[:, None] & (offs_p < P)[None, :]
        a = tl.load(output_ptr + offs_p[None, :], mask=mask, other=0.0).to(tl.float32)
        x = tl.load(image_ptr + offs_p[None, :], mask=mask, other=0.0).to(tl.float32)
        if BERNOULLI:
            # max(a, 0) - a x in one piece: apart they cancel where a is large and x is 1.
            term = tl.fma(a, tl.where(a > 0, 1.0, 0.0) - x, softplus_tail(a))
        else:
            difference = x - (a if LINEAR else sigmoid(a))
            term = difference * difference
        terms += tl.where(mask, term, 0.0)
    nll = tl.fma(tl.sum(terms, 1), factor, constant)
    tl.store(nll_ptr + model * batch + offs_b, nll, mask=mask_b)


@triton.jit
def _pixel_nll_backward_kernel(
    # output, inputs
    grad_output_ptr,
    grad_nll_ptr,
    output_ptr,
    image_ptr,
    # sizes and scalars
    batch,
    values,  # batch * P: an argument of its own, so that its alignment is known
    models_per_stream,
    factor,  # 1 / v, and 1 for Bernoulli
    P: tl.constexpr,
    BERNOULLI: tl.constexpr,
    LINEAR: tl.constexpr,
    BLOCK: tl.constexpr,
):
    stream, block, model = _locate(tl.cdiv(values, BLOCK), models_per_stream)
    offsets = block * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < values
    output_ptr += model * values
    image_ptr += stream * values
    grad_output_ptr += model * values
    a = tl.load(output_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    x = tl.load(image_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    grad_nll = tl.load(grad_nll_ptr + model * batch + offsets // P, mask=mask, other=0.0)
    if BERNOULLI:
        grad = grad_nll * (sigmoid(a) - x)
    elif LINEAR:
        grad = grad_nll * factor * (a - x)
    else:
        y, slope = sigmoid_and_slope(a)
        grad = grad_nll * factor * (y - x) * slope
    dtype = grad_output_ptr.dtype.element_ty
    tl.store(grad_output_ptr + offsets, grad.to(dtype), mask=mask)


class _PixelNll(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, output: Tensor, image: Tensor, likelihood: Likelihood, v: float, linear: bool
    ) -> Tensor:
        ctx.save_for_backward(output, image)
        ctx.settings = likelihood, v, linear
        models, batch, pixels = output.shape
        streams = len(image)
        bernoulli = likelihood == "bernoulli"
        nll = torch.empty(models, batch, dtype=torch.float32, device=output.device)
        launch = pinned("pixel_nll", output.device)
        with on_device(output):
            _pixel_nll_kernel[(models * triton.cdiv(batch, launch.rows),)](
                nll,
                output,
                image,
                batch,
                models // max(streams, 1),
                1.0 if bernoulli else 0.5 / v,
                0.0 if bernoulli else 0.5 * pixels * math.log(2.0 * math.pi * v),
                P=pixels,
                BERNOULLI=bernoulli,
                LINEAR=linear,
                BLOCK_B=launch.rows,
                BLOCK_P=launch.cols,
                **launch.options,
            )
        return nll

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_nll: Tensor) -> tuple[Tensor, None, None, None, None]:
        output, image = ctx.saved_tensors
        likelihood, v, linear = ctx.settings
        models, batch, pixels = output.shape
        streams = len(image)
        bernoulli = likelihood == "bernoulli"
        grad_output = torch.empty(output.shape, dtype=output.dtype, device=output.device)
        launch = pinned("pixel_nll_backward", output.device)
        block = launch.rows * launch.cols
        with on_device(output):
            _pixel_nll_backward_kernel[(models * triton.cdiv(batch * pixels, block),)](
                grad_output,
                # autograd may hand over an expanded tensor, such as the gradient of a sum
                grad_nll.contiguous(),
                output,
                image,
                batch,
                batch * pixels,
                models // max(streams, 1),
                1.0 if bernoulli else 1.0 / v,
                P=pixels,
                BERNOULLI=bernoulli,
                LINEAR=linear,
                BLOCK=block,
                **launch.options,
            )
        return grad_output, None, None, None, None


def pixel_nll(
    output: Tensor,
    image: Tensor,
    *,
    likelihood: Likelihood = "gaussian",
    decoder_variance: float = 0.25,
    linear: bool = False,
) -> Tensor:
    """`reference.pixel_nll` as kernels; arguments have been checked by the public op."""
    check_kernel(output=output, image=image)
    check_constant(image=image)
    nll: Tensor = _PixelNll.apply(output, image, likelihood, decoder_variance, linear)
    return nll
