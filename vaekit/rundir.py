"""What a run directory holds: nothing, a run that can go on, a finished one, or something else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vaekit.config import ConfigError, SweepConfig
from vaekit.journal import FOLDER
from vaekit.results import FILE_NAME

CONFIG = "config.toml"
REPORT = "report.html"


@dataclass(frozen=True)
class Found:
    """What was found in a run directory.

    Attributes:
        state: "unfinished" and "finished" are runs of the configuration that was asked about.
        problem: what stands against a run here, in words; "" if nothing does.
    """

    state: Literal["new", "unfinished", "finished", "other"]
    problem: str = ""


def inspect(out: Path, config: SweepConfig) -> Found:
    """Look at a directory that a run of a configuration is to go into; change nothing."""
    if not out.exists():
        return Found("new")
    if not out.is_dir():
        return Found("other", "is not a directory")
    names = {path.name for path in out.iterdir()}
    if not names - {FOLDER}:
        return Found("new")
    if CONFIG not in names or not names & {FOLDER, FILE_NAME}:
        return Found("other", "is not empty")
    try:
        there = SweepConfig.from_toml(out / CONFIG)
    except ConfigError as error:
        return Found("other", f"holds a run whose configuration cannot be read ({error})")
    differences = compare(there, config)
    if differences:
        return Found("other", f"holds a run of another configuration: {'; '.join(differences)}")
    finished = FOLDER not in names and {FILE_NAME, REPORT} <= names
    return Found("finished" if finished else "unfinished")


def compare(there: SweepConfig, here: SweepConfig) -> list[str]:
    """Say where two configurations differ; the name of the preset changes nothing."""
    values = (config.model_dump(exclude={"preset"}) for config in (there, here))
    old, new = values
    return [
        f"{name} is {old[name]} there and {new[name]} here"
        for name in old
        if old[name] != new[name]
    ]
