"""The whole main job at its smallest: what lands in the run directory, and that it lands whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from vaekit import sweep
from vaekit.config import ConfigError, SweepConfig
from vaekit.progress import Silent
from vaekit.results import open_results


def config(**changes: object) -> SweepConfig:
    tiny = {
        "mu": (0.0, 3.0),
        "beta": (0.5, 8.0),
        "seeds": 2,
        "steps": 12,
        "hidden": (16,),
        "batch": 8,
        "grid": 2,
        "tile": 3,
        "latents": 3,
        "evaluation_draws": 128,
        "baseline_seeds": 3,
        "curve_points": 4,
        "device": "cpu",
    }
    return SweepConfig(**{**tiny, **changes})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, xr.Dataset]:
    out = tmp_path_factory.mktemp("runs") / "tiny"
    return out, sweep.run_sweep(config(), out)


def numbers(dataset: xr.Dataset) -> dict[str, np.ndarray]:
    return {str(name): values.values for name, values in dataset.data_vars.items()}


def test_the_run_directory_is_complete(run: tuple[Path, xr.Dataset]) -> None:
    out, _ = run
    assert SweepConfig.from_toml(out / "config.toml") == config()
    assert {path.name for path in out.iterdir()} == {
        "config.toml",
        "results.nc",
        "figures",
        "report.html",
    }
    assert len(list((out / "figures").glob("*.png"))) >= 10


def test_what_is_read_back_is_what_was_measured(run: tuple[Path, xr.Dataset]) -> None:
    out, dataset = run
    stored = open_results(out)
    assert [stored.sizes[dim] for dim in ("mu", "beta", "seed")] == [2, 2, 2]
    for name, values in numbers(dataset).items():
        if dataset[name].dtype.kind == "f" and "row" not in dataset[name].dims:
            np.testing.assert_allclose(stored[name].values, values, rtol=1e-6, err_msg=name)


def test_the_same_sweep_twice_has_the_same_bits(
    run: tuple[Path, xr.Dataset], tmp_path: Path
) -> None:
    again = sweep.run_sweep(config(), tmp_path / "again")
    for name, values in numbers(run[1]).items():
        np.testing.assert_array_equal(again[name].values, values, err_msg=name)


@pytest.mark.parametrize("stack", [1, 3, 4])
def test_the_stack_size_changes_nothing_beyond_rounding(
    run: tuple[Path, xr.Dataset], tmp_path: Path, stack: int
) -> None:
    other = sweep.run_sweep(config(stack=stack), tmp_path / "other")
    for name, values in numbers(run[1]).items():
        if values.dtype.kind != "f" or name == "canonical_correlation":
            continue
        np.testing.assert_allclose(other[name].values, values, rtol=2e-3, atol=2e-4, err_msg=name)


def test_every_cell_is_its_own_model(run: tuple[Path, xr.Dataset], tmp_path: Path) -> None:
    """A cell of the sweep equals the sweep of that cell alone: nothing lands in a wrong place."""
    alone = sweep.run_sweep(
        config(mu=(3.0,), beta=(8.0,), seeds=1, first_seed=1), tmp_path / "alone"
    )
    cell = run[1].isel(mu=[1], beta=[1], seed=[1])
    for name in ("loss_curve", "kl", "rate", "distortion", "probe_mse", "decode_mse"):
        np.testing.assert_allclose(
            cell[name].values, alone[name].values, rtol=2e-3, atol=2e-4, err_msg=name
        )


def test_an_occupied_directory_is_refused_and_kept(tmp_path: Path) -> None:
    precious = tmp_path / "out" / "precious.txt"
    precious.parent.mkdir()
    precious.write_text("keep me")
    with pytest.raises(FileExistsError, match="not empty"):
        sweep.run_sweep(config(), precious.parent)
    assert [path.name for path in precious.parent.iterdir()] == ["precious.txt"]


def test_overwriting_replaces_a_finished_run_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    sweep.run_sweep(config(), out)
    before = (out / "results.nc").read_bytes()

    class Stop(Silent):
        def advance(self, amount: int) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep.run_sweep(config(steps=13), out, overwrite=True, progress=Stop())
    assert (out / "results.nc").read_bytes() == before
    sweep.run_sweep(config(steps=13), out, overwrite=True)
    assert SweepConfig.from_toml(out / "config.toml").steps == 13
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_device_that_is_not_there_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="device: got 'cuda:99'"):
        sweep.run_sweep(config(device="cuda:99"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
