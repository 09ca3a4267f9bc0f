"""What an unfinished run has done so far: `progress/` in its directory.

    plan.json                threads and shards, as they were chosen when the run began
    training-<shard>-<step>  checkpoints of a shard in training (see `checkpoint`)
    shard-<shard>-<step>     what was measured of a shard that is done

The noise is a function of its labels, so a shard that is taken up at a checkpoint ends in the same
bits as one that was never stopped, on the same machine with the same software; where those differ,
the run says so.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from vaekit import checkpoint
from vaekit.checkpoint import Array, Check, CheckpointError
from vaekit.compiler import compiler_version
from vaekit.config import SweepConfig
from vaekit.engine import engine_name
from vaekit.files import read_small, write_whole
from vaekit.interrupt import Interrupts
from vaekit.keeper import Keeper
from vaekit.machine import provenance, resolve_device
from vaekit.results import STATUSES
from vaekit.stack import Stack

FOLDER = "progress"
PLAN = "plan.json"
# A checkpoint a minute, or less often where writing one takes more than a second or so: at most
# about 2 % of the time goes into it.
INTERVAL_SECONDS = 60.0
COST_SHARE = 0.02
# What may change the bits of a training; the rest of a manifest's versions is for the record.
DECIDING = (
    "vaekit",
    "torch",
    "triton",
    "numpy",
    "device",
    "threads",
    "products",
    "engine",
    "compiler",
)


class _Shard(BaseModel):
    model_config = ConfigDict(extra="forbid")
    mu: Annotated[tuple[float, ...], Field(min_length=1)]
    seeds: Annotated[tuple[int, ...], Field(min_length=1)]
    beta: Annotated[tuple[float, ...], Field(min_length=1)]


class _Plan(BaseModel):
    model_config = ConfigDict(extra="forbid")
    threads: Annotated[int, Field(ge=1, le=2**16)]
    shards: Annotated[list[_Shard], Field(min_length=1)]

    def checksum(self) -> str:
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


class _SignedPlan(BaseModel):
    model_config = ConfigDict(extra="forbid")
    plan: _Plan
    sha256: str


class DiskKeeper(Keeper):
    """Keeps the checkpoints of one shard's training in a directory."""

    def __init__(
        self,
        journal: Journal,
        name: str,
        interrupts: Interrupts | None = None,
    ) -> None:
        super().__init__(interrupts)
        self.journal, self.name = journal, name
        self.started = self.last = time.monotonic()
        self.cost = 0.0

    def part(self, index: int) -> Keeper:
        """See `Keeper`."""
        return DiskKeeper(self.journal, f"{self.name}.{index}", self.interrupts)

    def load(self, stack: Stack, check: Check) -> tuple[int, dict[str, Array]] | None:
        """See `Keeper`."""

        def problem(step: int, arrays: Mapping[str, Array]) -> str:
            rest = dict(arrays)
            seconds = rest.pop("seconds", None)
            if seconds is None or seconds.ndim or seconds.dtype != np.float64:
                return "holds no time that was spent"
            return check(step, rest)

        found = self.journal.read(self.name, stack, problem)
        if found is None:
            return None
        step, arrays = found
        self.seconds = float(arrays.pop("seconds"))
        return step, arrays

    def due(self) -> bool:
        """See `Keeper`."""
        wait = max(self.journal.interval, self.cost / COST_SHARE)
        return time.monotonic() - self.last >= wait

    def save(self, stack: Stack, step: int, tensors: Callable[[], Mapping[str, Tensor]]) -> None:
        """See `Keeper`."""
        begun = time.monotonic()
        arrays = {name: tensor.cpu().numpy() for name, tensor in tensors().items()}
        spent = np.array(self.seconds + begun - self.started)
        self.journal.write(self.name, stack, step, {**arrays, "seconds": spent})
        self.last = time.monotonic()
        self.cost = self.last - begun


class Journal:
    """The files of an unfinished run."""

    def __init__(
        self,
        out: Path,
        config: SweepConfig,
        note: Callable[[str], None],
        interval: float = INTERVAL_SECONDS,
    ) -> None:
        self.directory = out / FOLDER
        self.config = config
        self.note = note
        self.interval = interval
        self.noticed: set[str] = set()

    @cached_property
    def versions(self) -> dict[str, str]:
        """What makes the results of this process, from the first time that it is asked for."""
        device = resolve_device(self.config.device)
        engine = engine_name(self.config, device)
        found = {"engine": engine, **provenance(device)}
        return found | ({"compiler": compiler_version()} if engine == "compiled" else {})

    def plan(self, make: Callable[[], list[Stack]], threads: int) -> tuple[list[Stack], int]:
        """Return the run's shards and threads: as when it began, or else chosen now and kept.

        A plan rests on the memory that is free, and which models share a stack shows in the last
        bit, as the number of threads does; so a run that goes on keeps the plan that it had.

        Args:
            make: cuts the sweep into shards.
            threads: that a run which begins now uses.
        """
        path = self.directory / PLAN
        if path.exists():
            try:
                signed = _SignedPlan.model_validate_json(read_small(path))
                found = signed.plan
                stacks = [Stack(shard.mu, shard.seeds, shard.beta) for shard in found.shards]
                cells = sorted(cell for stack in stacks for cell in stack.cells())
            # Of pydantic's, or of a shard whose streams lack a mu or a seed.
            except (OSError, ValueError):
                self.note(f"{path}: damaged or of another version, so the run is planned anew")
            else:
                if signed.sha256 == found.checksum() and cells == self._wanted():
                    if found.threads != threads:
                        self.note(f"threads: {found.threads}, as the run began, and not {threads}")
                    return stacks, found.threads
                self.note(f"{path}: damaged or of other models, so the run is planned anew")
        stacks = make()
        shards = [_Shard(mu=s.mu, seeds=s.seeds, beta=s.beta) for s in stacks]
        made = _Plan(threads=threads, shards=shards)
        signed = _SignedPlan(plan=made, sha256=made.checksum())
        self.directory.mkdir(parents=True, exist_ok=True)
        write_whole(path, signed.model_dump_json(indent=1))
        return stacks, threads

    def keeper(self, index: int, interrupts: Interrupts) -> DiskKeeper:
        """Keep checkpoints of a shard's training."""
        return DiskKeeper(self, f"training-{index:05d}", interrupts)

    def finished(
        self, index: int, stack: Stack, shapes: Mapping[str, tuple[int, ...]]
    ) -> dict[str, Array] | None:
        """Read what was measured of a shard, in arrays of these shapes, if it is done."""

        def problem(step: int, arrays: Mapping[str, Array]) -> str:
            if step != self.config.steps:
                return f"holds step {step}; allowed: {self.config.steps}"
            if {name: array.shape for name, array in arrays.items()} != shapes:
                return "holds other measures than a shard's"
            codes = arrays["status"]
            if codes.dtype != np.int8 or not np.isin(codes, range(len(STATUSES))).all():
                return "holds a status that there is not"
            return ""

        found = self.read(f"shard-{index:05d}", stack, problem)
        if found is None:
            return None
        arrays = found[1]
        arrays["status"] = np.array(STATUSES, dtype="U9")[arrays["status"]]
        return arrays

    def finish(self, index: int, stack: Stack, arrays: Mapping[str, Array]) -> None:
        """Commit what was measured of a shard; its checkpoints are not needed any more."""
        codes = [STATUSES.index(status) for status in arrays["status"].tolist()]
        stored = {**arrays, "status": np.array(codes, dtype=np.int8)}
        self.write(f"shard-{index:05d}", stack, self.config.steps, stored)
        # A shard's own, and its parts'; not those of a shard whose number has more digits.
        for path in list(self.directory.glob(f"training-{index:05d}[-.]*")):
            path.unlink(missing_ok=True)

    def clear(self) -> None:
        """Delete everything: the run is finished. The plan goes last: until then it is not."""
        for path in list(self.directory.glob("*")):
            if path.name != PLAN:
                path.unlink()
        if self.directory.exists():
            shutil.rmtree(self.directory)

    def read(
        self, name: str, stack: Stack, check: Check = lambda *_: ""
    ) -> tuple[int, dict[str, Array]] | None:
        """Read the newest whole checkpoint of a name that belongs to this run and stack."""

        def damaged(error: CheckpointError) -> None:
            self.note(f"{error}; the one before it is used, or the shard begins anew")

        found = checkpoint.read(
            self.directory, name, about=self._about(stack), damaged=damaged, check=check
        )
        if found is None:
            return None
        self._notice(found.versions)
        return found.step, found.arrays

    def _notice(self, there: Mapping[str, str]) -> None:
        """Say, once, where what made a checkpoint is not what goes on with it."""
        here = self.versions
        others = ", ".join(
            f"{name} {there.get(name, 'unknown')} (here {here.get(name, 'none')})"
            for name in DECIDING
            if there.get(name) != here.get(name)
        )
        if others and others not in self.noticed:
            self.noticed.add(others)
            self.note(
                f"a part of this run was made with {others}: its bits may differ from those of a "
                "run that was never stopped"
            )

    def write(self, name: str, stack: Stack, step: int, arrays: Mapping[str, Array]) -> None:
        """Commit a checkpoint of a name."""
        checkpoint.write(
            self.directory, name, step, arrays, about=self._about(stack), versions=self.versions
        )

    def _about(self, stack: Stack) -> dict[str, Any]:
        return {
            "config": self.config.model_dump(mode="json", exclude={"preset"}),
            "mu": list(stack.mu),
            "seeds": list(stack.seeds),
            "beta": list(stack.beta),
        }

    def _wanted(self) -> list[tuple[float, int, float]]:
        config = self.config
        return sorted(product(config.mu, config.seed_values, config.beta))
