"""What a figure needs beside it: what made it, of which commit, when, where, with what."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import subprocess
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from vaekit.machine import device_name, versions

ROOT = Path(__file__).resolve().parents[1]


def machine_name() -> str:
    """Name the processor with its threads and, where there is one, the card."""
    found = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    return ", ".join(device_name(torch.device(kind)) for kind in found)


def said(*command: str) -> str:
    """What a command prints; an empty text where it is not there or fails."""
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    return "" if done.returncode else done.stdout.strip()


def tools() -> dict[str, str]:
    """Versions of what only the benchmarks use, and of what drives a card; "absent" where not."""
    found = dict.fromkeys(("jax", "jaxlib", "scipy", "pytest-benchmark"), "")
    for package in found:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    compilers = (said(name, "--version").partition("\n")[0] for name in ("g++", "clang++"))
    found["C++ compiler"] = next(filter(None, compilers), "")
    query = ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    found["CUDA"] = str(torch.version.cuda or "")
    found["driver"] = said(*query).partition("\n")[0]
    triton = importlib.util.find_spec("triton")
    if triton and triton.origin:
        ptxas = Path(triton.origin).parent / "backends" / "nvidia" / "bin" / "ptxas"
        found["ptxas"] = said(str(ptxas), "--version").rpartition("\n")[2]
    return {name: text or "absent" for name, text in found.items()}


def provenance(command: str) -> dict[str, Any]:
    """What a figure needs beside it: command, commit, date, machine, versions, threads."""
    return {
        "command": command,
        "commit": said("git", "describe", "--always", "--dirty") or "not a checkout",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine_name(),
        "threads": torch.get_num_threads(),
        "platform": platform.platform(terse=True),
        "versions": versions() | tools(),
    }
