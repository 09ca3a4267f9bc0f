"""The machine at hand: what the C library does with memory that is freed."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# Prints whether a block of 30 MiB is mapped for itself, and so goes back to Linux as it is freed.
MAPPED = """
import ctypes
import sys
import torch
from vaekit.machine import keep_freed_memory

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
        [sys.executable, "-c", MAPPED, memory], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == mapped
