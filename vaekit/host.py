"""What this process may have of the machine: its cores, and memory, free or kept once it is freed.

Linux bounds the memory of a process by its control group and by every one above it (containers,
batch systems). Files that are cached count as used there, and are given up as soon as memory is
asked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

# Of a control group: bytes allowed, bytes used, and the cached files among them, in `memory.stat`.
VERSION_2 = ("memory.max", "memory.current", ("active_file", "inactive_file"))
VERSION_1 = (
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    ("total_active_file", "total_inactive_file"),
)
# glibc gives free memory back to Linux beyond twice the largest block that it has seen freed, of
# those of up to 32 MiB.
LARGEST_KEPT = 2**25 - 2**16
KEPT = 2 * LARGEST_KEPT


def cores(root: Path = Path("/")) -> int:
    """Number of cores that this process may keep busy: its own, or what a control group allows.

    Args:
        root: what `proc` and `sys` are read below.
    """
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min([own or 1, *_allowed(root)]))


def free_bytes(root: Path = Path("/")) -> int:
    """Bytes of memory that are free to this process.

    Args:
        root: what `proc` and `sys` are read below.
    """
    return min([int(psutil.virtual_memory().available), *_left(root)])


def keep_freed_memory() -> None:
    """Have the C library keep what is freed, up to `KEPT` bytes, for what is asked for next.

    What a step draws or returns would go back to the system with every step, and each page of it
    cost a fault in the next. It learns from a block that is freed here, whose zeros are never made.
    The preset `smoke` took 16.3 s with it and 18.0 without, on two threads of an AMD EPYC.
    """
    bytearray(LARGEST_KEPT)


def _allowed(root: Path) -> Iterator[int]:
    """Whole cores that each control group of this process may keep busy, where it is bounded."""
    for version, place in _groups(root, "cpu"):
        # Of a container the files show its own part of the tree only; "max" and -1 are no bound.
        with suppress(OSError, ValueError):
            if version == 1:
                names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
                quota, period = (int((place / name).read_text()) for name in names)
            else:
                quota, period = map(int, (place / "cpu.max").read_text().split())
            if quota > 0:
                yield quota // period


def _left(root: Path) -> Iterator[int]:
    """Bytes that each control group of this process has left, where it is bounded."""
    for version, place in _groups(root, "memory"):
        with suppress(OSError, ValueError):
            yield _left_in(place, *(VERSION_1 if version == 1 else VERSION_2))


def _groups(root: Path, controller: str) -> Iterator[tuple[int, Path]]:
    """Version and folder of each control group that this process is in, up to the highest."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            version, top = 2, root / "sys/fs/cgroup"
        elif controller in controllers.split(","):
            version, top = 1, root / "sys/fs/cgroup" / controller
        else:
            continue
        group = top / path.strip("/")
        for place in (group, *group.parents):
            yield version, place
            if place == top:
                break


def _left_in(group: Path, most: str, used: str, cached: tuple[str, ...]) -> int:
    """Bytes that one control group has left.

    Raises:
        OSError: it is not there.
        ValueError: it has no bound ("max").
    """
    allowed, taken = (int((group / name).read_text()) for name in (most, used))
    held = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    return max(0, allowed - taken + sum(int(held.get(name, 0)) for name in cached))
