"""Where shards run: one after another in this process, or on the workers of a Ray cluster.

Ray schedules, places on GPUs, and runs a shard again whose worker died; nothing of that is done
here. A shard is the same function of the same arguments in either case, with the same number of
threads, so the dataset is the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch

from vaekit.config import ConfigError, SweepConfig
from vaekit.errors import RunError
from vaekit.evaluate import Arrays
from vaekit.host import keep_freed_memory
from vaekit.interrupt import Interrupts, handlers_kept
from vaekit.journal import FOLDER, Journal
from vaekit.keeper import Keeper
from vaekit.machine import resolve_device, threads
from vaekit.memory import stack_bytes
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


def check_launcher(name: str, device: str) -> None:
    """Refuse a launcher that is not there, or that cannot take the device of that name.

    Raises:
        ConfigError: the name is unknown, Ray is not installed, or the device is a card's number:
            each of Ray's workers sees its own cards only, counted from 0.
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
        if ":" in device:
            raise ConfigError("device", device, "auto, cpu, cuda: Ray chooses the card")


@contextmanager
def cluster(launcher: Launcher, address: str | None) -> Iterator[None]:
    """Have Ray during a `with`, where it is the launcher; leave one alone that was there before.

    Args:
        launcher: of the shards.
        address: of a cluster, as `ray.init` takes it; None starts Ray on this machine.

    Raises:
        RunError: Ray failed, or a shard's workers died again and again.
    """
    if launcher != "ray":
        yield
        return
    import ray

    owned = not ray.is_initialized()
    try:
        if owned:
            # Ray would answer SIGTERM itself, and neither commit nor exit with 143.
            with handlers_kept():
                # Without an address Ray would join whatever cluster is near.
                ray.init(address="local" if address is None else address, log_to_driver=False)
        yield
    except ray.exceptions.RayTaskError as error:
        # The shard's own failure, as it would be in this process.
        raise error.cause from error
    except ray.exceptions.RayError as error:
        raise RunError(f"Ray: {error}") from error
    finally:
        if owned:
            ray.shutdown()


def check_nodes(config: SweepConfig, stacks: Sequence[Stack], threads: int) -> None:
    """Refuse shards that no node of the cluster has room for: Ray would wait for one for ever.

    Raises:
        ConfigError: names what is too much, how much that is, and the most that a node has.
    """
    import ray

    largest = max(stacks, key=lambda stack: stack.models)
    fields = {
        "CPU": ("threads", threads, "CPUs"),
        "GPU": ("device", config.device, "GPUs"),
        "memory": ("stack", largest.models, "bytes of memory"),
    }
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for name, needed in _needs(config, largest, threads).items():
        most = max((node.get(name, 0) for node in nodes), default=0)
        if needed > most:
            field, value, unit = fields[name]
            raise ConfigError(
                field,
                value,
                f"what a node of the cluster has, at most {most:,.0f} {unit}; a part of this run "
                f"takes {needed:,}",
            )
        nodes = [node for node in nodes if node.get(name, 0) >= needed]


def _needs(config: SweepConfig, stack: Stack, threads: int) -> dict[str, int]:
    """Count what a shard takes of a node, by Ray's names."""
    if resolve_device(config.device).type == "cuda":
        return {"CPU": threads, "GPU": 1}
    return {"CPU": threads, "memory": stack_bytes(config, stack)}


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
) -> Iterator[tuple[int, Arrays]]:
    """Run shards on Ray's workers, in a `cluster`; yield number and measures of each as they come.

    Args:
        work, shards: what is run.
        progress: is told of every shard that is done, in model-steps.
        interrupts: asked between one shard and the next.

    Raises:
        ConfigError: no node of the cluster has room for a shard.
    """
    import ray

    if shards:
        check_nodes(work.config, [stack for _, stack in shards], work.threads)
    remote = ray.remote(max_retries=RETRIES)(_remote)
    pending = {}
    for index, stack in shards:
        needs = _needs(work.config, stack, work.threads)
        placed = remote.options(
            num_cpus=needs["CPU"], num_gpus=needs.get("GPU", 0), memory=needs.get("memory")
        )
        pending[placed.remote(work, index, stack)] = index, stack
    try:
        while pending:
            # Nothing may be raised inside of Ray: its compiled code cannot pass it on.
            with interrupts.defer():
                ready, _ = ray.wait(list(pending), timeout=1.0)
            for reference in ready:
                # What has arrived is kept before the process leaves.
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
    keep_freed_memory()
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
