"""torch.compile: whether it can build programs here, and the peers that are built by it."""

from __future__ import annotations

from functools import cache

import torch


@cache
def compiler_missing() -> str:
    """Say why torch.compile builds no programs for this CPU; an empty text where it does."""
    try:
        torch.compile(lambda x: x + 1.0)(torch.ones(3))
    except RuntimeError as error:
        line = str(error).strip().splitlines()[0]
        return f"torch.compile finds no working C++ compiler ({type(error).__name__}: {line})"
    return ""
