"""The peers that torch.compile builds."""

from __future__ import annotations

import torch

from bench.eager import (
    PlainVAE,
    one_after_another,
    stacked_autograd,
    stacked_losses,
    with_fast_products,
)
from bench.problem import Block, Problem
from vaekit.block import Replay

BACKEND = "inductor"


def one_after_another_compiled(problem: Problem) -> Block:
    """Train one module after another, all through one compiled program, each with fused Adam."""
    program = torch.compile(PlainVAE.forward, backend=BACKEND, dynamic=False)
    return one_after_another(problem, program)


def stacked_compiled(problem: Problem) -> Block:
    """Train stacked tensors through a compiled loss and gradient, with fused Adam.

    The products are by the library that vaekit takes, so that what differs is the program. On a
    card a whole block, Adam included, is one CUDA graph.
    """
    program = torch.compile(stacked_losses, backend=BACKEND, dynamic=False)
    if problem.device.type == "cuda":
        train = stacked_autograd(problem, program)
        replay = Replay(lambda _: train(), problem.device, problem.steps)
        return lambda: replay(range(1, problem.steps + 1)).clone()
    return with_fast_products(stacked_autograd(problem, program), problem.device)
