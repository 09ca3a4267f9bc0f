"""Input that is broken or meant to do harm gets one clear error, and nothing is written."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthetic import small_config, synthetic_dataset
from test_config import BAD
from vaekit.cli import run
from vaekit.config import ConfigError, SweepConfig
from vaekit.errors import ResultsError
from vaekit.results import open_results, save

VALUES = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4),
)


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_no_bytes_in_a_configurations_place_raise_anything_but_ours(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """No random bytes hold mu and beta, so every one of them is refused."""
    file = tmp_path_factory.mktemp("toml") / "config.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match="allowed: |no such field"):
        SweepConfig.from_toml(file)


@settings(max_examples=300, deadline=None)
@given(changes=st.dictionaries(st.sampled_from(list(SweepConfig.model_fields)), VALUES, max_size=3))
def test_no_value_of_any_field_raises_anything_but_ours(changes: dict) -> None:
    config = None
    with suppress(ConfigError):
        config = SweepConfig(**{"mu": (0.0,), "beta": (1.0,), **changes})
    assert config is None or SweepConfig(**config.model_dump()) == config


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "results.nc"
    save(synthetic_dataset(small_config(mu=(0.0, 1.0), tile=3, latents=4)), path)
    return path.read_bytes()


# h5netcdf's File trips over itself in its destructor when its constructor has failed.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <function File.close")
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_bytes_in_a_datasets_place_raise_anything_but_ours(
    content: bytes, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Noise, noise behind HDF5's signature, and whole files that were cut."""
    noise = data.draw(st.binary(max_size=300))
    cut = data.draw(st.integers(0, len(content) - 1))
    path = tmp_path_factory.mktemp("netcdf") / "results.nc"
    for broken in (noise, content[:8] + noise, content[:cut]):
        path.write_bytes(broken)
        with pytest.raises(ResultsError, match="results.nc"):
            open_results(path)


GOOD_TOML = small_config(mu=(0.0, 1.0), tile=3, latents=4).to_toml()
DEEP = "[" * 5000
# An attribute of a dataset, what it holds, and what is said of it.
ATTRIBUTES = [
    ("sha256", np.array([1, 2]), "damaged: its checksum is another"),
    ("sha256", np.array(["a", "b"], dtype="S1"), "damaged: its checksum is another"),
    ("sha256", 3, "damaged: its checksum is another"),
    ("sha256", "", "damaged: its checksum is another"),
    ("config", "", "mu: got None"),
    ("config", "mu = [3]", "beta: got None"),
    ("config", f"{GOOD_TOML}\nmore = 1", "no such field"),
    ("config", "mu = " + "9" * 5000, "digits"),
    ("config", f"mu = {DEEP}", "recursion"),
    ("config", np.array([1.0, 2.0]), "valid string"),
    ("seconds_total", "much", "valid number"),
    ("seconds_total", np.array([1.0, 2.0]), "valid number"),
    ("seconds", "", "Invalid JSON"),
    ("seconds", "[1]", "valid dictionary"),
    ("seconds", '{"train": "long"}', "valid number"),
    ("seconds", f'{{"train": {"9" * 5000}}}', "Invalid JSON"),
    ("versions", DEEP, "recursion limit"),
    ("versions", '{"numpy": 2}', "valid string"),
    ("created", 2026, "valid string"),
    ("device", np.array([1, 2]), "valid string"),
    ("command", 1.0, "valid string"),
]


@pytest.mark.parametrize(("name", "value", "problem"), ATTRIBUTES)
def test_no_attribute_of_a_dataset_raises_anything_but_ours(
    content: bytes, tmp_path: Path, name: str, value: object, problem: str
) -> None:
    path = tmp_path / "results.nc"
    path.write_bytes(content)
    with h5py.File(path, "r+") as raw:
        raw.attrs[name] = value
    with pytest.raises(ResultsError, match=f"{path}: {name}: .*{problem}"):
        open_results(path)


def as_text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def test_bad_configurations_are_refused_at_once_and_before_any_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every bad value that the command line can carry, as a user would give it."""
    reached: list[str] = []
    monkeypatch.setattr("vaekit.sweep.run_sweep", lambda *_, **__: reached.append(option))
    refused = 0
    for field, value, _ in BAD:
        if field == "preset" or isinstance(value, bool | dict) or value is None:
            continue
        out = tmp_path / "runs" / "mine"
        option = f"--{field.replace('_', '-')}={as_text(value)}"
        begun = time.perf_counter()
        # The steps that the table's values are bad beside; a later option replaces an earlier one.
        code = run(["sweep", "--preset", "smoke", "--steps=100", option, "--out", str(out)])
        seconds = time.perf_counter() - begun
        said = capsys.readouterr().err
        assert not reached
        assert code == 2, option
        assert said.startswith(f"vaekit: {field}: got "), said
        assert said.count("\n") == 1
        assert seconds < 1, option
        assert not out.parent.exists()
        refused += 1
    assert refused >= 40
