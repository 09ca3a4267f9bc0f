"""The ops of the sigmoid-grid experiment, each with a torch definition and a Triton kernel."""

from __future__ import annotations

from .philox import Stream, float_ids
from .reference import pixel_nll, render, reparameterise, sigmoid_grid

__all__ = ["Stream", "float_ids", "pixel_nll", "render", "reparameterise", "sigmoid_grid"]
