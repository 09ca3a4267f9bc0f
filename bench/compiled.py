"""The peers that torch.compile builds."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.eager import PlainVAE, one_after_another, stacked_autograd, stacked_losses
from bench.problem import Block, Problem
from vaekit.products import fast_products

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
        return _as_graph(stacked_autograd(problem, program), problem.device)
    block = stacked_autograd(problem, program)

    def with_fast_products() -> Tensor:
        with fast_products(problem.device):
            return block()

    return with_fast_products


def _as_graph(block: Block, device: torch.device) -> Block:
    """Run a block once, aside, then capture it and replay what was captured."""
    held: list[tuple[torch.cuda.CUDAGraph, Tensor]] = []
    warm: list[Tensor] = []

    def run() -> Tensor:
        if not warm:
            stream = torch.cuda.Stream(device)
            stream.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(stream):
                warm.append(block())
            torch.cuda.current_stream(device).wait_stream(stream)
            return warm[0]
        if not held:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                found = block()
            held.append((graph, found))
        graph, found = held[0]
        graph.replay()
        return found.clone()

    return run
