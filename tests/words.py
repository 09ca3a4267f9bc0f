"""A kernel that stores bare Philox words, so that they can be held to the torch half's."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from vaekit_kernels.launch import FP_FUSION
from vaekit_kernels.philox import philox4x32
from vaekit_kernels.philox_triton import philox4x32 as triton_philox4x32

# High bits, signs, the largest word, an odd constant.
SEEDS = (0, 1, -1, 2**32, 2**32 - 1, -(2**63), 2**63 - 1, 0x1E3779B97F4A7C15)
STEP, LABEL, STREAM = 2**32 - 5, 0xBF800000, 7


@triton.jit
def words_kernel(out_ptr, seeds_ptr, step, label, N: tl.constexpr, STREAM: tl.constexpr):
    pid = tl.program_id(0)
    element = tl.arange(0, N).to(tl.uint32)
    zero = element * 0
    w0, w1, w2, w3 = triton_philox4x32(
        tl.load(seeds_ptr + pid),
        element,
        zero + step.to(tl.uint32),
        zero + label.to(tl.uint32),
        zero + STREAM,
    )
    out_ptr += pid.to(tl.int64) * 4 * N + tl.arange(0, N)
    tl.store(out_ptr, w0.to(tl.int64))
    tl.store(out_ptr + N, w1.to(tl.int64))
    tl.store(out_ptr + 2 * N, w2.to(tl.int64))
    tl.store(out_ptr + 3 * N, w3.to(tl.int64))


def check_words(device: str, count: int) -> None:
    """Hold `count` counters of every seed to the torch half, in every bit."""
    seeds = torch.tensor(SEEDS, device=device)
    out = torch.full((len(seeds), 4, count), -1, device=device)
    words_kernel[(len(seeds),)](
        out, seeds, STEP, LABEL, N=count, STREAM=STREAM, enable_fp_fusion=FP_FUSION
    )
    element = torch.arange(count, device=device)
    for row, seed in zip(out, seeds, strict=True):
        expected = philox4x32(seed, element, STEP, LABEL, STREAM)
        assert torch.equal(row, torch.stack(expected))
