"""Closed forms that the measurements are held against: no training, no files.

`README.md` in this folder derives them.
"""

from __future__ import annotations

from vaekit.theory.ceiling import information_ceiling
from vaekit.theory.critical import critical_beta
from vaekit.theory.intensity import (
    constant_predictor_mse,
    intensity_mean,
    intensity_variance,
    sigmoid,
)
from vaekit.theory.linear import LinearOptimum, LinearSolution, linear_optimum, linear_solution
from vaekit.theory.probes import GridMeasures, grid_measures

__all__ = [
    "GridMeasures",
    "LinearOptimum",
    "LinearSolution",
    "constant_predictor_mse",
    "critical_beta",
    "grid_measures",
    "information_ceiling",
    "intensity_mean",
    "intensity_variance",
    "linear_optimum",
    "linear_solution",
    "sigmoid",
]
