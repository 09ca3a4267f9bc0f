"""A run whose disk fails, or whose process dies, at any one call that changes the disk."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

from vaekit import checkpoint, files, journal, sweep
from vaekit.block import BLOCK_STEPS
from vaekit.config import SweepConfig

STEPS = 2 * BLOCK_STEPS + 1
CONFIG = SweepConfig(
    mu=(0.0,),
    beta=(0.5, 8.0),
    steps=STEPS,
    hidden=(4,),
    batch=4,
    grid=2,
    tile=2,
    latents=2,
    evaluation_draws=64,
    baseline_seeds=0,
    device="cpu",
    threads=1,
)


class Killed(BaseException):
    """Stands for a process that ends here."""


class Disk:
    """Counts the calls that change the disk; the one of a given number fails or is the last."""

    def __init__(self, patch: pytest.MonkeyPatch, fault: int, error: BaseException) -> None:
        self.fault, self.error, self.count = fault, error, 0
        self.committed = self.taken_up = 0
        calls = {name: self.guard(getattr(os, name)) for name in ("open", "fsync")}
        patch.setattr(files, "os", SimpleNamespace(**{**vars(os), **calls}))
        for name in ("replace", "unlink"):
            patch.setattr(Path, name, self.guard(getattr(Path, name)))
        patch.setattr(Path, "write_bytes", self.guard(Path.write_bytes, self.half))
        write, read = checkpoint.write, checkpoint.read

        def written(directory: Path, name: str, step: int, *rest: object, **named: object) -> None:
            write(directory, name, step, *rest, **named)
            if name.startswith("training"):
                self.committed = step

        def found(directory: Path, name: str, **named: object) -> object:
            result = read(directory, name, **named)
            if result and name.startswith("training"):
                self.taken_up = result[0]
            return result

        patch.setattr(checkpoint, "write", written)
        patch.setattr(checkpoint, "read", found)

    @staticmethod
    def half(path: Path, content: bytes) -> None:
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])

    def guard(self, real: Callable, partly: Callable | None = None) -> Callable:
        def call(*arguments: object, **named: object) -> object:
            self.count += 1
            # Who is dead does not clean up either.
            if self.count > self.fault and isinstance(self.error, Killed):
                raise self.error
            if self.count == self.fault:
                if partly:
                    partly(*arguments)
                raise self.error
            return real(*arguments, **named)

        return call


@pytest.mark.parametrize("error", [Killed(), OSError(errno.ENOSPC, "full")], ids=repr)
def test_a_fault_at_any_call_of_a_run_costs_a_checkpoint_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """It goes on to the same bits from the last checkpoint that was committed, or a later one."""

    def page(dataset: xr.Dataset, out: Path) -> None:
        (out / "report.html").write_text("a page")

    monkeypatch.setattr(sweep, "write_report", page)
    # A checkpoint after every block, however long the last one took.
    monkeypatch.setattr(journal, "COST_SHARE", math.inf)
    expected = sweep.run_sweep(CONFIG, tmp_path / "whole")
    fault, taken = 0, set()
    while True:
        fault += 1
        out = tmp_path / f"run-{fault}"
        with monkeypatch.context() as patch:
            disk = Disk(patch, fault, error)
            with suppress(type(error)):
                sweep.run_sweep(CONFIG, out, checkpoint_seconds=0.0)
        finished = disk.count < fault
        with monkeypatch.context() as patch:
            after = Disk(patch, 10**9, error)
            found = sweep.run_sweep(CONFIG, out)
        # Nothing is taken up of a training that was finished.
        assert after.taken_up >= disk.committed or disk.committed == STEPS
        taken.add(after.taken_up)
        for name in expected.data_vars:
            np.testing.assert_array_equal(found[name].values, expected[name].values, err_msg=name)
        assert sorted(path.name for path in out.iterdir()) == sorted(
            path.name for path in (tmp_path / "whole").iterdir()
        )
        if finished:
            break
    assert fault > 50
    assert taken == {0, BLOCK_STEPS, 2 * BLOCK_STEPS, STEPS}
