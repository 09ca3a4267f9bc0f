"""What makes one model of a stack diverge."""

from __future__ import annotations

from vaekit.model import StackedVAE


def scale_last_layer(vae: StackedVAE, model: int, size: float) -> None:
    """Let a model's last hidden layer give values of a size, and its last weights undo that."""
    (weight, bias), (last, _) = vae.layers[-2:]
    weight[model] *= size
    bias[model] *= size
    last[model] /= size
