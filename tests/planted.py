"""An arm of a study that nobody trained, for outcomes to be planted in."""

from __future__ import annotations

import numpy as np
import xarray as xr

from synthetic import synthetic_dataset
from vaekit.config import SweepConfig

BASE = {
    "mu": (0.0, 1.0, 2.0, 3.0),
    "beta": (0.5, 1.0, 2.0, 4.0, 8.0, 12.0),
    "seeds": 3,
    "steps": 300,
    "curve_points": 4,
    "baseline_seeds": 5,
}


def dataset(**changes: object) -> xr.Dataset:
    """An arm nobody trained, none of it diverged."""
    made = synthetic_dataset(SweepConfig(**{**BASE, **changes}))
    broken = made["status"] == "diverged"
    for name in ("recovery_r2", "decode_mse", "probe_mse", "loss_curve", "elbo"):
        made[name] = made[name].where(~broken, 0.5)
    made["status"] = made["status"].where(~broken, "ok")
    return made.assign(active_units=made["active_units"].where(~broken, 9))


def with_boundary(made: xr.Dataset, shift: int) -> xr.Dataset:
    """Units that live exactly up to theory's boundary, moved by some beta steps."""
    place = xr.DataArray(np.arange(made.sizes["beta"]), dims="beta")
    expected = (made["beta"] < made["critical_beta"]).sum("beta")
    alive = (place < expected + shift) & (made["seed"] >= 0)
    units = xr.where(alive, 9, 0).transpose("mu", "beta", "seed")
    status = xr.where(alive, "ok", "collapsed").transpose("mu", "beta", "seed")
    return made.assign(active_units=units, status=status)
