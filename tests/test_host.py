"""Free memory: the machine's, or what the control groups of the process have left; and kept."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from vaekit import files, host, machine
from vaekit.host import cores, free_bytes
from vaekit.machine import device_model

FREE = 1000


@pytest.fixture(autouse=True)
def machine_of_1000_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = SimpleNamespace(available=FREE)
    monkeypatch.setattr(host.psutil, "virtual_memory", lambda: memory)


def belongs(root: Path, *lines: str) -> None:
    """Put this process into control groups."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text("".join(f"{line}\n" for line in lines))


def group(place: Path, most: str, used: int, cached: int = 0, version: int = 2) -> None:
    """Make a control group with so many bytes, of which some are used and some hold files."""
    place.mkdir(parents=True, exist_ok=True)
    names = ("memory.max", "memory.current")
    prefix = ""
    if version == 1:
        names, prefix = ("memory.limit_in_bytes", "memory.usage_in_bytes"), "total_"
    (place / names[0]).write_text(f"{most}\n")
    (place / names[1]).write_text(f"{used}\n")
    (place / "memory.stat").write_text(
        f"anon 9\n{prefix}active_file {cached}\n{prefix}inactive_file {cached}\n"
    )


def test_without_control_groups_it_is_the_machines(tmp_path: Path) -> None:
    assert free_bytes(tmp_path) == FREE
    belongs(tmp_path, "0::/")
    assert free_bytes(tmp_path) == FREE


@pytest.mark.parametrize(("version", "line"), [(2, "0::"), (1, "4:cpu,memory:")])
def test_the_least_of_all_groups_counts(tmp_path: Path, version: int, line: str) -> None:
    top = tmp_path / "sys/fs/cgroup" / ("memory" if version == 1 else "")
    belongs(tmp_path, "3:cpuset:/x", f"{line}/a/b")
    none = "max" if version == 2 else str(2**63 - 4096)
    group(top / "a/b", none, 100, version=version)
    assert free_bytes(tmp_path) == FREE
    group(top / "a", "700", 300, version=version)
    assert free_bytes(tmp_path) == 400
    group(top / "a", "700", 300, cached=50, version=version)
    assert free_bytes(tmp_path) == 500
    group(top / "a/b", "600", 250, version=version)
    assert free_bytes(tmp_path) == 350
    group(top / "a/b", "600", 700, version=version)
    assert free_bytes(tmp_path) == 0


def test_a_container_sees_its_group_at_the_top(tmp_path: Path) -> None:
    """Where its group has the name that the machine gives it, and no directory of that name."""
    belongs(tmp_path, "4:memory:/docker/4f1c", "0::/")
    group(tmp_path / "sys/fs/cgroup/memory", "800", 500, version=1)
    assert free_bytes(tmp_path) == 300


def test_a_group_beside_ours_does_not_count(tmp_path: Path) -> None:
    belongs(tmp_path, "0::/a")
    group(tmp_path / "sys/fs/cgroup/a", "900", 200)
    group(tmp_path / "sys/fs/cgroup/b", "10", 5)
    group(tmp_path / "sys/fs", "10", 5)
    assert free_bytes(tmp_path) == 700


def test_all_who_ask_for_free_memory_are_told_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_left", lambda _: iter([77]))
    assert machine.free_memory(torch.device("cpu")) == 77
    with pytest.raises(OSError, match="takes 78 bytes, and 77 are free"):
        files.check_fits(Path("file"), 78)
    files.check_fits(Path("file"), 77)


@pytest.mark.parametrize(("version", "line"), [(2, "0::"), (1, "4:cpu,cpuacct:")])
def test_a_group_may_allow_less_time_than_there_are_cores(
    tmp_path: Path, version: int, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host.os, "sched_getaffinity", lambda _: range(8), raising=False)
    assert cores(tmp_path) == 8
    belongs(tmp_path, "3:memory:/x", f"{line}/a/b")
    assert cores(tmp_path) == 8

    def allow(place: str, quota: str) -> None:
        folder = tmp_path / "sys/fs/cgroup" / ("cpu" if version == 1 else "") / place
        folder.mkdir(parents=True, exist_ok=True)
        if version == 1:
            (folder / "cpu.cfs_quota_us").write_text(f"{quota}\n")
            (folder / "cpu.cfs_period_us").write_text("100000\n")
        else:
            (folder / "cpu.max").write_text(f"{quota} 100000\n")

    allow("a/b", "max" if version == 2 else "-1")
    assert cores(tmp_path) == 8
    allow("a", "250000")
    assert cores(tmp_path) == 2
    allow("a/b", "50000")
    assert cores(tmp_path) == 1


def test_where_no_affinity_is_known_all_cores_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(host.os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(host.os, "cpu_count", lambda: 6)
    assert cores(tmp_path) == 6
    monkeypatch.setattr(host.os, "cpu_count", lambda: None)
    assert cores(tmp_path) == 1


@pytest.mark.parametrize(
    ("told", "name"),
    [
        (
            "model name\t: A CPU\ncpu family\t: 25\nmodel\t\t: 17\n\nmodel\t\t: 1\n",
            "A CPU, family 25 model 17",
        ),
        ("model name\t: A CPU\n", "A CPU"),
        ("Processor\t: 0\n", platform.processor() or platform.machine()),
    ],
)
def test_a_processor_is_told_apart_from_others_of_its_name(
    told: str, name: str, tmp_path: Path
) -> None:
    """Clouds call several generations by one name (`reports/bench` has two "AMD EPYC")."""
    (tmp_path / "cpuinfo").write_text(told)
    assert device_model(torch.device("cpu"), tmp_path / "cpuinfo") == name
    assert device_model(torch.device("cpu"), tmp_path / "none") == (
        platform.processor() or platform.machine()
    )


# Prints whether a block of 30 MiB is mapped for itself, and so goes back to Linux as it is freed.
MAPPED = """
import ctypes
import sys
import torch
from vaekit.host import keep_freed_memory

NAMES = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"

class Information(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in NAMES.split()]

information = ctypes.CDLL(None).mallinfo2
information.restype = Information
if sys.argv[1] == "kept":
    keep_freed_memory()
before = information().hblks
block = torch.empty(30 * 2**20, dtype=torch.uint8)
print(information().hblks - before)
"""


def glibc() -> tuple[int, ...]:
    """Version of the C library; (0,) where it is another."""
    name, version = platform.libc_ver()
    return tuple(map(int, version.split("."))) if name == "glibc" else (0,)


@pytest.mark.skipif(glibc() < (2, 33), reason="only glibc learns, and tells since 2.33")
@pytest.mark.parametrize(("memory", "mapped"), [("not kept", 1), ("kept", 0)])
def test_freed_memory_is_kept_for_what_comes_next(memory: str, mapped: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MAPPED, memory],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    assert int(done.stdout) == mapped
