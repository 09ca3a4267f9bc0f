"""A large stack on a card, trained in parts that run side by side.

Updating weights waits for memory, and layers wait for each other; beside the update of one part
there is room for the layers of another. So every part has two streams of the card: one for layers,
whose launches go first wherever there is room, and one for the update. Nothing in a part knows of
the others, and no model's bits show how a stack was cut.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import torch
from torch import Tensor

from vaekit.config import SweepConfig
from vaekit.state import State
from vaekit.step import TritonStep
from vaekit_kernels import Draw

# At most so many parts, each of so many models at the least. On an H200 a step of 121 default
# models takes 454 us whole, 423 in two parts, 412 in three, four and six (tf32: 510, 509, 492, 490,
# 541); one of 44 takes 198 whole, 190 in halves and 250 in 11, 11 and 22; one of 22 takes 124 and
# 123. All are in `reports/kernels/h200-parts.md`.
MOST_PARTS, PART_MODELS = 4, 22
Made = TypeVar("Made")


@dataclass(frozen=True)
class Part:
    """Which streams and models of a stack a step trains, and the stream of the card it runs on."""

    streams: slice
    models: slice
    step: TritonStep
    stream: torch.cuda.Stream | None


class Parts:
    """A stack's step, as one `TritonStep` for each part."""

    name = TritonStep.name

    def __init__(self, config: SweepConfig, state: State, streams: int, count: int) -> None:
        """Take a state over.

        Args:
            config: of the models.
            state: of M models, on the device that trains them.
            streams: S, a divisor of M.
            count: of parts, as `cut` has it.
        """
        self.state = state
        self.parts = []
        for those, models in cut(streams, state.vae.models, count):
            first = aside = None
            if state.vae.flat.is_cuda:
                device = state.vae.flat.device
                first, aside = torch.cuda.Stream(device, priority=-1), torch.cuda.Stream(device)
            step = TritonStep(config, state, those.stop - those.start, models=models, aside=aside)
            self.parts.append(Part(those, models, step, first))

    def __call__(self, images: Tensor, noise: Tensor | Draw, beta: Tensor) -> tuple[Tensor, Tensor]:
        """See `vaekit.step.Step`."""

        def train(part: Part) -> tuple[Tensor, Tensor]:
            own = noise.part(part.models) if isinstance(noise, Draw) else noise[part.models]
            return part.step(images[part.streams], own, beta[part.models])

        nll, kl = (torch.cat(terms) for terms in zip(*self.side_by_side(train), strict=True))
        return nll, kl

    def side_by_side(self, train: Callable[[Part], Made]) -> list[Made]:
        """Do something with every part, each on its own stream, and wait for all of them there."""
        made, device = [], self.state.vae.flat.device
        streams = [part.stream for part in self.parts if part.stream is not None]
        for stream in streams:
            stream.wait_stream(torch.cuda.current_stream(device))
        try:
            for part in self.parts:
                # None changes nothing.
                with torch.cuda.stream(part.stream):
                    made.append(train(part))
        finally:
            # After a failure too: a capture cannot end before, and would hide what failed.
            for stream in streams:
                torch.cuda.current_stream(device).wait_stream(stream)
        return made

    def save(self, *, moments: bool = True) -> State:
        """See `vaekit.step.Step`."""
        for part in self.parts:
            part.step.save(moments=moments)
        return self.state


# What can be captured in a CUDA graph.
Replayable: TypeAlias = TritonStep | Parts


def part_count(streams: int, models: int, device: torch.device) -> int:
    """Choose in how many parts a stack of S streams and M models trains on a device."""
    if device.type != "cuda":
        return 1

    def smallest(count: int) -> int:
        return min(part.stop - part.start for _, part in cut(streams, models, count))

    return max(n for n in range(1, MOST_PARTS + 1) if n == 1 or smallest(n) >= PART_MODELS)


def cut(streams: int, models: int, count: int) -> list[tuple[slice, slice]]:
    """Cut a stack into at most `count` parts, between its streams, or within its only one.

    Args:
        streams: S.
        models: M, a multiple of S.
        count: of parts, 1 or more.

    Returns:
        The streams and the models of each part, in order, evenly shared out.
    """
    if streams == 1:
        return [(slice(0, 1), part) for part in _evenly(models, count)]
    share = models // streams
    return [
        (part, slice(part.start * share, part.stop * share)) for part in _evenly(streams, count)
    ]


def _evenly(size: int, count: int) -> list[slice]:
    count = min(count, size)
    return [slice(size * i // count, size * (i + 1) // count) for i in range(count)]
