"""What a training asks about its checkpoints, and the answer where none are kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from vaekit.checkpoint import Array, Check
from vaekit.interrupt import Interrupts
from vaekit.stack import Stack


class Keeper:
    """Keeps the checkpoints of one shard's training; this one keeps none."""

    def __init__(self, interrupts: Interrupts | None = None) -> None:
        self.interrupts = interrupts or Interrupts()
        self.seconds = 0.0

    def part(self, index: int) -> Keeper:
        """Keep checkpoints of a part of the shard."""
        del index
        return Keeper(self.interrupts)

    def load(self, stack: Stack, check: Check) -> tuple[int, dict[str, Array]] | None:
        """Read the newest checkpoint of a stack's training that passes a check, if there is one."""
        del stack, check
        return None

    def due(self) -> bool:
        """Tell whether it is time for a checkpoint."""
        return False

    def save(self, stack: Stack, step: int, tensors: Callable[[], Mapping[str, Tensor]]) -> None:
        """Commit a checkpoint of what is asked for then, as it may have to come from a card."""
