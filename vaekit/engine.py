"""Which engine trains a stack: the one place that decides, and the one that says why."""

from __future__ import annotations

import torch

from vaekit.compiled_step import CompiledStep
from vaekit.compiler import compiler_missing
from vaekit.config import ConfigError, SweepConfig
from vaekit.host import KEPT
from vaekit.model import Architecture
from vaekit.parts import Parts, part_count
from vaekit.state import State
from vaekit.step import ReferenceStep, Step, TorchStep, TritonStep
from vaekit_kernels import runs_triton

# What each engine multiplies in, besides float32.
PRECISIONS = {
    "reference": (),
    "torch": ("bf16",),
    "compiled": (),
    "triton": ("tf32x3", "tf32", "bf16"),
}
DESCRIPTIONS = {
    "reference": "autograd on stacked tensors",
    "torch": "the backward pass written out in torch operations",
    "compiled": "the same as one program, built by torch.compile",
    "triton": "fused kernels, replayed as a CUDA graph",
}
# On a CPU more models share the cost of a call and fewer stay in cache; machines weigh that each in
# its own way, and this one from day to day: a model-step of the default network in stacks of 11, 22
# and 44 took 1.18, 1.18, 1.22 ms and 1.26, 1.26, 1.16 in two runs on two threads of an Intel Xeon,
# 0.81, 0.75, 0.72 on two of an AMD EPYC (`nox -s bench`, the engine torch). 24 default models are
# about what a compiled step's memory allows (`KEPT`). A timing of its own would make the plan, and
# so the bits, a matter of luck.
CPU_STACK = 24
# On two threads of that Xeon the step and its inputs compile in 26 s, or in 5 where torch has them
# in its cache. The `laptop` preset's 220,000 model-steps trained in 281 and 302 s with the engine
# torch, in 235 and 245 s compiled, with a cache that was in part there.
REPAID_MODEL_STEPS = 200_000


def engine_name(config: SweepConfig, device: torch.device) -> str:
    """Resolve "auto": triton on CUDA where Triton is installed, on a CPU compiled or torch.

    Which of the two rests on the configuration and on whether there is a compiler. Timing them
    would make the choice, and so the bits, a matter of luck.

    Raises:
        ConfigError: the engine cannot run there, or does not offer the precision.
    """
    name = config.engine
    here = torch.zeros(0, device=device)
    if name == "auto":
        name = "triton" if runs_triton("auto", here) else "torch"
        if device.type == "cpu" and config.precision == "float32" and _repays(config):
            name = "torch" if compiler_missing() else "compiled"
    elif name == "compiled":
        if device.type != "cpu":
            raise ConfigError("engine", name, f"auto, reference, torch, triton on {device}")
        if reason := compiler_missing():
            raise ConfigError("engine", name, f"auto, reference, torch ({reason})")
    elif name == "triton":
        try:
            runs_triton("triton", here)
        except ValueError as error:
            raise ConfigError("engine", name, f"auto, reference, torch ({error})") from None
    if name == "triton":
        _check_offsets(config)
    # AMD's compiler has no such product.
    lacking = ("tf32x3",) if torch.version.hip else ()
    allowed = ["float32", *(kind for kind in PRECISIONS[name] if kind not in lacking)]
    if config.precision not in allowed:
        where = f"{', '.join(allowed)} with the engine {name} on {device}"
        raise ConfigError("precision", config.precision, where)
    return name


def _check_offsets(config: SweepConfig) -> None:
    """Refuse what kernels cannot address: a place within one model's tensor is a 32-bit number.

    Raises:
        ConfigError: a weight or an activation of one model holds 2**31 values or more.
    """

    def padded(width: int) -> int:
        # A row, at the most: mean and logvar are padded each by itself.
        return width + 32

    sizes = Architecture.of(config).sizes
    if any(padded(i) * padded(o) >= 2**31 for i, o in sizes):
        fits = "layers of less than 2**31 weights with the engine triton; torch has no such limit"
        raise ConfigError("hidden", config.hidden, fits)
    widest = max(padded(width) for size in sizes for width in size)
    # Gradients are kept by samples too, in rows that are padded to 16 of them.
    most = (2**31 - 1) // widest // 16 * 16
    if config.batch > most:
        fits = f"at most {most:,} with the engine triton and these layers"
        raise ConfigError("batch", config.batch, fits)


def _repays(config: SweepConfig) -> bool:
    """Tell whether compiling a sweep's step is repaid: it is long, and a step's memory is kept."""
    architecture = Architecture.of(config)
    models = len(config.mu) * len(config.beta) * config.seeds
    activations = 2 * config.batch * sum(size for _, size in architecture.sizes)
    step_bytes = (
        4 * (architecture.parameters + activations) * min(config.stack or CPU_STACK, models)
    )
    return models * config.steps >= REPAID_MODEL_STEPS and step_bytes <= KEPT


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
        count = part_count(streams, state.vae.models, state.vae.flat.device)
        if count > 1:
            return Parts(config, state, streams, count)
        return TritonStep(config, state, streams)
    if name == "compiled":
        return CompiledStep(config, state, streams)
    if name == "torch":
        return TorchStep(config, state, streams)
    return ReferenceStep(config, state)
