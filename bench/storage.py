"""Where raw samples lie: reports/bench/<machine>, a quick run's apart from a whole one's."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.provenance import ROOT, machine_name
from vaekit.files import write_whole

REPORTS = ROOT / "reports" / "bench"


def machine_slug() -> str:
    """Name the machine by its processor, threads and card, fit for a folder's name."""
    return re.sub(r"[^a-z0-9]+", "-", machine_name().lower()).strip("-")


def place(*, quick: bool = False) -> Path:
    """Folder of this machine's samples: reports/bench/<machine>, a quick run's in `quick` there."""
    return REPORTS / machine_slug() / ("quick" if quick else "")


def store(name: str, content: Mapping[str, Any], *, quick: bool = False) -> Path:
    """Write a benchmark's raw samples to `place`; a quick run never replaces a full one's."""
    folder = place(quick=quick)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    write_whole(path, json.dumps(content, indent=1) + "\n")
    return path
