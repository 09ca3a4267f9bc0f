"""torch.compile: whether it can build programs for this CPU, and how one is built."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from functools import cache, wraps
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")
# Programs of one function that torch keeps; beyond its own limit of 8 it gives up compiling.
PROGRAMS = 4096


@cache
def compiler_missing() -> str:
    """Say why torch.compile builds no programs for this CPU; an empty text where it does."""
    try:
        torch.compile(lambda x: x + 1.0)(torch.ones(3))
    # No compiler, or no place for what it builds.
    except (RuntimeError, OSError) as error:
        line = next(iter(str(error).strip().splitlines()), "no reason given")
        return f"torch.compile builds no programs here ({type(error).__name__}: {line})"
    return ""


@cache
def compiler_version() -> str:
    """Name the C++ compiler that torch.compile builds programs with, and its version if it says."""
    # Not before it is asked for: it loads torch's compiler.
    from torch._inductor.cpp_builder import get_cpp_compiler

    name = get_cpp_compiler()
    try:
        done = subprocess.run(  # noqa: S603 (the one that torch runs)
            [name, "--version"], capture_output=True, text=True, check=False
        )
    except OSError:
        return name
    # As much as a manifest holds.
    return done.stdout.partition("\n")[0][:200] or name


def program(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Callable[P, R]:
    """Compile a function whole, for the shapes of these arguments, and run it once.

    The program is good for calls under the settings that it was built under (`torch.no_grad`,
    threads, the library of products); under others torch compiles it once more.

    Args:
        function: has no effect but its result.
        args, kwargs: of the first call, whose result is dropped.
    """
    built = torch.compile(function, dynamic=False, fullgraph=True)
    # One for all calls: each that torch makes stays in the thread's context for good.
    limits = torch._dynamo.config.patch(
        {"recompile_limit": PROGRAMS, "accumulated_recompile_limit": PROGRAMS}
    )

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with limits:
            return built(*args, **kwargs)

    run(*args, **kwargs)
    return run
