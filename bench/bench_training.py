"""Cost of a training step: vaekit's engine beside its peers, along its axes, and by its parts.

    python -m bench [--quick]

On a card there are two more parts, see `card`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch

from bench.card import measure_card, measure_sweeps
from bench.ceilings import measure_ceilings
from bench.comparison import compare
from bench.curves import STACK, measure_curves
from bench.memory import measure_memory
from bench.parts import measure_parts
from bench.peers import PEERS, absent, elsewhere
from bench.problem import default_problem
from bench.static import measure_resources
from vaekit.host import keep_freed_memory


def compare_peers(
    steps: int, rounds: int, ceilings: Mapping[str, Any], device: torch.device, *, quick: bool
) -> dict[str, Any]:
    """Time all peers on 11 models and print the table.

    Args:
        steps: of a timed block.
        rounds: timed blocks of each peer.
        ceilings: of the device.
        device: where all train.
        quick: leave out what takes long to compile.
    """
    task = default_problem(STACK, steps, device)
    skipped = absent(quick=quick) | elsewhere(device)
    blocks = {name: make(task) for name, make in PEERS.items() if name not in skipped}
    return compare(task, blocks, rounds, ceilings, skipped) | {"skipped": skipped}


class Plan(NamedTuple):
    """Steps of a timed block and how many blocks, of the peers and of the curves."""

    steps: int
    rounds: int
    curve_steps: int
    curve_rounds: int


FULL, QUICK = Plan(20, 12, 5, 5), Plan(10, 6, 2, 3)


def run(
    device: torch.device, *, quick: bool, keep: Callable[[dict[str, Any]], object] = dict
) -> dict[str, Any]:
    """Measure the ceilings, the peers, the curves, the parts and the memory; print the tables.

    Args:
        device: where all train.
        quick: fewer rounds, steps and points, and nothing that takes long to compile.
        keep: is given what there is so far, after every part.

    Returns:
        What `report` is made from: every raw sample.
    """
    plan = QUICK if quick else FULL
    # As a sweep does, and for peers too: a compiled step among them would do it at its turn.
    keep_freed_memory()
    ceilings = measure_ceilings(device)
    rates = ceilings["product_flops_per_second"]
    print(
        f"reads {ceilings['read_bytes_per_second'] / 1e9:.1f} GB/s, "
        f"copies {ceilings['copy_bytes_per_second'] / 1e9:.1f} GB/s, products "
        + ", ".join(f"{rate / 1e9:.0f} GFLOP/s {name}" for name, rate in rates.items())
        + f", {ceilings['seconds_per_call'] * 1e6:.1f} us a call",
        flush=True,
    )
    content: dict[str, Any] = {"ceilings": ceilings}
    for part in (
        partial(measure_card, device, ceilings, quick=quick),
        lambda: {"peers": compare_peers(plan.steps, plan.rounds, ceilings, device, quick=quick)},
        partial(measure_curves, plan.curve_steps, plan.curve_rounds, device, quick=quick),
        lambda: {"parts": measure_parts(device, quick=quick)},
        partial(measure_sweeps, device, quick=quick),
        lambda: {"memory": measure_memory(device, quick=quick)},
        lambda: {"resources": measure_resources(quick=quick)},
        # Once more, when whatever disturbed the first time may be over.
        lambda: {"ceilings": measure_ceilings(device, before=ceilings)},
    ):
        content |= part()
        keep(content)
    return content
