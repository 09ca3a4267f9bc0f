"""The ways to train M small VAEs that people use today, each on the same problem.

Every peer trains the same networks from the same initial weights on the same images and noise with
the same Adam, so after the same number of steps all must stand at the same losses. `check` holds
them to that before anything is timed, and `still_agree` after.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable

import torch
from torch import Tensor

from bench.compiled import one_after_another_compiled, stacked_compiled
from bench.eager import (
    definition,
    functional_vmap,
    one_after_another,
    stacked_autograd,
    stacked_autograd_fast,
    vaekit_compiled,
    vaekit_engine,
)
from bench.errors import BenchError
from bench.jax_peer import jax_elsewhere, jax_vmap_scan
from bench.problem import Block, Problem
from vaekit.compiler import compiler_missing
from vaekit.machine import synchronize

OURS, OURS_AGAIN, OURS_COMPILED = "vaekit", "vaekit again (A/A)", "vaekit, compiled"
OURS_BF16 = "vaekit, bf16"
STACKED_FAST = "stacked autograd, vaekit's products"
OWN = (OURS, OURS_AGAIN, OURS_COMPILED, OURS_BF16)
PEERS: dict[str, Callable[[Problem], Block]] = {
    OURS: vaekit_engine,
    OURS_COMPILED: vaekit_compiled,
    "stacked autograd": stacked_autograd,
    STACKED_FAST: stacked_autograd_fast,
    "stacked + torch.compile": stacked_compiled,
    "torch.func vmap": functional_vmap,
    "one after another": one_after_another,
    "one after another, compiled": one_after_another_compiled,
    "JAX vmap + scan": jax_vmap_scan,
}
COMPILED = (OURS_COMPILED, "stacked + torch.compile", "one after another, compiled")
# Of the losses at the end of the first block, and of those after some hundred steps, by when a
# difference in rounding has grown; by the precision of the products.
AGREE = {"float32": 1e-4, "tf32": 1e-2}
STILL_AGREE = {"float32": 1e-2, "tf32": 5e-2}


def products_of(name: str, precision: str) -> str:
    """Precision of a peer's products in a problem of some precision."""
    return "bf16" if name == OURS_BF16 else precision


def absent(*, quick: bool) -> dict[str, str]:
    """Name the peers that are left out here, each with the reason."""
    found = {} if importlib.util.find_spec("jax") else {"JAX vmap + scan": "jax is not installed"}
    reason = "--quick leaves no time to compile" if quick else compiler_missing()
    return found | (dict.fromkeys(COMPILED, reason) if reason else {})


def elsewhere(device: torch.device) -> dict[str, str]:
    """Name the peers that do not run on a device, each with the reason."""
    found = jax_elsewhere(device)
    if device.type == "cuda":
        found |= {OURS_COMPILED: "this engine is a CPU's"}
        found |= {STACKED_FAST: "one library multiplies on a card"}
    return found


def check(problem: Problem, peers: dict[str, Block]) -> tuple[dict[str, float], dict[str, float]]:
    """Train every peer one block, its first, and compare its losses with the definition's.

    Returns:
        The largest relative difference of a model's loss, and the seconds of that block, in which
        whatever a peer compiles is compiled; both by peer.

    Raises:
        BenchError: a peer stands elsewhere than the definition: its times would mean nothing.
    """
    expected = definition(problem)()
    errors, seconds = {}, {}
    for name, block in peers.items():
        start = time.perf_counter()
        found = block()
        synchronize(problem.device)
        seconds[name] = time.perf_counter() - start
        errors[name] = _error(found, expected)
    _raise_unless(errors, AGREE[problem.config.precision])
    return errors, seconds


def still_agree(problem: Problem, peers: dict[str, Block]) -> None:
    """Train every peer one block more, and compare its losses with the first peer's.

    Raises:
        BenchError: a peer that trained as many steps stands elsewhere.
    """
    losses = {name: block() for name, block in peers.items()}
    expected = next(iter(losses.values()))
    limit = STILL_AGREE[problem.config.precision]
    _raise_unless({name: _error(found, expected) for name, found in losses.items()}, limit)


def _error(found: Tensor, expected: Tensor) -> float:
    return float(((found - expected) / expected).abs().max())


def _raise_unless(errors: dict[str, float], limit: float) -> None:
    wrong = {name: error for name, error in errors.items() if not error <= limit}
    if wrong:
        raise BenchError(
            f"relative differences of losses: got {wrong}; allowed: {limit:g}, as all train the "
            "same models"
        )
