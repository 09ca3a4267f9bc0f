"""One checksum of a whole dataset: HDF5 has them for numbers alone, not for texts and labels."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import xarray as xr


def digest(dataset: xr.Dataset) -> str:
    """Return the SHA-256 of every name, dimension, type, value and attribute, in hexadecimal.

    It depends neither on the order of variables and attributes nor on what a file makes of their
    types: text of any width is text, a number of NumPy's is a number, and all NaNs are one.

    Args:
        dataset: variables of any shape, of numbers or text.
    """
    total = hashlib.sha256(_canonical(dataset.attrs))
    for name in sorted(map(str, dataset.variables)):
        variable = dataset.variables[name]
        values = np.asarray(variable.values)
        kind = "text" if values.dtype.kind in "OUT" else values.dtype.str
        total.update(_canonical([name, variable.dims, values.shape, kind, variable.attrs]))
        if kind == "text":
            total.update(_canonical(values.tolist()))
        elif values.dtype.kind == "f":
            one = np.array(np.nan, values.dtype)
            total.update(np.where(np.isnan(values), one, values).tobytes())
        else:
            total.update(values.tobytes())
    return total.hexdigest()


def _canonical(value: Any) -> bytes:
    plain = json.dumps(value, sort_keys=True, default=lambda other: np.asarray(other).tolist())
    return plain.encode()
