"""Block sizes and warps of every kernel, per architecture: data, not a tuner's mood.

The rows of the training step were chosen on an NVIDIA H200 (2026-11-26, torch 2.11, Triton 3.6) by
the time that each kernel took in a step of 121 models; the other architectures run with the same.
So were those of the pixel side (2026-11-27, the same versions). Those of the generator and of the
latent side are NOT TUNED: they come from the reasons below and from what the cross-compiler reports
(no spills, registers that leave the multiprocessor full). `python -m bench.block_sizes` times their
alternatives on a card; copy a winner here by hand and write card, date and figure beside it.

Every row is compiled and held to a baseline by `nox -s compile`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

# The kernels say where they fuse a multiplication and an addition (`tl.fma`). Leaving the rest to
# the compiler would let the bits change with its version, whose default changes as well.
FP_FUSION = False


@dataclass(frozen=True)
class Launch:
    """One program's tile and the warps that work on it.

    Attributes:
        rows: samples (or rows of an image) a program takes; a power of two.
        cols: values of a row that it holds at once; a power of two, and at least 4.
        warps: of 32 threads (of 64 on AMD).
        depth: values that a product takes at once along the axis that it sums over.
        stages: of such loads that are in flight; 0 leaves Triton's own choice.
        parts: in which a program goes over its columns after the product, 1 or 2.
        registers: that a thread has at most, so that one program more fits; 0 leaves the compiler's
            own choice, as AMD's always is.
    """

    rows: int
    cols: int
    warps: int
    depth: int = 0
    stages: int = 0
    parts: int = 1
    registers: int = 0

    @property
    def options(self) -> dict[str, int | bool]:
        """Keyword arguments of the launch, the same that the compile checks build with."""
        stages = {"num_stages": self.stages} if self.stages else {}
        most = {"maxnreg": self.registers} if self.registers else {}
        return {"num_warps": self.warps, "enable_fp_fusion": FP_FUSION} | stages | most


# Bound by instructions (about 40 a pixel). 16 x 64 is two counters a thread: enough independent
# work to cover the latency of the rounds, and 8 programs for each stream of 128 images. 441 pixels
# need 448 lanes in tiles of 64 but 512 in tiles of 128.
_SIGMOID_GRID = Launch(rows=16, cols=64, warps=4)
# A copy: 16 x 64 floats are eight stores a thread in flight.
_RENDER = Launch(rows=16, cols=64, warps=4)
# Nine latents fill 9 of 16 lanes; 32 rows make four programs for each model of 128 samples, so that
# a sweep of 121 models has more than three programs for each of an H100's multiprocessors.
_REPARAMETERISE = Launch(rows=32, cols=16, warps=4)
# Bound by bytes. Rows of 441 pixels in one tile, so that all of its loads are in flight before the
# first is used, and one reduction a row. Times of 1936 and 121 models, Gaussian, on an H200
# (`block-sizes.json` in the folder of `reports/bench` that has one): 148 and 15.9 us; 141 and 17.9
# with eight rows, 167 and 16.6 with four rows and four warps. 121 are a sweep of one seed.
_PIXEL_NLL = Launch(rows=2, cols=512, warps=2)
# The backward pass has no reduction: it runs over the flat block of a model, where loads of four
# values are aligned whatever the number of pixels. 221 and 19.0 us there, 247 and 20.7 by 2048.
_PIXEL_NLL_BACKWARD = Launch(rows=1, cols=1024, warps=4)

# The training step; times of a step of 121 default models of the H200 are in brackets. Tiles of 64
# samples are what a Hopper tensor core takes at once (bf16, 0.45 ms). Its tf32 wants both operands
# with the summed axis last, which the weights of a forward product and both operands of a weights'
# gradient are not: tiles of 32, which go to the older units, are up to twice as quick there (tf32
# 0.52 ms, and 0.98 in tiles of 64; tf32x3 0.76, ieee 0.97, without tensor cores). The backward row
# of ieee has not been timed (0.97 is with another): its product is of the forward one's kind since
# then (see `product`), and so is the row. The update waits for memory, so what counts is how many
# programs fit: `parts` and `registers` leave room for one or two more (bf16 386 us in one part, 298
# in two; tf32 337 us without the limit, 285 with). Loading weights and moments ahead of the
# product, prefetching them into L2, and asking L2 to drop them first were slower or level; so were
# all layers in one launch (`reports/kernels`).
_STEP = {
    "ieee": {
        "forward": Launch(rows=64, cols=64, warps=4, depth=32, stages=3, registers=128),
        "output": Launch(rows=64, cols=64, warps=4, depth=32, stages=3),
        "backward": Launch(rows=64, cols=64, warps=4, depth=32, stages=3),
        "weights": Launch(rows=32, cols=64, warps=4, depth=16, stages=3, parts=2),
    },
    "tf32x3": {
        "forward": Launch(rows=32, cols=64, warps=2, depth=32, stages=3),
        "output": Launch(rows=32, cols=64, warps=2, depth=32, stages=3),
        "backward": Launch(rows=64, cols=64, warps=4, depth=32, stages=3),
        "weights": Launch(rows=32, cols=64, warps=2, depth=32, stages=3, parts=2),
    },
    "tf32": {
        "forward": Launch(rows=32, cols=64, warps=2, depth=32, stages=3),
        "output": Launch(rows=32, cols=64, warps=2, depth=32, stages=3),
        "backward": Launch(rows=64, cols=64, warps=4, depth=32, stages=3),
        "weights": Launch(rows=32, cols=128, warps=8, depth=32, stages=3, parts=2, registers=80),
    },
    "bf16": {
        "forward": Launch(rows=64, cols=64, warps=4, depth=64, stages=3),
        "output": Launch(rows=64, cols=64, warps=4, depth=64, stages=3),
        "backward": Launch(rows=64, cols=64, warps=4, depth=64, stages=3),
        "weights": Launch(rows=64, cols=64, warps=4, depth=128, stages=2, parts=2),
    },
}
# The biases of a model of the default network, padded, are 1,248 values. With four warps one of the
# compilers spills two registers here.
_STEP_FINISH = Launch(rows=1, cols=1024, warps=8)

_ARCHITECTURES = ("sm_80", "sm_90", "sm_100", "gfx942")

_STEP_ROWS = {
    f"step_{kernel}_{precision}": launch
    for precision, rows in _STEP.items()
    for kernel, launch in rows.items()
}

# Where one of the compilers spills with the row of all others. (An own limit of registers is also
# what keeps the newer ones from choosing a lower one by themselves, at which they spill.)
_OWN = {
    "step_forward_ieee": {"sm_80": Launch(rows=64, cols=64, warps=4, depth=32, stages=3)},
    "step_output_tf32": {"sm_80": Launch(rows=32, cols=64, warps=4, depth=32, stages=3)},
    "step_backward_bf16": {
        "sm_80": Launch(rows=64, cols=64, warps=4, depth=64, stages=3, registers=128)
    },
}


def _everywhere(op: str, launch: Launch) -> dict[str, Launch]:
    """Give an op's launch on every architecture."""
    rows = dict.fromkeys(_ARCHITECTURES, launch) | _OWN.get(op, {})
    # Triton's option for the limit is NVIDIA's alone.
    return rows | {"gfx942": replace(rows["gfx942"], registers=0)}


PINNED: Mapping[str, Mapping[str, Launch]] = {
    op: _everywhere(op, launch)
    for op, launch in {
        "sigmoid_grid": _SIGMOID_GRID,
        "render": _RENDER,
        "reparameterise": _REPARAMETERISE,
        "reparameterise_backward": _REPARAMETERISE,
        "pixel_nll": _PIXEL_NLL,
        "pixel_nll_backward": _PIXEL_NLL_BACKWARD,
        "step_finish": _STEP_FINISH,
        **_STEP_ROWS,
    }.items()
}
# What a card without a row of its own (and the interpreter) runs with.
FALLBACK = "sm_90"


def architecture(device: torch.device) -> str:
    """Name a device's architecture as compilers do: sm_90, gfx942; "cpu" for the interpreter."""
    if device.type != "cuda":
        return device.type
    properties = torch.cuda.get_device_properties(device)
    if torch.version.hip:
        return str(properties.gcnArchName).partition(":")[0]
    return f"sm_{properties.major}{properties.minor}"


def pinned(op: str, device: torch.device) -> Launch:
    """Look up an op's launch for a device."""
    rows = PINNED[op]
    return rows.get(architecture(device), rows[FALLBACK])


def on_device(tensor: Tensor) -> AbstractContextManager[object]:
    """Make the tensor's card the current one: Triton launches there, wherever the tensor lies."""
    return torch.cuda.device_of(tensor)
