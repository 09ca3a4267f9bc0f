"""Files of other formats: read, and said to be old, where they can be; else refused by number.

Those under `data/` were written by the program as it was: a checkpoint of format 1, and a dataset
from before datasets had a number, a checksum and the step at which a model diverged.
"""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import h5py
import pytest
import xarray as xr

from synthetic import small_config, synthetic_dataset
from vaekit import checkpoint, cli
from vaekit.checkpoint import CheckpointError
from vaekit.errors import ResultsError
from vaekit.results import DIGEST, FORMAT, open_results, save

DATA = Path(__file__).parent / "data"
UNCHECKED = "is from before datasets had a checksum, so damage may go unseen"


def test_a_checkpoint_of_an_older_format_is_refused_by_its_number(tmp_path: Path) -> None:
    for name in ("format1-000000000016.json", "format1-000000000016.safetensors"):
        shutil.copy(DATA / name, tmp_path)
    complaints: list[CheckpointError] = []
    about = {"config": {"steps": 3}, "mu": [0.0]}
    assert checkpoint.read(tmp_path, "format1", about=about, damaged=complaints.append) is None
    manifest = tmp_path / "format1-000000000016.json"
    assert list(map(str, complaints)) == [
        f"{manifest}: has format 1; allowed: 2, that of this vaekit"
    ]


def test_a_dataset_of_an_older_schema_is_refused_as_that(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "results.nc"
    path.write_bytes(gzip.decompress((DATA / "results-unnumbered.nc.gz").read_bytes()))
    why = "the file has no format number: it is of an older vaekit, or not a sweep's"
    with pytest.raises(ResultsError) as caught:
        open_results(path)
    assert str(caught.value) == f"{path}: diverged_at: missing ({why})"
    assert cli.run(["report", str(path)]) == 2
    assert capsys.readouterr().err == f"vaekit: {path}: diverged_at: missing ({why})\n"
    assert [file.name for file in tmp_path.iterdir()] == ["results.nc"]


@pytest.fixture(scope="module")
def dataset() -> xr.Dataset:
    return synthetic_dataset(small_config(mu=(0.0, 1.0), tile=2, latents=2))


@pytest.fixture
def file(dataset: xr.Dataset, tmp_path: Path) -> Path:
    save(dataset, tmp_path / "results.nc")
    return tmp_path / "results.nc"


def test_a_dataset_of_a_later_format_is_refused_by_its_number(file: Path) -> None:
    with h5py.File(file, "r+") as raw:
        raw.attrs[FORMAT] = 2
        del raw["rate"]
    with pytest.raises(ResultsError, match=r"format: is .*2.*; allowed: 1, that of this vaekit"):
        open_results(file)


def test_a_dataset_from_before_checksums_is_read_and_said_to_be_unchecked(
    dataset: xr.Dataset,
    file: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with h5py.File(file, "r+") as raw:
        del raw.attrs[DIGEST], raw.attrs[FORMAT]
    said: list[str] = []
    xr.testing.assert_identical(open_results(file, said.append), dataset)
    assert said == [f"{file}: {UNCHECKED}"]
    with pytest.warns(UserWarning, match=UNCHECKED):
        open_results(file)
    monkeypatch.setattr("vaekit.report.write_report", lambda *_, **__: "a page")
    assert cli.run(["report", str(file)]) == 0
    assert capsys.readouterr().err == f"vaekit: {file}: {UNCHECKED}\n"


def test_a_dataset_from_before_numbers_is_held_to_its_checksum(
    dataset: xr.Dataset, file: Path
) -> None:
    with h5py.File(file, "r+") as raw:
        del raw.attrs[FORMAT]
    xr.testing.assert_identical(open_results(file), dataset)
    with h5py.File(file, "r+") as raw:
        raw["rate"][...] += 1
    with pytest.raises(ResultsError, match="checksum"):
        open_results(file)


def test_a_numbered_dataset_without_its_checksum_is_refused(file: Path) -> None:
    with h5py.File(file, "r+") as raw:
        del raw.attrs[DIGEST]
    with pytest.raises(ResultsError, match="sha256: damaged: its checksum is another"):
        open_results(file)
