"""The dataset keeps its schema from arrays to file and back, and bad files are named errors."""

from __future__ import annotations

from pathlib import Path

import h5netcdf
import h5py
import numpy as np
import pytest
import xarray as xr

from synthetic import small_config, synthetic_arrays, synthetic_dataset
from vaekit.config import SweepConfig
from vaekit.results import (
    COORDINATES,
    OPTIONAL,
    SCHEMA,
    ResultsError,
    build,
    open_results,
    save,
    settings,
)


@pytest.fixture(scope="module")
def dataset() -> xr.Dataset:
    return synthetic_dataset(small_config(seeds=2))


@pytest.fixture(scope="module")
def file(dataset: xr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "results.nc"
    save(dataset, path)
    return path


def test_the_dataset_is_the_schema(dataset: xr.Dataset) -> None:
    assert set(dataset.variables) == set(SCHEMA) | set(COORDINATES)
    for name, variable in {**COORDINATES, **SCHEMA}.items():
        assert dataset[name].dims == variable.dims, name
        assert dataset[name].attrs["units"] == variable.units, name
        assert dataset[name].attrs["long_name"] == variable.long_name, name
        kind = "U" if variable.dtype == "str" else np.dtype(variable.dtype).kind
        assert dataset[name].dtype.kind == kind, name
    assert dict(dataset.sizes)["seed"] == 2
    assert list(dataset["beta"].values) == [0.5, 2.0, 8.0]


def test_a_file_reads_back_identical(dataset: xr.Dataset, file: Path) -> None:
    for path in (file, file.parent, str(file)):
        loaded = open_results(path)
        xr.testing.assert_identical(loaded, dataset)
        assert all(loaded[name].dtype == dataset[name].dtype for name in dataset.variables)
        assert all(isinstance(loaded[name].variable._data, np.ndarray) for name in SCHEMA)


def test_what_was_opened_can_be_saved_again(file: Path, tmp_path: Path) -> None:
    first = open_results(file)
    save(first, tmp_path / "again.nc")
    xr.testing.assert_identical(open_results(tmp_path / "again.nc"), first)


def test_the_file_is_closed_after_reading(file: Path, tmp_path: Path) -> None:
    path = tmp_path / "copy.nc"
    path.write_bytes(file.read_bytes())
    loaded = open_results(path)
    path.unlink()
    assert np.isfinite(loaded["critical_beta"].values).all()


def test_the_configuration_comes_back(dataset: xr.Dataset) -> None:
    found = settings(dataset)
    assert found["decoder_variance"] == 0.25
    assert found["mu"] == [0.0, 1.0, 2.5, 5.0]


def test_images_are_bytes_that_keep_black_white_and_not_a_number(file: Path) -> None:
    config = small_config()
    arrays = synthetic_arrays(config)
    noisy = arrays["example_noisy"]
    noisy[0, 0, 0, :5] = [0.0, 1.0, -9.0, 9.0, np.nan]
    built = build(config, arrays, synthetic_dataset(config).attrs)
    stored = built["example_noisy"].values[0, 0, 0, :5]
    np.testing.assert_array_equal(stored, np.float32([0.0, 1.0, -0.5, 1.5, np.nan]))
    kept = np.clip(noisy, -0.5, 1.5)
    assert np.nanmax(np.abs(built["example_noisy"].values - kept)) <= 1 / 252 + 1e-6
    with xr.open_dataset(file, engine="h5netcdf", mask_and_scale=False) as raw:
        for name, variable in SCHEMA.items():
            if variable.image:
                assert raw[name].dtype == np.uint8, name


def test_images_of_the_linear_grid_are_not_clipped_to_black_and_white() -> None:
    config = small_config(generator="linear", decoder_output="linear", test_levels=(-1.0, 1.0))
    built = synthetic_dataset(config)
    assert built["example_clean"].sel(mu=5.0).max() > 4


@pytest.mark.parametrize(
    "changes",
    [
        {"baseline_seeds": 0},
        {"mu": (0.0,), "beta": (1.0,), "steps": 1},
        {"latents": 1, "grid": 1, "tile": 1},
        {"likelihood": "bernoulli", "seeds": 3, "first_seed": 2**60},
    ],
)
def test_every_size_of_sweep_goes_through_the_file(changes: dict, tmp_path: Path) -> None:
    made = synthetic_dataset(small_config(**changes))
    save(made, tmp_path / "results.nc")
    xr.testing.assert_identical(open_results(tmp_path), made)


def test_build_names_what_is_wrong() -> None:
    config = small_config()
    good = synthetic_arrays(config)
    with pytest.raises(ResultsError, match="recovery_r2: missing") as caught:
        build(config, {name: array for name, array in good.items() if name != "recovery_r2"})
    assert caught.value.variable == "recovery_r2"
    with pytest.raises(ResultsError, match="surprise: not a variable"):
        build(config, {**good, "surprise": np.zeros(3)})
    with pytest.raises(ResultsError, match=r"kl: has \(4, 3, 1\); allowed: \('mu', 'beta'"):
        build(config, {**good, "kl": good["rate"]})
    with pytest.raises(ResultsError, match=r"rate: has \(3, 4, 1\)"):
        build(config, {**good, "rate": good["rate"].swapaxes(0, 1)})


def test_missing_files_are_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.nc"):
        with pytest.raises(ResultsError, match="no such file") as caught:
            open_results(path)
        assert str(path) in str(caught.value)


def test_foreign_files_are_named(tmp_path: Path) -> None:
    text = tmp_path / "text.nc"
    text.write_text("mu,beta\n0,1\n")
    empty = tmp_path / "empty.nc"
    empty.write_bytes(b"")
    other = tmp_path / "other.nc"
    xr.Dataset({"temperature": ("x", [1.0, 2.0])}).to_netcdf(other, engine="h5netcdf")
    for path, problem in ((text, "not a readable"), (empty, "not a readable"), (other, "missing")):
        with pytest.raises(ResultsError, match=problem) as caught:
            open_results(path)
        assert str(path) in str(caught.value)


def rewritten(file: Path, path: Path, change: object) -> Path:
    """Copy a file through a change of its dataset, past our own checks."""
    with xr.open_dataset(file, engine="h5netcdf") as opened:
        change(opened.load()).to_netcdf(path, engine="h5netcdf")  # type: ignore[operator]
    return path


@pytest.mark.parametrize(
    ("change", "variable"),
    [
        (lambda d: d.drop_vars("recovery_r2"), "recovery_r2"),
        (lambda d: d.rename(rate="ratio"), "rate"),
        (lambda d: d.assign(kl=d["kl"].transpose()), "kl"),
        (lambda d: d.assign(kl=d["kl"].sum("latent")), "kl"),
        (lambda d: d.assign(status=d["status"].where(d["mu"] > 0, "fine")), "status"),
        (lambda d: d.assign(rate=d["status"]), "rate"),
        (lambda d: d.isel(fit=[1, 0]), "fit"),
        (lambda d: d.drop_attrs(deep=False), "config"),
        (lambda d: d.assign_attrs(config="mu = ["), "config"),
    ],
)
def test_a_wrong_variable_is_named(
    change: object, variable: str, file: Path, tmp_path: Path
) -> None:
    path = rewritten(file, tmp_path / "changed.nc", change)
    with pytest.raises(ResultsError) as caught:
        open_results(path)
    assert caught.value.variable == variable
    assert str(path) in str(caught.value)


def test_every_array_is_checksummed(file: Path) -> None:
    """Compression finds most damage, but HDF5 leaves out what it would not make smaller."""
    with h5py.File(file) as raw:
        for name, variable in {**COORDINATES, **SCHEMA}.items():
            if variable.dtype != "str":
                assert raw[name].fletcher32, name


# h5netcdf's File trips over itself in its destructor when its constructor has failed.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <function File.close")
def test_damage_is_found(tmp_path: Path) -> None:
    """A cut or altered file gives a named error, or (in bytes that hold nothing) the same data."""
    dataset = synthetic_dataset(small_config(mu=(0.0, 1.0), tile=3, latents=4))
    path = tmp_path / "results.nc"
    save(dataset, path)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    found = 0
    for cut in rng.integers(0, len(content), 50):
        path.write_bytes(content[:cut])
        with pytest.raises(ResultsError, match=r"results\.nc"):
            open_results(path)
    for place in rng.integers(0, len(content) - 256, 25):
        path.write_bytes(content[:place] + rng.bytes(256) + content[place + 256 :])
        found += is_refused(path, dataset)
    assert found >= 5


def is_refused(path: Path, dataset: xr.Dataset) -> bool:
    """Whether a damaged file is refused; what is read of it otherwise must be the dataset."""
    try:
        loaded = open_results(path)
    except ResultsError:
        return True
    xr.testing.assert_identical(loaded, dataset)
    return False


@pytest.mark.filterwarnings("ignore:Exception ignored in. <function File.close")
def test_no_flipped_bit_of_two_hundred_changes_what_is_read(tmp_path: Path) -> None:
    """It is refused, or (in bytes that hold nothing) the very same dataset is read."""
    dataset = synthetic_dataset(small_config(mu=(0.0, 1.0), tile=3, latents=4))
    path = tmp_path / "results.nc"
    save(dataset, path)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    seen = 0
    for place in rng.integers(0, len(content), 200).tolist():
        broken = bytearray(content)
        broken[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(broken)
        seen += is_refused(path, dataset)
    assert seen >= 20


def test_a_dataset_that_does_not_fit_in_memory_is_refused_unread(
    file: Path, tmp_path: Path
) -> None:
    """A variable of a thousand terabytes that nobody wrote takes no room in a file."""
    path = tmp_path / "results.nc"
    path.write_bytes(file.read_bytes())
    with h5netcdf.File(path, "r+") as raw:
        raw.dimensions.update({"long": 10**9, "wide": 10**6})
        raw.create_variable("huge", ("long", "wide"), "u1", chunks=(1, 1000))
    with pytest.raises(
        ResultsError, match=r"takes 1,000,0\d\d,\d{3},\d{3},\d{3} bytes, and .* are free"
    ):
        open_results(path)


@pytest.mark.parametrize("place", ["attribute", "label", "value"])
def test_a_file_that_was_changed_by_hand_is_refused(file: Path, tmp_path: Path, place: str) -> None:
    """Where HDF5 has no checksum, or gets a new one."""
    changed = tmp_path / "results.nc"
    changed.write_bytes(file.read_bytes())
    with h5py.File(changed, "r+") as raw:
        if place == "attribute":
            raw.attrs["device"] = "another"
        elif place == "label":
            raw["rate"].attrs["units"] = "bits"
        else:
            raw["rate"][...] += 1
    with pytest.raises(ResultsError, match="checksum"):
        open_results(changed)


def optional(dataset_config: SweepConfig) -> dict[str, np.ndarray]:
    """Every optional variable, with two estimators and one axis score."""
    cell = (len(dataset_config.mu), len(dataset_config.beta), dataset_config.seeds)
    return {
        "aggregate_kl": np.full(cell, 1.5),
        "baseline_recovery_r2": np.full((cell[0], dataset_config.baseline_seeds), 0.25),
        "recovery_r2_few": np.full(cell, 0.5),
        "estimator": np.array(["ksg", "mine"]),
        "information_limit": np.array([7.0, 6.0]),
        "information_estimate": np.full((*cell, 2), 6.5),
        "axis_metric": np.array(["sap"]),
        "axis_score": np.full((*cell, 1), 0.1),
    }


def test_what_is_optional_may_be_there_or_not(tmp_path: Path) -> None:
    config = small_config()
    attrs = synthetic_dataset(config).attrs
    whole = build(config, synthetic_arrays(config) | optional(config), attrs)
    assert set(whole.variables) == set(SCHEMA) | set(COORDINATES) | set(OPTIONAL)
    save(whole, tmp_path / "results.nc")
    xr.testing.assert_identical(open_results(tmp_path), whole)
    part = whole.drop_dims("estimator")
    save(part, tmp_path / "part.nc")
    assert "estimator" not in open_results(tmp_path / "part.nc").variables
    with pytest.raises(ResultsError, match="estimator"):
        save(whole.drop_vars("estimator"), tmp_path / "headless.nc")


def test_save_refuses_what_open_would_refuse(dataset: xr.Dataset, tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="rate: missing"):
        save(dataset.drop_vars("rate"), tmp_path / "results.nc")
    assert not list(tmp_path.iterdir())
