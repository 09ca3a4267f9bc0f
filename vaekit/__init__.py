"""Train hundreds of small beta-VAEs at once on biased data and measure what each one recovered."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vaekit.config import SweepConfig as SweepConfig
    from vaekit.results import open_results as open_results
    from vaekit.sweep import run_sweep as run_sweep

__version__ = "0.1.0"
__all__ = ["SweepConfig", "__version__", "open_results", "run_sweep"]

# Loaded at first use: `import vaekit` must not cost the seconds that torch and xarray take.
_HOME = {
    "SweepConfig": "vaekit.config",
    "open_results": "vaekit.results",
    "run_sweep": "vaekit.sweep",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
