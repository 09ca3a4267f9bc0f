"""The peers that torch.compile builds."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.eager import PlainVAE, one_after_another, stacked_autograd, stacked_losses
from bench.problem import Block, Problem
from vaekit.products import fast_products


def options(problem: Problem) -> dict[str, str]:
    """Compile for a CUDA graph on a card; on a CPU there is none to replay."""
    return {"mode": "reduce-overhead"} if problem.device.type == "cuda" else {}


def one_after_another_compiled(problem: Problem) -> Block:
    """Train one module after another, all through one compiled program, each with fused Adam."""
    program = torch.compile(PlainVAE.forward, dynamic=False, **options(problem))
    return one_after_another(problem, program)


def stacked_compiled(problem: Problem) -> Block:
    """Train stacked tensors through a compiled loss and gradient, with fused Adam.

    The products are by the library that vaekit takes, so that what differs is the program.
    """
    program = torch.compile(stacked_losses, dynamic=False, **options(problem))
    block = stacked_autograd(problem, program)

    def with_fast_products() -> Tensor:
        with fast_products(problem.device):
            return block()

    return with_fast_products
