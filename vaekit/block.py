"""Blocks of training steps: images and noise drawn for several steps at once, then step by step.

Noise comes from counters, so it is the same for any block; drawing for several steps is quicker. On
CUDA a block is captured as a graph and replayed: the host launches it whole, and what changes from
block to block, the number of its first step, is read from the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from vaekit.compiled_step import CompiledStep
from vaekit.compiler import program
from vaekit.config import SweepConfig
from vaekit.data import draw
from vaekit.objective import beta_at, latent_noise
from vaekit.parts import Part, Parts, Replayable
from vaekit.products import fast_products
from vaekit.step import Step, TritonStep
from vaekit_kernels import Draw, float_ids

BLOCK_STEPS = 8


@dataclass(frozen=True)
class Labels:
    """What tells the streams and models of a stack apart, on the device that trains them.

    Attributes:
        mu, stream_seeds: of each stream [S]; seeds int64.
        seeds, beta: of each model [M].
    """

    mu: Tensor
    stream_seeds: Tensor
    seeds: Tensor
    beta: Tensor

    def part(self, streams: slice, models: slice) -> Labels:
        """Take some streams, and models of theirs."""
        return Labels(
            self.mu[streams], self.stream_seeds[streams], self.seeds[models], self.beta[models]
        )


# Trains some consecutive steps and returns the means over samples of nll, kl and loss, [T, 3, M],
# valid until the next call.
Block = Callable[[range], Tensor]
Inputs = tuple[Tensor, Tensor, Tensor]


def make_block(config: SweepConfig, labels: Labels, step: Step) -> Block:
    """Choose how blocks of a stack are trained: replayed on CUDA, launched step by step elsewhere.

    An engine that asks the device which models are alive cannot be captured; the Triton engine,
    whose kernels read it themselves, can.
    """
    device = labels.mu.device
    if labels.mu.is_cuda and isinstance(step, Replayable):
        return Replay(lambda t: train_steps(config, labels, step, t), device)

    compiled: Callable[[Tensor], Inputs] | None = None
    if isinstance(step, CompiledStep):
        with torch.no_grad(), fast_products(device):
            t = torch.arange(BLOCK_STEPS, device=device)
            compiled = program(lambda t: inputs(config, labels, t), t)

    def eager(steps: range) -> Tensor:
        t = torch.arange(steps.start, steps.stop, device=device)
        # A program is good for blocks of one length; the last one may be shorter.
        given = compiled(t) if compiled and len(t) == BLOCK_STEPS else None
        return train_steps(config, labels, step, t, given)

    return eager


def inputs(config: SweepConfig, labels: Labels, t: Tensor) -> Inputs:
    """Draw what the steps t [T] train on: images [T, S, B, P], noise [T, M, B, L], betas [T, M]."""
    count, models = len(t), len(labels.beta)
    noise = latent_noise(
        config,
        labels.seeds.repeat(count),
        labels.beta.repeat(count),
        t.repeat_interleave(models),
    )
    return (
        _images(config, labels, t),
        noise.unflatten(0, (count, models)),
        beta_at(labels.beta, t, config.beta_warmup),
    )


def _images(config: SweepConfig, labels: Labels, t: Tensor) -> Tensor:
    count, streams = len(t), len(labels.mu)
    images, _ = draw(
        config,
        labels.mu.repeat(count),
        labels.stream_seeds.repeat(count),
        t.repeat_interleave(streams),
        batch=config.batch,
    )
    return images.unflatten(0, (count, streams))


def train_steps(
    config: SweepConfig, labels: Labels, step: Step, t: Tensor, given: Inputs | None = None
) -> Tensor:
    """Train the steps t [T], int64 on the device; nothing here waits for the device.

    Args:
        config: of the models.
        labels: of the stack.
        step: its engine.
        t: numbers of the steps.
        given: their `inputs`, where they have been drawn.
    """
    if isinstance(step, Parts):

        def train(part: Part) -> Tensor:
            own = labels.part(part.streams, part.models)
            if given is None:
                return train_steps(config, own, part.step, t)
            images, noise, betas = given
            theirs = images[:, part.streams], noise[:, part.models], betas[:, part.models]
            return train_steps(config, own, part.step, t, theirs)

        return torch.cat(step.side_by_side(train), dim=-1)
    noise: Iterable[Tensor | Draw]
    if isinstance(step, TritonStep) and given is None:
        # The kernels draw the noise themselves, from its labels.
        images, betas = _images(config, labels, t), beta_at(labels.beta, t, config.beta_warmup)
        ids = float_ids(labels.beta)
        rows = t.repeat(len(labels.beta), 1).T.contiguous()
        noise = [Draw(labels.seeds, ids, now) for now in rows]
    else:
        images, noise, betas = given or inputs(config, labels, t)
    made = [step(*now) for now in zip(images, noise, betas, strict=True)]
    nll, kl = (torch.stack(terms).mean(dim=-1) for terms in zip(*made, strict=True))
    return torch.stack((nll, kl, nll + betas * kl), dim=1)


class Replay:
    """A block as a CUDA graph, captured after a first block has compiled every kernel.

    Args:
        train: trains the steps of a tensor on the device.
        device: where.
        length: steps of a block.
    """

    def __init__(
        self, train: Callable[[Tensor], Tensor], device: torch.device, length: int = BLOCK_STEPS
    ) -> None:
        self.train = train
        self.device = device
        self.length = length
        self.first = torch.zeros((), dtype=torch.int64, device=device)
        # The graph reads it at every replay, so it must live as long.
        self.offsets = torch.arange(length, device=device)
        self.captured: tuple[torch.cuda.CUDAGraph, Tensor] | None = None
        self.warm = False

    def __call__(self, steps: range) -> Tensor:
        """Train a block; one that is shorter than the others, the last, is launched by itself."""
        if len(steps) != self.length or not self.warm:
            self.warm = self.warm or len(steps) == self.length
            return self._aside(steps)
        graph, terms = self.captured = self.captured or self._capture()
        self.first.fill_(steps.start)
        graph.replay()
        return terms

    def _aside(self, steps: range) -> Tensor:
        """Train on a stream of its own, as a capture wants it from what comes before it."""
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            terms = self.train(torch.arange(steps.start, steps.stop, device=self.device))
        torch.cuda.current_stream(self.device).wait_stream(stream)
        terms.record_stream(torch.cuda.current_stream(self.device))
        return terms

    def _capture(self) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        graph = torch.cuda.CUDAGraph()
        # What another thread asks of the card meanwhile is none of the graph's business; by default
        # it ends the capture, as happened beside JAX in the benchmark. The stream is of our device:
        # torch's own is of the first, where nothing of a training elsewhere would be captured.
        with (
            torch.cuda.device(self.device),
            torch.cuda.graph(
                graph,
                stream=torch.cuda.Stream(self.device),
                capture_error_mode="thread_local",
            ),
        ):
            terms = self.train(self.first + self.offsets)
        return graph, terms
