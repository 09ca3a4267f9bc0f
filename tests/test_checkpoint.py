"""Checkpoints: what is read is what was written, or it is refused and the one before it is read."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import re
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from vaekit import checkpoint
from vaekit.checkpoint import CheckpointError

ABOUT = {"config": {"steps": 3}, "mu": [0.0]}
VERSIONS = {"vaekit": "0"}


def arrays(value: float = 1.0) -> dict[str, np.ndarray]:
    return {
        "weights": np.full((3, 5), value, np.float32),
        "steps": np.array(7),
        "alive": np.array([True, False]),
        "empty": np.zeros((0, 2)),
    }


def write(directory: Path, step: int) -> None:
    checkpoint.write(directory, "part", step, arrays(float(step)), about=ABOUT, versions=VERSIONS)


def read(directory: Path, about: dict | None = None) -> tuple[int | None, list[str]]:
    """Return the step found, after holding its arrays to what was written, and the complaints."""
    complaints: list[str] = []
    found = checkpoint.read(
        directory, "part", about=about or ABOUT, damaged=lambda error: complaints.append(str(error))
    )
    if found is None:
        return None, complaints
    step, held, _ = found
    expected = arrays(float(step))
    assert held.keys() == expected.keys()
    for name, array in expected.items():
        assert held[name].dtype == array.dtype
        assert np.array_equal(held[name], array)
    return step, complaints


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    assert read(tmp_path) == (None, [])
    assert read(tmp_path / "absent") == (None, [])
    write(tmp_path, 8)
    assert read(tmp_path) == (8, [])


def test_what_made_it_is_kept_with_it(tmp_path: Path) -> None:
    write(tmp_path, 8)
    found = checkpoint.read(tmp_path, "part", about=ABOUT, damaged=pytest.fail)
    assert found is not None
    assert found.versions == VERSIONS


def test_the_two_newest_are_kept(tmp_path: Path) -> None:
    for step in (8, 16, 80, 1000):
        write(tmp_path, step)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "part-000000000080.json",
        "part-000000000080.safetensors",
        "part-000000001000.json",
        "part-000000001000.safetensors",
    ]
    assert read(tmp_path) == (1000, [])
    checkpoint.remove(tmp_path, "part")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["part.0", "part.0.1", "part.1"])
def test_the_parts_of_a_part_keep_files_of_their_own(tmp_path: Path, name: str) -> None:
    write(tmp_path, 8)
    checkpoint.write(tmp_path, name, 16, {"a": np.ones(2)}, about=ABOUT, versions=VERSIONS)
    found = checkpoint.read(tmp_path, name, about=ABOUT, damaged=pytest.fail)
    assert found is not None
    assert (found.step, list(found.arrays)) == (16, ["a"])
    assert read(tmp_path) == (8, [])
    checkpoint.remove(tmp_path, name)
    assert len(list(tmp_path.iterdir())) == 2


def test_later_steps_were_refused_and_make_way(tmp_path: Path) -> None:
    """Of another run, of another format, and damaged; each as high as can be."""
    for step in (500, 1000, 2000):
        write(tmp_path, step)
        if step == 500:
            aside = {path: path.read_bytes() for path in tmp_path.iterdir()}
    rewrite(tmp_path / "part-000000001000.json", {"format": 1})
    (tmp_path / "part-000000002000.safetensors").write_bytes(b"")
    for path, content in aside.items():
        path.write_bytes(content)
    rewrite(tmp_path / "part-000000000500.json", {"about": {"config": {"steps": 9}}})
    step, complaints = read(tmp_path)
    assert (step, len(complaints)) == (None, 3)
    for step in (8, 16, 24):
        write(tmp_path, step)
        assert read(tmp_path) == (step, [])
    assert sorted(path.name for path in tmp_path.glob("*.json")) == [
        "part-000000000016.json",
        "part-000000000024.json",
    ]


def test_a_checkpoint_of_another_run_is_not_taken(tmp_path: Path) -> None:
    write(tmp_path, 8)
    step, complaints = read(tmp_path, {"config": {"steps": 4}, "mu": [0.0]})
    assert step is None
    assert "belongs to another run" in complaints[0]


def test_two_hundred_of_two_hundred_bit_flips_are_seen(tmp_path: Path) -> None:
    """Anywhere in either file; the checkpoint before it is used each time, and named is the bad."""
    write(tmp_path, 8)
    write(tmp_path, 16)
    files = [tmp_path / f"part-000000000016{suffix}" for suffix in (".safetensors", ".json")]
    rng = np.random.default_rng(0)
    for number in range(200):
        file = files[number % 2]
        content = bytearray(file.read_bytes())
        place = int(rng.integers(len(content)))
        content[place] ^= 1 << int(rng.integers(8))
        before = file.read_bytes()
        file.write_bytes(content)
        found = checkpoint.read(tmp_path, "part", about=ABOUT, damaged=lambda _: None)
        assert found is not None
        assert found[0] == 8, f"bit flip {number} was not seen"
        file.write_bytes(before)
    assert read(tmp_path) == (16, [])


@pytest.mark.parametrize("kept", [0, 1, 7, 100, -1])
@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_a_file_that_was_cut_short_is_named_and_passed_over(
    tmp_path: Path, suffix: str, kept: int
) -> None:
    write(tmp_path, 8)
    write(tmp_path, 16)
    file = tmp_path / f"part-000000000016{suffix}"
    file.write_bytes(file.read_bytes()[:kept])
    step, complaints = read(tmp_path)
    assert step == 8
    assert "part-000000000016" in complaints[0]


def test_fifty_of_fifty_cuts_are_seen(tmp_path: Path) -> None:
    write(tmp_path, 8)
    write(tmp_path, 16)
    rng = np.random.default_rng(0)
    for number in range(50):
        file = tmp_path / f"part-000000000016{('.safetensors', '.json')[number % 2]}"
        content = file.read_bytes()
        file.write_bytes(content[: int(rng.integers(len(content)))])
        step, complaints = read(tmp_path)
        assert step == 8, f"cut {number} was not seen"
        assert len(complaints) == 1 and "part-000000000016" in complaints[0]
        file.write_bytes(content)
    assert read(tmp_path) == (16, [])


def test_tensors_that_changed_places_are_seen(tmp_path: Path) -> None:
    """The newest checkpoint with the tensors of the one before it, then with its manifest."""
    write(tmp_path, 8)
    write(tmp_path, 16)
    old, new = (tmp_path / f"part-{step:012d}.safetensors" for step in (8, 16))
    content = new.read_bytes()
    new.write_bytes(old.read_bytes())
    step, (complaint,) = read(tmp_path)
    assert step == 8
    assert f"{new}: damaged: its checksum is not the manifest's" in complaint
    new.write_bytes(content)
    new.with_suffix(".json").write_bytes(old.with_suffix(".json").read_bytes())
    step, (complaint,) = read(tmp_path)
    assert step == 8
    assert "holds step 8" in complaint


def test_tensors_that_do_not_fit_in_memory_are_refused_unread(tmp_path: Path) -> None:
    """A file with a hole takes no room on the disk."""
    write(tmp_path, 8)
    write(tmp_path, 16)
    file, size = tmp_path / "part-000000000016.safetensors", 2**42
    os.truncate(file, size)
    rewrite(file.with_suffix(".json"), {"size": size})
    step, (complaint,) = read(tmp_path)
    assert step == 8
    assert f"takes {2 * size:,} bytes, and" in complaint


def test_a_manifest_that_never_ends_is_refused(tmp_path: Path) -> None:
    write(tmp_path, 8)
    write(tmp_path, 16)
    os.truncate(tmp_path / "part-000000000016.json", 2**40)
    step, (complaint,) = read(tmp_path)
    assert step == 8
    assert "cannot be read" in complaint and "more than 268,435,456 bytes" in complaint


def rewrite(path: Path, changes: dict) -> None:
    """Change a manifest, and its checksum with it where it still is a manifest."""
    manifest = json.loads(path.read_text())["manifest"] | changes
    try:
        sha256 = checkpoint.Manifest.model_validate(manifest).checksum()
    except ValidationError:
        sha256 = "0" * 64
    path.write_text(json.dumps({"manifest": manifest, "sha256": sha256}))


def replace_tensors(directory: Path, content: bytes) -> None:
    """Put other content in the place of the tensors, with a manifest that vouches for it."""
    file = directory / "part-000000000016.safetensors"
    file.write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    rewrite(file.with_suffix(".json"), {"size": len(content), "sha256": sha256})


class Bomb:
    def __reduce__(self) -> tuple[Callable, tuple]:
        return os.mkdir, ("exploded",)


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(Bomb()),
        b"",
        b"\xff" * 64,
        (2**62).to_bytes(8, "little") + b"{}",  # a header of four exabytes
        (60).to_bytes(8, "little")
        + b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}     ',
    ],
    ids=["pickle", "empty", "noise", "huge-header", "offsets-beyond-the-end"],
)
def test_content_that_is_not_tensors_is_refused_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, 8)
    write(tmp_path, 16)
    replace_tensors(tmp_path, content)
    step, complaints = read(tmp_path)
    assert step == 8
    assert "not a safetensors file" in complaints[0]
    assert not (tmp_path / "exploded").exists()


def test_other_tensors_than_the_manifest_says_are_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save

    write(tmp_path, 16)
    replace_tensors(tmp_path, save({"weights": np.zeros(2**10, np.float32)}))
    step, complaints = read(tmp_path)
    assert step is None
    assert "other tensors" in complaints[0]


def test_names_with_paths_in_them_stay_names(tmp_path: Path) -> None:
    """A manifest names no files, so there is nothing to traverse; a tensor's name is a key."""
    write(tmp_path, 16)
    path = tmp_path / "part-000000000016.json"
    tensors = json.loads(path.read_text())["manifest"]["tensors"]
    tensors["../../escaped"] = tensors.pop("weights")
    rewrite(path, {"tensors": tensors})
    step, complaints = read(tmp_path)
    assert step is None
    assert "other tensors" in complaints[0]
    assert {file.parent for file in tmp_path.rglob("*")} == {tmp_path}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
)
FIELDS = st.sampled_from(["format", "step", "about", "versions", "size", "sha256", "tensors", "x"])


@settings(max_examples=150, deadline=None)
@given(changes=st.dictionaries(FIELDS, JSON, min_size=1, max_size=3))
def test_no_manifest_raises_anything_but_a_complaint(
    changes: dict, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("manifest")
    write(directory, 16)
    path = directory / "part-000000000016.json"
    before = json.loads(path.read_text())["manifest"]
    rewrite(path, changes)
    step, complaints = read(directory)
    assert (step == 16) is (not complaints)
    # With a checksum that vouches for them, other versions are for the reader to compare.
    changed = {key for key, value in changes.items() if before.get(key) != value}
    assert step is None or changed <= {"versions"}


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=400))
def test_no_bytes_in_a_manifests_place_raise_anything_but_a_complaint(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("manifest")
    write(directory, 16)
    (directory / "part-000000000016.json").write_bytes(content)
    step, complaints = read(directory)
    assert step is None
    assert len(complaints) == 1


class Faulty:
    """A function whose n-th call fails."""

    def __init__(self, real: Callable, fault: int, error: OSError) -> None:
        self.real, self.fault, self.error = real, fault, error
        self.count = 0

    def __call__(self, *arguments: object, **named: object) -> object:
        self.count += 1
        if self.count == self.fault:
            raise self.error
        return self.real(*arguments, **named)

    def __get__(self, instance: object, owner: type) -> Callable:
        """Bind as a method, for a class's function."""
        return partial(self, instance)


CALLS = {
    "open": (os, "open"),
    "write": (Path, "write_bytes"),
    "fsync": (os, "fsync"),
    "rename": (Path, "replace"),
}


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("call", CALLS)
def test_a_fault_at_any_call_keeps_what_was_there(tmp_path: Path, call: str, error: int) -> None:
    """The n-th open, write, fsync or rename fails, for every n that a checkpoint makes."""
    write(tmp_path, 8)
    place, name = CALLS[call]
    real = getattr(place, name)
    for fault in range(1, 20):
        faulty = Faulty(real, fault, OSError(error, os.strerror(error)))
        with mock.patch.object(place, name, faulty), suppress(OSError):
            write(tmp_path, 8 + fault)
        step, complaints = read(tmp_path)
        # The one before, or the new one where only the last flush failed: whole in either case.
        assert step in {8 + fault, 8 + fault - 1}
        assert not complaints
        assert not [path for path in tmp_path.iterdir() if path.suffix == ".tmp"]
        if faulty.count < fault:
            break
        write(tmp_path, 8 + fault)
    assert 1 < fault < 19


def test_a_manifest_of_another_step_or_format_is_refused(tmp_path: Path) -> None:
    write(tmp_path, 16)
    path = tmp_path / "part-000000000016.json"
    good = path.read_text()
    number = r"has format \d+; allowed: 2, that of this vaekit"
    for change, problem in (
        ({"step": 17}, "holds step 17"),
        ({"format": 3}, number),
        ({"format": 1, "more": 1}, number),
        ({"format": 10**30}, "not a manifest"),
        ({"format": "later"}, "not a manifest"),
        ({"size": -1}, "not a manifest"),
        ({"more": 1}, "not a manifest"),
    ):
        path.write_text(good)
        rewrite(path, change)
        step, (complaint,) = read(tmp_path)
        assert step is None
        assert re.search(problem, complaint), change
    error = CheckpointError(path, "is bad")
    assert str(error) == f"{path}: is bad"
