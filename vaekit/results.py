"""The dataset of a sweep: its schema as data, and how it is built, saved and opened.

`SCHEMA` and `COORDINATES` are the definition: what `build` makes, `save` writes and `open_results`
accepts is what they say, and nothing else. What `OPTIONAL` names may be absent: it is measured only
where the configuration asks for it, or is newer than the file.
"""

from __future__ import annotations

import reprlib
import tomllib
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from pydantic import BaseModel, Json, ValidationError

from vaekit.config import SweepConfig
from vaekit.digest import digest
from vaekit.errors import ResultsError
from vaekit.files import check_fits, whole_file

FILE_NAME = "results.nc"
DIRECTIONS = ("truth_to_code", "code_to_truth")
FITS = ("exact", "adam")
STATUSES = ("ok", "collapsed", "diverged")
# Images are stored in a byte: 252 steps over the range kept, and one value for "not a number".
IMAGE_STEPS = 252
NOT_A_NUMBER = 255
PICTURES_AT_ONCE = 1024
# Attributes that the file alone has: the digest of all else, and the number of the format. Files
# from before formats were numbered have no number, and the first of them no digest.
DIGEST = "sha256"
FORMAT = "format"
FORMAT_NUMBER = 1


class _Attributes(BaseModel):
    """Attributes that a dataset must have, as text or in JSON: what a page says of the run."""

    config: str
    versions: Json[dict[str, str]]
    device: str
    created: str
    command: str
    seconds: Json[dict[str, float]]
    seconds_total: float


@dataclass(frozen=True)
class Variable:
    """What one variable of the dataset is."""

    dims: tuple[str, ...]
    dtype: str
    units: str
    long_name: str
    image: bool = False


_CELL = ("mu", "beta", "seed")
_UNIT = (*_CELL, "latent")
_CURVE = (*_CELL, "step")
_PROBE = (*_CELL, "direction", "fit")
_BASELINE = ("baseline_seed", "direction", "fit")
_PICTURE = ("row", "col")

COORDINATES: dict[str, Variable] = {
    "mu": Variable(("mu",), "float64", "1", "mean of the truths before the sigmoid"),
    "beta": Variable(("beta",), "float64", "1", "weight of the KL"),
    "seed": Variable(("seed",), "int64", "1", "seed"),
    "direction": Variable(("direction",), "str", "1", "direction of the linear probe"),
    "fit": Variable(("fit",), "str", "1", "how the probe is fitted: least squares or 3 epochs"),
    "latent": Variable(("latent",), "int64", "1", "index of the latent"),
    "step": Variable(("step",), "int64", "steps", "last training step of the window"),
    "baseline_seed": Variable(("baseline_seed",), "int64", "1", "seed of the untrained network"),
    "example": Variable(("example",), "int64", "1", "index of the example image"),
    "example_r": Variable(("example_r",), "int64", "1", "index of the reconstructed image"),
    "row": Variable(("row",), "int64", "pixels", "image row"),
    "col": Variable(("col",), "int64", "pixels", "image column"),
    "latent_value": Variable(("latent_value",), "float64", "1", "value of the traversed latent"),
}

SCHEMA: dict[str, Variable] = {
    "probe_mse": Variable(_PROBE, "float64", "1", "linear probe MSE on the clean test grid"),
    "probe_r2": Variable(_PROBE, "float64", "1", "linear probe R2 on the clean test grid"),
    "decode_mse": Variable(
        (*_CELL, "fit"), "float64", "1", "MSE of D(P(truth)) against the image, per pixel"
    ),
    "decode_mse_constant": Variable(
        ("mu",), "float64", "1", "MSE of the training distribution's mean image, per pixel"
    ),
    "reconstruction_mse": Variable(
        _CELL, "float64", "1", "MSE of D(encode(x)) on the clean test grid, per pixel"
    ),
    "grid_recovery_r2": Variable(
        _CELL, "float64", "1", "R2 code to truth on the clean test grid, inactive latents dropped"
    ),
    "recovery_r2": Variable(
        _CELL, "float64", "1", "R2 code to truth on fresh noisy draws, inactive latents dropped"
    ),
    "active_units": Variable(
        _CELL, "int64", "units", "latents whose mean has a variance above 0.01"
    ),
    "rate": Variable(_CELL, "float64", "nats", "KL from the prior on fresh noisy draws"),
    "distortion": Variable(
        _CELL, "float64", "nats", "negative log-likelihood on fresh noisy draws"
    ),
    "elbo": Variable(_CELL, "float64", "nats", "evidence lower bound (beta = 1) on noisy draws"),
    "objective": Variable(_CELL, "float64", "nats", "distortion + beta rate on noisy draws"),
    "kl": Variable(_UNIT, "float64", "nats", "KL from the prior, per latent"),
    "code_variance": Variable(
        _UNIT, "float64", "1", "variance of the encoder's mean on noisy draws"
    ),
    "canonical_correlation": Variable(
        _UNIT, "float64", "1", "canonical correlations of code and truth on noisy draws"
    ),
    "information": Variable(
        _CELL, "float64", "nats", "Gaussian mutual information of code and truth on noisy draws"
    ),
    "information_ceiling": Variable(
        ("mu",), "float64", "nats", "mutual information of image and truth, which no code exceeds"
    ),
    "critical_beta": Variable(
        ("mu",), "float64", "1", "beta above which the collapsed state is stable, in theory"
    ),
    "status": Variable(_CELL, "str", "1", "ok, collapsed (no active unit) or diverged"),
    "diverged_at": Variable(
        _CELL, "int64", "steps", "first step whose loss or gradient was not finite; 0 if none was"
    ),
    "loss_curve": Variable(_CURVE, "float64", "nats", "training loss, mean over the window"),
    "kl_curve": Variable(_CURVE, "float64", "nats", "KL in training, mean over the window"),
    "nll_curve": Variable(
        _CURVE, "float64", "nats", "negative log-likelihood in training, mean over the window"
    ),
    "baseline_probe_mse": Variable(
        _BASELINE, "float64", "1", "linear probe MSE of untrained networks"
    ),
    "baseline_probe_r2": Variable(
        _BASELINE, "float64", "1", "linear probe R2 of untrained networks"
    ),
    "example_clean": Variable(
        ("mu", "example", *_PICTURE), "float32", "1", "training images before the noise", image=True
    ),
    "example_noisy": Variable(
        ("mu", "example", *_PICTURE), "float32", "1", "training images with noise", image=True
    ),
    "example_test": Variable(
        ("example", *_PICTURE), "float32", "1", "images of the test grid", image=True
    ),
    "reconstruction_input": Variable(
        ("mu", "example_r", *_PICTURE), "float32", "1", "images given to the encoder", image=True
    ),
    "reconstruction": Variable(
        ("mu", "beta", "example_r", *_PICTURE),
        "float32",
        "1",
        "D(encode(x)) of the first seed's model",
        image=True,
    ),
    "traversal": Variable(
        ("mu", "beta", "latent", "latent_value", *_PICTURE),
        "float32",
        "1",
        "decoded image with one latent moved and the others at 0, first seed",
        image=True,
    ),
}

OPTIONAL: dict[str, Variable] = {
    "aggregate_kl": Variable(
        _CELL, "float64", "nats", "KL of the aggregate posterior's moments from the prior"
    ),
    "baseline_recovery_r2": Variable(
        ("mu", "baseline_seed"), "float64", "1", "recovery R2 of untrained networks, noisy draws"
    ),
    "recovery_r2_few": Variable(
        _CELL, "float64", "1", "recovery R2 on as many draws as untrained networks are measured on"
    ),
    "estimator": Variable(("estimator",), "str", "1", "estimator of information"),
    "information_estimate": Variable(
        (*_CELL, "estimator"), "float64", "nats", "information of code and truth, noisy draws"
    ),
    "information_limit": Variable(
        ("estimator",), "float64", "nats", "most that the number of draws supports"
    ),
    "axis_metric": Variable(
        ("axis_metric",), "str", "1", "score that depends on the latents' axes"
    ),
    "axis_score": Variable(
        (*_CELL, "axis_metric"), "float64", "1", "AXIS-DEPENDENT: seed noise where tiles are alike"
    ),
}


def _present(names: Iterable[object]) -> dict[str, Variable]:
    """Everything that a dataset with these variables must hold, and how."""
    given = set(names)
    # With a variable come the labels of its columns.
    given |= {dim for name in given & OPTIONAL.keys() for dim in OPTIONAL[str(name)].dims}
    optional = {name: variable for name, variable in OPTIONAL.items() if name in given}
    return {**COORDINATES, **SCHEMA, **optional}


def build(
    config: SweepConfig,
    arrays: Mapping[str, npt.ArrayLike],
    attrs: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Make the labelled dataset of a sweep from bare arrays.

    Images are rounded here to what the file will hold, so that the dataset in memory and the one
    read back are equal.

    Args:
        config: gives the coordinates mu, beta, seed and latent, and goes into the attributes.
        arrays: one array for each variable of `SCHEMA`, axes in the schema's order; any of
            `OPTIONAL`; and the coordinates that the configuration does not fix: "step" (last step
            of each window of the curves) and "latent_value" (of the traversals). Others may be
            given too; by default they count from 0.
        attrs: how the run was made: device, versions, command and so on.

    Returns:
        The dataset, every variable with units and long_name.

    Raises:
        ResultsError: an array is missing, unknown, or of another shape than the schema says.
    """
    fixed: dict[str, npt.ArrayLike] = {
        "mu": config.mu,
        "beta": config.beta,
        "seed": config.seed_values,
        "direction": DIRECTIONS,
        "fit": FITS,
        "latent": range(config.latents),
    }
    for name in arrays:
        if name not in _present(arrays):
            raise ResultsError("dataset", "not a variable of the schema", name)
    values = {name: np.asarray(array) for name, array in (fixed | dict(arrays)).items()}
    for name, variable in _present(values).items():
        if name in COORDINATES:
            continue
        if name not in values:
            raise ResultsError("dataset", "missing", name)
        if values[name].ndim != len(variable.dims):
            raise ResultsError("dataset", _shape_problem(variable, values[name].shape), name)
        for dim, size in zip(variable.dims, values[name].shape, strict=True):
            if dim not in values:
                values[dim] = np.arange(size)
            if values[dim].shape != (size,):
                raise ResultsError("dataset", _shape_problem(variable, values[name].shape), name)

    low, high = _image_range(config)
    encoding = _image_encoding(low, high)
    dataset = xr.Dataset(attrs={"config": config.to_toml(), **(attrs or {})})
    for name, variable in _present(values).items():
        array = values[name].astype(variable.dtype)
        if variable.image:
            array = _as_stored(array, low, high)
        labels = {"units": variable.units, "long_name": variable.long_name}
        dataset[name] = xr.Variable(variable.dims, array, labels)
        if variable.image:
            dataset[name].encoding = dict(encoding)
    return dataset


def save(dataset: xr.Dataset, path: Path | str) -> None:
    """Write a dataset as one netCDF file, compressed and checksummed, whole or not at all.

    Args:
        dataset: as `build` makes it.
        path: the file; what is there is replaced.

    Raises:
        ResultsError: the dataset is not what the schema says.
        OSError: it cannot be written; then nothing has changed.
    """
    _validate(dataset, path)
    encoding = {}
    for name, variable in _present(dataset.variables).items():
        storage: dict[str, Any] = {}
        # HDF5 compresses neither strings of varying length nor arrays without elements.
        if variable.dtype != "str" and dataset[name].size:
            storage = {"zlib": True, "complevel": 4, "shuffle": True, "fletcher32": True}
        if variable.image:
            storage |= dataset[name].encoding
        encoding[name] = storage
    signed = dataset.assign_attrs({DIGEST: digest(dataset), FORMAT: FORMAT_NUMBER})
    with whole_file(path) as temporary:
        signed.to_netcdf(temporary, engine="h5netcdf", encoding=encoding)


def in_order(dataset: xr.Dataset) -> xr.Dataset:
    """Sort mu and beta, unless they are: a copy of everything takes as long as drawing some."""
    axes = ["mu", "beta"]
    ordered = all(dataset.indexes[axis].is_monotonic_increasing for axis in axes)
    return dataset if ordered else dataset.sortby(axes)


def open_results(path: Path | str, notice: Callable[[str], object] = warnings.warn) -> xr.Dataset:
    """Read a sweep's dataset, all of it, and check it against the schema.

    Args:
        path: a run directory, or the file in it.
        notice: is told where a file is from before there was a checksum, which is read unchecked.

    Returns:
        The dataset, in memory; the file is closed.

    Raises:
        ResultsError: there is no such file, it is damaged, of another format, does not fit in
            memory, or is not a sweep's dataset; the message names the file and the variable.
    """
    path = Path(path)
    file = path / FILE_NAME if path.is_dir() else path
    if not file.is_file():
        raise ResultsError(file, "there is no such file")
    variables, attrs = _load(file)
    number, written = (attrs.pop(name, None) for name in (FORMAT, DIGEST))
    if number is not None and not np.array_equal(number, FORMAT_NUMBER):
        problem = f"is {reprlib.repr(number)}; allowed: {FORMAT_NUMBER}, that of this vaekit"
        raise ResultsError(file, problem, FORMAT)
    try:
        dataset = _by_schema(variables, attrs, file)
    except ResultsError as error:
        if number is not None:
            raise
        why = "the file has no format number: it is of an older vaekit, or not a sweep's"
        raise ResultsError(file, f"{error.problem} ({why})", error.variable) from None
    if written is None and number is None:
        notice(f"{file}: is from before datasets had a checksum, so damage may go unseen")
    elif not (isinstance(written, str) and written == digest(dataset)):
        raise ResultsError(file, "damaged: its checksum is another", DIGEST)
    return dataset


def _load(file: Path) -> tuple[dict[str, xr.Variable], dict[str, Any]]:
    """Read the variables and attributes of a netCDF file, whatever it is."""
    # A damaged file makes HDF5 and the layers on it raise almost anything.
    failures = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, IndexError)
    try:
        opened = xr.open_dataset(file, engine="h5netcdf")
    except (*failures, MemoryError) as error:
        raise ResultsError(file, f"not a readable netCDF file ({error})") from error
    with opened:
        try:
            check_fits(file, sum(found.nbytes for found in opened.variables.values()))
        except OSError as error:
            raise ResultsError(file, f"cannot be read ({error.strerror})") from None
        loaded = {}
        for name, found in opened.variables.items():
            try:
                loaded[str(name)] = found.load()
            except (*failures, MemoryError) as error:
                raise ResultsError(file, f"damaged ({error})", str(name)) from error
        return loaded, dict(opened.attrs)


def _by_schema(found: dict[str, xr.Variable], attrs: dict[str, Any], file: Path) -> xr.Dataset:
    """Check what was read against the schema, and give every variable the schema's type."""
    typed = {}
    for name, variable in _present(found).items():
        if name not in found:
            raise ResultsError(file, "missing", name)
        values = found[name]
        if values.dims != variable.dims:
            raise ResultsError(file, _shape_problem(variable, values.dims), name)
        if not _same_kind(values.dtype, variable.dtype):
            raise ResultsError(file, f"holds {values.dtype}; allowed: {variable.dtype}", name)
        typed[name] = values.astype(variable.dtype, keep_attrs=True)
        if variable.image:
            kept = ("dtype", "scale_factor", "add_offset", "_FillValue")
            typed[name].encoding = {key: values.encoding.get(key) for key in kept}
    try:
        dataset = xr.Dataset(typed, attrs=attrs)
    except ValueError as error:  # axes of one name and two lengths
        raise ResultsError(file, f"damaged ({error})") from None
    _validate(dataset, file)
    return dataset


def settings(dataset: xr.Dataset) -> dict[str, Any]:
    """Return the configuration that a dataset was made with, field -> value."""
    return SweepConfig(**tomllib.loads(dataset.attrs["config"])).model_dump(mode="json")


def _validate(dataset: xr.Dataset, where: object) -> None:
    """Raise a ResultsError unless a dataset is what the schema says."""
    for name in dataset.variables:
        if name not in _present(dataset.variables):
            raise ResultsError(where, "not a variable of the schema", str(name))
    for name, variable in _present(dataset.variables).items():
        if name not in dataset.variables:
            raise ResultsError(where, "missing", name)
        if dataset[name].dims != variable.dims:
            raise ResultsError(where, _shape_problem(variable, dataset[name].dims), name)
    allowed = {"direction": DIRECTIONS, "fit": FITS}
    for name, labels in allowed.items():
        if tuple(dataset[name].values) != labels:
            raise ResultsError(
                where, f"holds {list(dataset[name].values)}; allowed: {labels}", name
            )
    strange = sorted(set(dataset["status"].values.ravel().tolist()) - set(STATUSES))
    if strange:
        raise ResultsError(where, f"holds {strange[0]!r}; allowed: {', '.join(STATUSES)}", "status")
    try:
        _Attributes(**dataset.attrs)
    except ValidationError as error:
        (name, *_), found = error.errors()[0]["loc"], error.errors()[0]["msg"]
        raise ResultsError(where, f"attribute: {found}", str(name)) from None
    try:
        settings(dataset)
    # An integer of thousands of digits is a plain ValueError, and brackets nest too deep.
    except (ValueError, RecursionError) as error:
        raise ResultsError(where, f"attribute is no configuration ({error})", "config") from None


def _same_kind(found: np.dtype[Any], wanted: str) -> bool:
    """Whether a stored type is a spelling of the schema's (strings and integers have several)."""
    kinds = {"str": "OUT", "int64": "iu", "float32": "f", "float64": "f"}
    return found.kind in kinds[wanted]


def _shape_problem(variable: Variable, found: object) -> str:
    return f"has {found}; allowed: {variable.dims}"


def _image_range(config: SweepConfig) -> tuple[float, float]:
    """Pixel values that images keep; what lies outside is clipped to them."""
    if config.generator == "sigmoid":
        return -0.5, 1.5
    # The linear grid's images are N(mu, 1) with noise, wherever mu is.
    reach = 4 * (1 + config.noise_variance) ** 0.5
    return min(config.mu) - reach, max(config.mu) + reach


def _image_encoding(low: float, high: float) -> dict[str, Any]:
    return {
        "dtype": "uint8",
        "scale_factor": (high - low) / IMAGE_STEPS,
        "add_offset": low,
        "_FillValue": np.uint8(NOT_A_NUMBER),
    }


def _as_stored(array: np.ndarray, low: float, high: float) -> np.ndarray:
    """Round images to the values that a byte keeps, in the arithmetic of the reader."""
    scale = (high - low) / IMAGE_STEPS
    stored = np.empty(array.shape, dtype="float32")
    # A few pictures at a time: float64 copies of all would take more than the dataset.
    pictures, rounded = (part.reshape(-1, *array.shape[-2:]) for part in (array, stored))
    for first in range(0, len(pictures), PICTURES_AT_ONCE):
        some = slice(first, first + PICTURES_AT_ONCE)
        code = np.round((np.clip(pictures[some].astype("float64"), low, high) - low) / scale)
        rounded[some] = code * scale + low
    return stored
