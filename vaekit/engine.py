"""Which engine trains a stack: the one place that decides, and the one that says why."""

from __future__ import annotations

import torch

from vaekit.config import ConfigError, SweepConfig
from vaekit.state import State
from vaekit.step import ReferenceStep, Step, TorchStep, TritonStep
from vaekit_kernels import runs_triton

# What each engine multiplies in, besides float32.
PRECISIONS = {"reference": (), "torch": ("bf16",), "triton": ("tf32", "bf16")}
DESCRIPTIONS = {
    "reference": "autograd on stacked tensors",
    "torch": "the backward pass written out in torch operations",
    "triton": "fused kernels, replayed as a CUDA graph",
}


def engine_name(config: SweepConfig, device: torch.device) -> str:
    """Resolve "auto": triton on CUDA where Triton is installed, torch everywhere else.

    Raises:
        ConfigError: the engine cannot run there, or does not offer the precision.
    """
    name = config.engine
    here = torch.zeros(0, device=device)
    if name == "auto":
        name = "triton" if runs_triton("auto", here) else "torch"
    elif name == "triton":
        try:
            runs_triton("triton", here)
        except ValueError as error:
            raise ConfigError("engine", name, f"auto, reference, torch ({error})") from None
    allowed = ("float32", *PRECISIONS[name])
    if config.precision not in allowed:
        where = f"{', '.join(allowed)} with the engine {name} on {device}"
        raise ConfigError("precision", config.precision, where)
    return name


def make_step(config: SweepConfig, state: State, streams: int) -> Step:
    """Make the engine of a configuration for a state.

    Args:
        config: names the engine and the precision.
        state: M models, whose device decides where "auto" is asked for.
        streams: S, a divisor of M.

    Raises:
        ConfigError: as `engine_name`.
    """
    name = engine_name(config, state.vae.flat.device)
    if name == "triton":
        return TritonStep(config, state, streams)
    if name == "torch":
        return TorchStep(config, state, streams)
    return ReferenceStep(config, state)
