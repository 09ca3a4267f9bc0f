"""Running a study: arm after arm, finished ones left as they are."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path
from typing import Any

import tomli_w
import xarray as xr

from vaekit.config import FILE_BYTES, ConfigError
from vaekit.errors import ResultsError
from vaekit.files import read_small, write_whole
from vaekit.interrupt import Interrupts
from vaekit.progress import Progress, Silent
from vaekit.results import FILE_NAME, in_order, open_results
from vaekit.study.arms import Study, make_study
from vaekit.sweep import run_sweep

STUDY_FILE = "study.toml"


def run_study(
    study: Study,
    out: Path | str,
    *,
    command: str,
    progress: Progress | None = None,
    interrupts: Interrupts | None = None,
) -> None:
    """Run the arms that are not finished; each gets the run directory OUT/arms/NAME.

    Args:
        study: what to run.
        out: the study's directory: new, empty, or one of this same study.
        command: how the study was started, for the record.
        progress: is told how the work goes.
        interrupts: how the process may be asked to leave; by default it is not.

    Raises:
        FileExistsError: `out` holds something else, or an arm of another configuration.
        ResultsError: the results of a finished arm are damaged.
    """
    out, progress = Path(out), progress or Silent()
    if out.exists() and any(out.iterdir()) and not (out / STUDY_FILE).is_file():
        raise FileExistsError(f"out: {out} is not empty; allowed: a new directory, or a study's")
    if (out / STUDY_FILE).is_file() and _identity(out) != (study.name, study.preset):
        raise FileExistsError(
            f"out: {out} holds the study {' '.join(_identity(out))}; allowed: that one"
        )
    out.mkdir(parents=True, exist_ok=True)
    commits = made_by(out)["commit"].split(", ") if (out / STUDY_FILE).is_file() else []
    if any(not (out / "arms" / arm.name / FILE_NAME).is_file() for arm in study.arms):
        commits.append(checked_out())
    about = {"study": study.name, "preset": study.preset, "command": command}
    about["commit"] = ", ".join(dict.fromkeys(commit for commit in commits if commit))
    write_whole(out / STUDY_FILE, tomli_w.dumps(about))
    for place, arm in enumerate(study.arms, 1):
        progress.note(f"arm {place} of {len(study.arms)}: {arm.name}")
        run_sweep(
            study.config(arm),
            out / "arms" / arm.name,
            command=command,
            progress=progress,
            interrupts=interrupts,
        )


def open_study(directory: Path | str) -> tuple[Study, dict[str, xr.Dataset]]:
    """Read a study and the datasets of its finished arms, arm's name -> dataset.

    Raises:
        ResultsError: it is not a study's directory, or no arm is finished.
        ConfigError: it names a study or a size that there is not.
    """
    directory = Path(directory)
    if not (directory / STUDY_FILE).is_file():
        raise ResultsError(directory, f"holds no {STUDY_FILE}")
    study = make_study(*_identity(directory))
    arms = {arm.name: directory / "arms" / arm.name for arm in study.arms}
    found = {
        name: in_order(open_results(path))
        for name, path in arms.items()
        if (path / FILE_NAME).is_file()
    }
    if not found:
        raise ResultsError(directory, "holds no finished arm")
    return study, found


def made_by(directory: Path | str) -> dict[str, str]:
    """How a study was made: command, and commit ("" where that is not known).

    Raises:
        ConfigError: its file is none.
    """
    values = _file(Path(directory) / STUDY_FILE)
    return {name: str(values.get(name, "")) for name in ("command", "commit")}


def checked_out() -> str:
    """The commit of the sources that run, "-dirty" if they were changed; "" if they are in none."""
    package = Path(__file__).parents[1]
    options: dict[str, Any] = {"cwd": package, "capture_output": True, "check": True, "timeout": 30}

    def said(*words: str) -> str:
        done = subprocess.run(["git", *words], **options)  # noqa: S603, S607 (fixed words)
        return str(done.stdout, "utf-8").strip()

    try:
        # A checkout of something else may hold an environment that we are installed in.
        said("ls-files", "--error-unmatch", "__init__.py")
        commit = said("rev-parse", "--short=12", "HEAD")
        # What else is changed, a report that is made again for one, changes no number.
        changed = said("status", "--porcelain", ":/vaekit", ":/kernels")
        return commit + ("-dirty" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def _identity(directory: Path) -> tuple[str, str]:
    path = directory / STUDY_FILE
    values = _file(path)
    try:
        return str(values["study"]), str(values["preset"])
    except KeyError as error:
        raise ConfigError("study", str(path), f"a study's file ({error})") from None


def _file(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(read_small(path, FILE_BYTES).decode())
    # What is no text and what is no TOML are ValueErrors, and brackets nest too deep.
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError("study", str(path), f"a study's file ({error})") from None
