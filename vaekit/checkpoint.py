"""Tensors on disk that are either right or refused: safetensors beside a manifest with a checksum.

    <name>-<step>.safetensors     the tensors; no pickle, so nothing in it can run
    <name>-<step>.json            written after it: what it must hold, and its SHA-256

A checkpoint exists once its manifest does. Both files are written whole or not at all and are on
the disk before the next one begins, so a kill or a full disk costs the newest at most. The two
newest are kept: one that is damaged is named and the one before it is used. Those of later steps
than what is written were refused, and go.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from vaekit.files import check_fits, read_small, write_whole

# 2: the versions also name the device, its threads and its library of products.
FORMAT = 2
KEPT = 2
Array = npt.NDArray[Any]
# Says what is wrong with the step and the tensors of a checkpoint; "" if nothing is.
Check = Callable[[int, Mapping[str, Array]], str]
_SUFFIX = ".json"
_Name = Annotated[str, Field(max_length=200)]
_Size = Annotated[int, Field(ge=0, lt=2**63)]


class CheckpointError(ValueError):
    """A checkpoint that cannot be trusted: names the file and what is wrong with it."""

    def __init__(self, path: Path, problem: str) -> None:
        self.path = path
        super().__init__(f"{path}: {problem}")


class _Tensor(BaseModel):
    """Shape and dtype of one tensor."""

    model_config = ConfigDict(extra="forbid")
    shape: Annotated[list[_Size], Field(max_length=16)]
    dtype: _Name


class Manifest(BaseModel):
    """What a checkpoint's other file must hold.

    Attributes:
        format: of this manifest; another one is refused.
        step: how far the work had come.
        about: what the tensors belong to; a reader compares it with its own.
        versions: of what made the tensors: software, device, threads.
        size, sha256: of the other file.
        tensors: shape and dtype of each.
    """

    model_config = ConfigDict(extra="forbid")
    format: Annotated[int, Field(ge=FORMAT, le=FORMAT)]
    step: _Size
    about: dict[_Name, Any]
    versions: dict[_Name, _Name]
    size: _Size
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    tensors: dict[_Name, _Tensor]

    def checksum(self) -> str:
        """SHA-256 of the manifest itself."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


class Checkpoint(NamedTuple):
    """What was read: how far the work had come, its tensors, and what made them."""

    step: int
    arrays: dict[str, Array]
    versions: dict[str, str]


class _Signed(BaseModel):
    """A manifest and its own checksum: every bit of both files is accounted for."""

    model_config = ConfigDict(extra="forbid")
    manifest: Manifest
    sha256: str


def write(
    directory: Path,
    name: str,
    step: int,
    arrays: Mapping[str, Array],
    *,
    about: Mapping[str, Any],
    versions: Mapping[str, str],
) -> None:
    """Commit arrays as the checkpoint of a step; keep the one before it, and drop all others.

    Args:
        directory: must exist.
        name: what the checkpoint is of.
        step: grows from one to the next.
        arrays: numbers and truth values of any shape.
        about: what they belong to, as JSON has it; `read` asks for the same.
        versions: of what makes them: software, device, threads.

    Raises:
        OSError: it cannot be written; the earlier checkpoints are still there.
    """
    content = save({key: np.asarray(array, order="C") for key, array in arrays.items()})
    manifest = Manifest(
        format=FORMAT,
        step=step,
        about=dict(about),
        versions=dict(versions),
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        tensors={
            key: _Tensor(shape=list(array.shape), dtype=str(array.dtype))
            for key, array in arrays.items()
        },
    )
    # A name may hold dots, and so no suffix.
    path = directory / f"{name}-{step:012d}{_SUFFIX}"
    write_whole(path.with_suffix(".safetensors"), content)
    signed = _Signed(manifest=manifest, sha256=manifest.checksum())
    write_whole(path, signed.model_dump_json(indent=1))
    found = list(_newest_first(directory, name))
    here = found.index(path)
    # Those of later steps were refused, or the work would not have come to this one.
    for other in found[:here] + found[here + KEPT :]:
        _remove(other)


def read(
    directory: Path,
    name: str,
    *,
    about: Mapping[str, Any],
    damaged: Callable[[CheckpointError], None],
    check: Check = lambda *_: "",
) -> Checkpoint | None:
    """Read the newest checkpoint that is whole.

    Args:
        directory: where; it need not exist.
        name: what the checkpoint is of.
        about: what it must belong to.
        damaged: is told of each one that is passed over.
        check: refuses what is whole and yet not what the reader can use.

    Returns:
        The checkpoint, or None where there is none that is whole.
    """
    for path in _newest_first(directory, name):
        try:
            return _read_one(path, about, check)
        except CheckpointError as error:
            damaged(error)
    return None


def remove(directory: Path, name: str) -> None:
    """Delete every checkpoint of a name."""
    for path in list(_newest_first(directory, name)):
        _remove(path)


def _newest_first(directory: Path, name: str) -> Iterator[Path]:
    """Manifests of a name; their steps have leading zeros, so names sort as steps do."""
    yield from sorted(directory.glob(f"{name}-{'[0-9]' * 12}{_SUFFIX}"), reverse=True)


def _remove(manifest: Path) -> None:
    # The manifest first: without it the other file counts for nothing.
    manifest.unlink(missing_ok=True)
    manifest.with_suffix(".safetensors").unlink(missing_ok=True)


def _read_one(path: Path, about: Mapping[str, Any], check: Check) -> Checkpoint:
    """Read one checkpoint; raise a CheckpointError unless every byte is accounted for."""
    try:
        signed = _Signed.model_validate_json(read_small(path))
    except OSError as error:
        raise CheckpointError(path, f"cannot be read ({error})") from None
    except ValidationError as error:
        raise CheckpointError(path, _problem(error)) from None
    manifest = signed.manifest
    if signed.sha256 != manifest.checksum():
        raise CheckpointError(path, "damaged: its checksum is not its own")
    if path.stem.rpartition("-")[2] != f"{manifest.step:012d}":
        raise CheckpointError(path, f"holds step {manifest.step}")
    if manifest.about != dict(about):
        raise CheckpointError(path, "belongs to another run")
    file = path.with_suffix(".safetensors")
    try:
        # Before a byte is read: a file of another size may be enormous.
        size = file.stat().st_size
        if size != manifest.size:
            raise CheckpointError(file, f"has {size} bytes; allowed: {manifest.size}")
        # The content and the arrays made of it are there at once.
        check_fits(file, 2 * size)
        content = file.read_bytes()
    except OSError as error:
        raise CheckpointError(file, f"cannot be read ({error})") from None
    if hashlib.sha256(content).hexdigest() != manifest.sha256:
        raise CheckpointError(file, "damaged: its checksum is not the manifest's")
    try:
        arrays = load(content)
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(file, f"not a safetensors file ({error})") from None
    found = {
        key: _Tensor(shape=list(array.shape), dtype=str(array.dtype))
        for key, array in arrays.items()
    }
    if found != manifest.tensors:
        raise CheckpointError(file, "holds other tensors than the manifest says")
    if problem := check(manifest.step, arrays):
        raise CheckpointError(path, problem)
    return Checkpoint(manifest.step, arrays, manifest.versions)


def _problem(error: ValidationError) -> str:
    """Say what is wrong with a manifest; another format explains whatever else is."""
    found = error.errors()
    for one in found:
        given = one["input"]
        known = one["loc"] == ("manifest", "format") and isinstance(given, int)
        if known and 0 <= given < 2**31:
            return f"has format {given}; allowed: {FORMAT}, that of this vaekit"
    where = ".".join(map(str, found[0]["loc"])) or "file"
    return f"not a manifest ({where}: {found[0]['msg']})"
