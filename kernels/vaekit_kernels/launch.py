"""Block sizes and warps of every kernel, per architecture: data, not a tuner's mood.

NOT TUNED YET: no card was at hand when these rows were written. They come from the reasons below
and from what the cross-compiler reports (no spills, registers that leave the multiprocessor full).
`python -m bench.bench_kernels --sweep` times the alternatives on a card; copy a winner here by hand
and write card, date and figure beside it.

Every row is compiled and held to a baseline by `nox -s compile`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

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
    """

    rows: int
    cols: int
    warps: int
    depth: int = 0
    stages: int = 0

    @property
    def options(self) -> dict[str, int | bool]:
        """Keyword arguments of the launch, the same that the compile checks build with."""
        stages = {"num_stages": self.stages} if self.stages else {}
        return {"num_warps": self.warps, "enable_fp_fusion": FP_FUSION} | stages


# Bound by instructions (about 40 a pixel). 16 x 64 is two counters a thread: enough independent
# work to cover the latency of the rounds, and 8 programs for each stream of 128 images. 441 pixels
# need 448 lanes in tiles of 64 but 512 in tiles of 128.
_SIGMOID_GRID = Launch(rows=16, cols=64, warps=4)
# A copy: 16 x 64 floats are eight stores a thread in flight.
_RENDER = Launch(rows=16, cols=64, warps=4)
# Nine latents fill 9 of 16 lanes; 32 rows make four programs for each model of 128 samples, so that
# a sweep of 121 models has more than three programs for each of an H100's multiprocessors.
_REPARAMETERISE = Launch(rows=32, cols=16, warps=4)
# Bound by bytes. One row of 441 pixels in one tile, so that all of its loads are in flight before
# the first is used, and one reduction a row.
_PIXEL_NLL = Launch(rows=4, cols=512, warps=4)
# The backward pass has no reduction: it runs over the flat block of a model, where loads of four
# values are aligned whatever the number of pixels.
_PIXEL_NLL_BACKWARD = Launch(rows=1, cols=2048, warps=4)

# The training step. Tiles of 64 samples are what a Hopper tensor core takes at once; the gradient
# of 64 x 64 weights and their three streams of state fill the registers without a spill. Products
# without tensor cores hold their operands in registers, so their tiles are smaller.
_STEP = {
    "ieee": {
        "forward": Launch(rows=32, cols=32, warps=4, depth=16),
        "output": Launch(rows=32, cols=32, warps=4, depth=16),
        "backward": Launch(rows=32, cols=32, warps=4, depth=16),
        "weights": Launch(rows=32, cols=32, warps=4, depth=16),
    },
    "tf32": {
        "forward": Launch(rows=64, cols=64, warps=4, depth=32, stages=3),
        "output": Launch(rows=64, cols=64, warps=4, depth=32, stages=3),
        "backward": Launch(rows=64, cols=64, warps=4, depth=32, stages=3),
        # With four warps this one takes 247 of the 255 registers that a thread can have.
        "weights": Launch(rows=64, cols=64, warps=8, depth=32, stages=3),
    },
    "bf16": {
        "forward": Launch(rows=64, cols=64, warps=4, depth=64, stages=3),
        "output": Launch(rows=64, cols=64, warps=4, depth=64, stages=3),
        "backward": Launch(rows=64, cols=64, warps=4, depth=64, stages=3),
        "weights": Launch(rows=64, cols=64, warps=4, depth=64, stages=3),
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

PINNED: Mapping[str, Mapping[str, Launch]] = {
    op: dict.fromkeys(_ARCHITECTURES, launch)
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
} | {
    # A product of 16 x 128 with four warps spills there: its compiler stops at 64 registers.
    "step_forward_tf32": dict.fromkeys(_ARCHITECTURES, _STEP["tf32"]["forward"])
    | {"sm_100": Launch(rows=64, cols=64, warps=8, depth=32, stages=3)},
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
