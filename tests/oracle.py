"""An independent Philox4x32-10 and Box-Muller, in NumPy's unsigned integers and float64.

It shares no code with `vaekit_kernels.philox`; it is what the torch half and the Triton half are
both held to.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

U64 = np.uint64
MASK = U64(0xFFFFFFFF)


def words(
    seed: NDArray[np.int64], c0: NDArray, c1: NDArray, c2: NDArray, c3: NDArray
) -> list[NDArray[np.uint64]]:
    """Four words in [0, 2**32) for broadcast arrays of keys and counters."""
    key = np.asarray(seed, np.int64).view(U64)
    k0, k1 = key & MASK, key >> U64(32)
    counter = np.broadcast_arrays(*(np.asarray(c).astype(U64) for c in (c0, c1, c2, c3)))
    x0, x1, x2, x3 = counter
    for _ in range(10):
        first = x0 * U64(0xD2511F53)
        second = x2 * U64(0xCD9E8D57)
        x0, x1, x2, x3 = (
            (second >> U64(32)) ^ x1 ^ k0,
            second & MASK,
            (first >> U64(32)) ^ x3 ^ k1,
            first & MASK,
        )
        k0, k1 = (k0 + U64(0x9E3779B9)) & MASK, (k1 + U64(0xBB67AE85)) & MASK
    return [x0, x1, x2, x3]


def normals(
    seeds: Tensor, ids: Tensor, step: int | Tensor, stream: int, rows: int, cols: int
) -> Tensor:
    """`philox.normals` in float64."""
    groups = -(-cols // 4)
    element = np.arange(rows * groups)
    column = [np.asarray(torch.as_tensor(c).cpu()).reshape(-1, 1) for c in (seeds, step, ids)]
    w0, w1, w2, w3 = words(column[0], element, column[1], column[2], np.asarray(stream))
    lanes = []
    for radius, angle in ((w0, w1), (w2, w3)):
        r = np.sqrt(-2.0 * np.log(((radius >> U64(8)) + U64(1)) / 2.0**24))
        turn = 2.0 * np.pi * (angle >> U64(8)) / 2.0**24
        lanes += [r * np.cos(turn), r * np.sin(turn)]
    block = np.stack(lanes, axis=-1).reshape(len(seeds), rows, 4 * groups)[..., :cols]
    return torch.from_numpy(np.ascontiguousarray(block)).to(seeds.device)
