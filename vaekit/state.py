"""What training changes: the parameters of a stack, Adam's moments, and which models still train.

Every engine of `step` works on a `State` and leaves it as any other would, up to rounding and to
the last update of a model that is stopped, so one engine can continue where another stopped.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vaekit.config import SweepConfig
from vaekit.model import StackedVAE

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
# What only those need who go on training.
MOMENTS = frozenset({"exp_avg", "exp_avg_sq"})


@dataclass(frozen=True)
class State:
    """A stack in training.

    Attributes:
        vae: the parameters.
        exp_avg, exp_avg_sq: Adam's moments, laid out as `vae.flat`. An engine that keeps its own
            leaves these on the host.
        steps: number of updates made, int64 [].
        learning_rate: of each model, float64 [M].
        stopped: the step that stopped each model, int64 [M]; 0 while it trains. A stopped model
            keeps its parameters and its moments in every bit. An engine stops a model whose terms
            or gradient's norm are not finite, and no value of those reaches its parameters. The
            Triton engine takes the norm by tiles, and where it is that of a weight alone, the other
            tiles and the biases have been updated once more.
    """

    vae: StackedVAE
    exp_avg: Tensor
    exp_avg_sq: Tensor
    steps: Tensor
    learning_rate: Tensor
    stopped: Tensor

    @classmethod
    def initial(cls, vae: StackedVAE, learning_rate: float | Tensor) -> State:
        """Begin the training of a stack.

        Args:
            vae: the untrained models.
            learning_rate: of all models, or one each [M].
        """
        flat = vae.flat
        rate = torch.as_tensor(learning_rate, dtype=torch.float64, device=flat.device)
        return cls(
            vae=vae,
            exp_avg=torch.zeros_like(flat),
            exp_avg_sq=torch.zeros_like(flat),
            steps=torch.zeros((), dtype=torch.int64, device=flat.device),
            learning_rate=rate.expand(vae.models).clone(),
            stopped=torch.zeros(vae.models, dtype=torch.int64, device=flat.device),
        )

    def tensors(self) -> dict[str, Tensor]:
        """Name every tensor, for a checkpoint; they share the state's memory."""
        return {
            "parameters": self.vae.flat,
            "exp_avg": self.exp_avg,
            "exp_avg_sq": self.exp_avg_sq,
            "steps": self.steps,
            "learning_rate": self.learning_rate,
            "stopped": self.stopped,
        }

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take the values of tensors named as by `tensors`.

        Raises:
            ValueError: a tensor is missing, is one too many, or has another shape or dtype. Nothing
                is changed then.
        """
        own = self.tensors()
        if own.keys() != tensors.keys():
            raise ValueError(f"state: got {sorted(tensors)}; allowed: {sorted(own)}")
        for name, tensor in tensors.items():
            if (tensor.shape, tensor.dtype) != (own[name].shape, own[name].dtype):
                raise ValueError(
                    f"{name}: got {list(tensor.shape)} {tensor.dtype}; "
                    f"allowed: {list(own[name].shape)} {own[name].dtype}"
                )
        for name, tensor in tensors.items():
            own[name].copy_(tensor)


def initial_state(config: SweepConfig, seeds: Tensor) -> State:
    """Draw untrained models, one for each seed [M], and begin their training."""
    return State.initial(StackedVAE.initial(config, seeds), config.learning_rate)
