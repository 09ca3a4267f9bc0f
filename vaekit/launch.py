"""Where shards run: one after another in this process, or on the workers of a Ray cluster.

Ray schedules, places on GPUs, and runs a shard again whose worker died; nothing of that is done
here. A shard is the same function of the same arguments in either case, with the same number of
threads, so the dataset is the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch

from vaekit.config import ConfigError, SweepConfig
from vaekit.evaluate import Arrays
from vaekit.interrupt import Interrupts, handlers_kept
from vaekit.journal import FOLDER, Journal
from vaekit.keeper import Keeper
from vaekit.machine import resolve_device, threads
from vaekit.progress import Progress, Silent
from vaekit.shard import run_shard
from vaekit.stack import Stack

Launcher = Literal["local", "ray"]
# How often Ray starts a shard again whose worker died.
RETRIES = 5


@dataclass(frozen=True)
class Work:
    """What every shard of a run has in common.

    Attributes:
        config: the sweep.
        out: the run directory; a worker on another machine keeps checkpoints if it sees it too.
        threads: of torch, for every shard.
        fail_on_divergence: stop at the first model that is not finite.
        checkpoint_seconds: time between two checkpoints of a training.
    """

    config: SweepConfig
    out: Path
    threads: int
    fail_on_divergence: bool
    checkpoint_seconds: float


def check_launcher(name: str) -> None:
    """Refuse a launcher that is not there.

    Raises:
        ConfigError: the name is unknown, or Ray is not installed.
    """
    if name not in get_args(Launcher):
        raise ConfigError("launcher", name, ", ".join(get_args(Launcher)))
    if name == "ray":
        try:
            import ray  # noqa: F401  # whether it can be imported is the question
        except ImportError:
            raise ConfigError(
                "launcher", name, "local, or ray after `python -m pip install 'vaekit[ray]'`"
            ) from None


def local(
    work: Work,
    shards: Sequence[tuple[int, Stack]],
    progress: Progress,
    interrupts: Interrupts,
    journal: Journal,
) -> Iterator[tuple[int, Arrays]]:
    """Run shards one after another in this process; yield each one's number and measures."""
    device = resolve_device(work.config.device)
    for index, stack in shards:
        keeper = journal.keeper(index, interrupts)
        with threads(work.threads):
            arrays = run_shard(
                work.config,
                stack,
                device,
                progress,
                keeper,
                fail_on_divergence=work.fail_on_divergence,
            )
        yield index, arrays


def on_ray(
    work: Work,
    shards: Sequence[tuple[int, Stack]],
    progress: Progress,
    interrupts: Interrupts,
    address: str | None = None,
) -> Iterator[tuple[int, Arrays]]:
    """Run shards on Ray's workers; yield each one's number and measures as they come.

    Args:
        work, shards: what is run.
        progress: is told of every shard that is done, in model-steps.
        interrupts: asked between one shard and the next.
        address: of a cluster, as `ray.init` takes it; None starts Ray on this machine.
    """
    import ray

    owned = not ray.is_initialized()
    if owned:
        # Ray would answer SIGTERM itself, and neither commit nor exit with 143.
        with handlers_kept():
            ray.init(address=address, log_to_driver=False)
    cuda = resolve_device(work.config.device).type == "cuda"
    remote = ray.remote(num_cpus=work.threads, num_gpus=int(cuda), max_retries=RETRIES)(_remote)
    pending = {remote.remote(work, index, stack): (index, stack) for index, stack in shards}
    try:
        while pending:
            # Nothing may be raised inside of Ray: its compiled code cannot pass it on.
            with interrupts.defer():
                ready, _ = ray.wait(list(pending), timeout=1.0)
            interrupts.leave_if_asked()
            for reference in ready:
                with interrupts.defer():
                    measured, said = ray.get(reference)
                for text in said:
                    progress.note(text)
                index, stack = pending.pop(reference)
                yield index, measured
                progress.advance(stack.models * work.config.steps)
    finally:
        for reference in pending:
            ray.cancel(reference, force=True)
        if owned:
            ray.shutdown()


class _Notes(Silent):
    """Keeps what a worker says for the process that it works for."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        """See `Progress`."""
        self.said.append(text)


def _remote(work: Work, index: int, stack: Stack) -> tuple[Arrays, list[str]]:
    """Run one shard in a worker; return its measures and what there was to say."""
    torch.set_num_threads(work.threads)
    notes, keeper = _Notes(), Keeper()
    if (work.out / FOLDER).is_dir():
        journal = Journal(work.out, work.config, notes.note, work.checkpoint_seconds)
        keeper = journal.keeper(index, keeper.interrupts)
    measured = run_shard(
        work.config,
        stack,
        resolve_device(work.config.device),
        notes,
        keeper,
        fail_on_divergence=work.fail_on_divergence,
    )
    return measured, notes.said
