"""The machine at hand: which device, how much memory, which versions, how many threads."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
import torch

from vaekit import __version__
from vaekit.config import ConfigError
from vaekit.host import free_bytes
from vaekit.products import product_library

PACKAGES = ("torch", "triton", "numpy", "xarray", "h5netcdf", "matplotlib")


def resolve_device(name: str) -> torch.device:
    """Turn a configured device name into a device that is there.

    Args:
        name: "auto" (CUDA if there is one, else the CPU), "cpu", "cuda" or "cuda:N".

    Raises:
        ConfigError: a CUDA device is asked for and there is none of that number.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        allowed = "auto, cpu" + "".join(f", cuda:{index}" for index in range(count))
        raise ConfigError("device", name, f"what this machine has: {allowed}")
    return device


def total_memory(device: torch.device) -> int:
    """Bytes of memory that the device has in all, used or not."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return int(psutil.virtual_memory().total)


def free_memory(device: torch.device) -> int:
    """Bytes of memory that a new allocation on the device could have."""
    if device.type == "cuda":
        # What torch holds and does not use is free to us, and not to the driver.
        reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + reserved
    return free_bytes()


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was asked to do; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Behind:
    """Keeps a device no more than one call behind the host, and busy all the same."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.before: torch.cuda.Event | None = None

    def __call__(self) -> None:
        """Wait until the device has done what it was asked to do before the call before."""
        if self.device.type != "cuda":
            return
        now = torch.cuda.current_stream(self.device).record_event()
        if self.before is not None:
            self.before.synchronize()
        self.before = now


def device_model(device: torch.device, cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Name the device's model, as its maker does.

    A processor also by family and model where Linux tells them: virtual machines call several
    generations by one name, of which one multiplies twice as fast as another.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    told: dict[str, str] = {}
    for line in cpuinfo.read_text().splitlines() if cpuinfo.exists() else []:
        name, _, value = line.partition(":")
        told.setdefault(name.strip(), value.strip())
    if "model name" not in told:
        return platform.processor() or platform.machine()
    if "cpu family" not in told or "model" not in told:
        return told["model name"]
    return f"{told['model name']}, family {told['cpu family']} model {told['model']}"


def device_name(device: torch.device) -> str:
    """Name the device's model and, of a CPU, the threads that torch uses now."""
    threads = f" ({torch.get_num_threads()} threads)" if device.type == "cpu" else ""
    return f"{device_model(device)}{threads}"


def provenance(device: torch.device) -> dict[str, str]:
    """Say what makes a result: versions, device, threads that torch uses now, products' library."""
    return {
        **versions(),
        "device": device_model(device),
        "threads": str(torch.get_num_threads()),
        "products": product_library(device),
    }


def versions() -> dict[str, str]:
    """Versions of the software that makes a run's files; "absent" where not installed.

    Our own is that of the code that runs, which need not be installed.
    """
    found = {
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "vaekit": __version__,
    }
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use `count` threads (0: as it is) for the duration of a `with`."""
    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
