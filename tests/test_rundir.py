"""What a kill may leave in a run directory at any moment, and what the next run makes of it."""

from __future__ import annotations

import os
import platform
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from unittest import mock

import pytest
import xarray as xr

from vaekit import rundir, sweep
from vaekit.config import SweepConfig
from vaekit.errors import BusyError
from vaekit.interrupt import SIGNALS, Interrupted, Interrupts, handlers_kept
from vaekit.journal import FOLDER, PLAN
from vaekit.progress import Silent
from vaekit.results import open_results
from vaekit.rundir import claim

LEFT = f".{'0' * 16}.tmp"


def config(**changes: object) -> SweepConfig:
    values = {"mu": (0.0,), "beta": (0.5, 8.0), "steps": 9, "hidden": (4,), "batch": 4}
    values |= {"grid": 2, "tile": 2, "latents": 2, "evaluation_draws": 64, "baseline_seeds": 0}
    return SweepConfig(**{**values, "device": "cpu", "threads": 1, **changes})


@pytest.fixture(scope="module", autouse=True)
def plain_report() -> Iterator[None]:
    def page(dataset: xr.Dataset, out: Path) -> None:
        (out / rundir.REPORT).write_text("a page")

    with mock.patch.object(sweep, "write_report", page):
        yield


def listing(out: Path) -> list[str]:
    return sorted(path.name for path in out.iterdir())


FINISHED = ["config.toml", "report.html", "results.nc"]


def test_files_that_a_kill_left_half_written_stand_in_no_ones_way(tmp_path: Path) -> None:
    """The kill fell before config.toml had its name; a stranger's file is still refused."""
    out = tmp_path / "run"
    (out / FOLDER).mkdir(parents=True)
    (out / LEFT).write_text("mu = [0")
    (out / FOLDER / LEFT).write_text("")
    sweep.run_sweep(config(), out)
    assert listing(out) == FINISHED

    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.tmp").write_text("mine")
    with pytest.raises(FileExistsError, match="is not empty"):
        sweep.run_sweep(config(), other)
    assert listing(other) == ["notes.tmp"]


@pytest.mark.parametrize(("start", "out"), [("run", "."), ("run/below", "..")])
def test_the_directory_at_hand_or_above_can_be_the_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: str, out: str
) -> None:
    (tmp_path / start).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / start)
    if out == "..":
        with pytest.raises(FileExistsError, match="out: .*run is not empty; allowed: a new or"):
            sweep.run_sweep(config(), out)
        return
    sweep.run_sweep(config(), out)
    sweep.run_sweep(config(steps=10), out, overwrite=True)
    assert listing(tmp_path / "run") == FINISHED
    assert SweepConfig.from_toml(tmp_path / "run" / rundir.CONFIG).steps == 10
    assert listing(tmp_path) == ["run"]


def test_a_configuration_alone_is_no_run_and_beside_a_report_it_is(tmp_path: Path) -> None:
    (tmp_path / rundir.CONFIG).write_text(config().to_toml(), encoding="utf-8")
    assert rundir.inspect(tmp_path, config()).problem == "is not empty"
    (tmp_path / rundir.REPORT).touch()
    assert rundir.inspect(tmp_path, config()).state == "unfinished"
    assert "steps is 9 there and 5 here" in rundir.inspect(tmp_path, config(steps=5)).problem


def test_links_that_lead_nowhere_are_no_directories(tmp_path: Path) -> None:
    (tmp_path / "nowhere").symlink_to(tmp_path / "absent")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("nowhere", "loop"):
        with pytest.raises(FileExistsError, match=f"out: .*{name} is not a directory; allowed"):
            sweep.run_sweep(config(), tmp_path / name)
    assert listing(tmp_path) == ["loop", "nowhere"]


def test_a_process_that_waited_too_short_finds_the_run_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one finished between the look at the directory and the lock."""
    out = tmp_path / "run"
    others: list[Path] = []

    def late(place: Path) -> object:
        if not others:
            others.append(place)
            sweep.run_sweep(config(), out)
        return claim(place)

    monkeypatch.setattr(sweep, "claim", late)
    with mock.patch.object(Silent, "stage") as stage:
        sweep.run_sweep(config(), out)
    assert [call.args[0] for call in stage.call_args_list].count("train and measure") == 1
    assert listing(out) == FINISHED


@pytest.mark.parametrize("left", [[], ["lock"]])
def test_a_finished_run_stays_finished_when_its_clearing_was_cut_short(
    tmp_path: Path, left: list[str]
) -> None:
    out = tmp_path / "run"
    sweep.run_sweep(config(), out)
    (out / FOLDER).mkdir()
    for name in left:
        (out / FOLDER / name).touch()
    assert rundir.inspect(out, config()).state == "finished"
    (out / FOLDER / PLAN).touch()
    assert rundir.inspect(out, config()).state == "unfinished"


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_an_overwrite_that_was_killed_while_it_took_its_place_loses_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    """Before the first rename, between the two, and before the earlier run is deleted."""

    class Killed(BaseException):
        pass

    out = tmp_path / "run"
    sweep.run_sweep(config(), out)
    later = config(steps=10)
    rename, delete, done = Path.rename, rundir._delete, []

    def dies(path: Path, target: Path) -> Path:
        if len(done) == renames:
            raise Killed
        done.append(target)
        return rename(path, target)

    def never(path: Path) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", dies)
        patch.setattr(rundir, "_delete", never)
        with pytest.raises(Killed):
            sweep.run_sweep(later, out, overwrite=True)
    assert rundir._delete is delete
    with mock.patch.object(Silent, "stage") as stage:
        sweep.run_sweep(later, out, overwrite=renames < 2)
    assert not stage.called, "what was finished is done again"
    assert open_results(out).attrs["config"] == later.to_toml()
    sweep.run_sweep(config(), out, overwrite=True)
    assert listing(tmp_path) == ["run"]


def test_who_does_not_hold_the_lock_deletes_nothing(tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    with claim(out):
        (out / LEFT).touch()
        with pytest.raises(BusyError):
            sweep.run_sweep(config(), out)
        assert (out / LEFT).exists()


class During(Silent):
    """Asks for another run while this one is at work, and keeps what became of that."""

    def __init__(self, setup: SweepConfig, out: Path, *, overwrite: bool = True) -> None:
        self.other = partial(sweep.run_sweep, setup, out, overwrite=overwrite)
        self.refusals: list[str] = []

    def advance(self, amount: int) -> None:
        if not self.refusals:
            with pytest.raises(BusyError) as caught:
                self.other()
            self.refusals.append(str(caught.value))


@pytest.mark.parametrize("earlier", ["finished", "unfinished", "none"])
def test_overwriting_waits_for_who_works_there(tmp_path: Path, earlier: str) -> None:
    """For another overwrite, and for the run that is to be replaced."""
    out = tmp_path / "run"
    if earlier == "finished":
        sweep.run_sweep(config(steps=8), out)
    elif earlier == "unfinished":
        asked = Interrupts()
        asked.asked = signal.SIGTERM
        with pytest.raises(Interrupted):
            sweep.run_sweep(config(), out, interrupts=asked)
    progress = During(config(steps=10), out)
    sweep.run_sweep(config(), out, overwrite=earlier == "finished", progress=progress)
    (said,) = progress.refusals
    assert said.startswith(f"out: process {os.getpid()} on {platform.node()} works in {out}; allo")
    assert open_results(out).attrs["config"] == config().to_toml()
    assert listing(tmp_path) == ["run"]


def test_a_run_whose_place_is_being_taken_is_not_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    sweep.run_sweep(config(), out)
    rename, refused = Path.rename, []

    def slow(path: Path, target: Path) -> Path:
        renamed = rename(path, target)
        if path == out:
            with pytest.raises(BusyError) as caught:
                sweep.run_sweep(config(), out)
            refused.append(caught.value)
        return renamed

    monkeypatch.setattr(Path, "rename", slow)
    sweep.run_sweep(config(steps=10), out, overwrite=True)
    assert refused
    assert open_results(out).attrs["config"] == config(steps=10).to_toml()
    assert listing(tmp_path) == ["run"]


HOLD = f"""
import sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from vaekit.rundir import claim
with claim(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_another_process_is_named_and_what_it_works_on_is_left(tmp_path: Path) -> None:
    """Whatever it is called by, and whatever lies beside it; when it is gone, so is its lock."""
    out, link = tmp_path / "run", tmp_path / "link"
    for name in ("run", ".run.new", ".run.old"):
        (tmp_path / name / FOLDER).mkdir(parents=True)
        (tmp_path / name / "config.toml").write_text(config(steps=7).to_toml())
    link.symlink_to(out)
    before = sorted(tmp_path.rglob("*"))
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(link)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout.readline() == b"held\n"
        held = sorted(tmp_path.rglob("*"))
        for place in (out, link):
            named = f"out: process {holder.pid} on {platform.node()} works in {place}; allowed: to"
            with pytest.raises(BusyError, match=re.escape(named)):
                sweep.run_sweep(config(), place, overwrite=True)
        assert sorted(tmp_path.rglob("*")) == held
        holder.stdin.close()
    assert sorted(tmp_path.rglob("*")) == before


def test_who_holds_the_lock_is_named_where_it_can_be(tmp_path: Path) -> None:
    out, note = tmp_path / "run", tmp_path / ".run.holder"
    out.mkdir()
    with claim(out):
        for content in (b"\xff", b"x" * 1000, None):
            note.unlink() if content is None else note.write_bytes(content)
            with pytest.raises(BusyError, match=f"out: another process works in {out}; allowed"):
                sweep.run_sweep(config(), out)
    with claim(out):
        pass
    assert listing(tmp_path) == ["run"]


def test_a_finished_run_is_said_to_be_where_it_could_not_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its device is not here, or the memory is short."""
    sweep.run_sweep(config(), tmp_path / "run")
    for name in ("resolve_device", "engine_name", "check_memory", "stack_size", "claim"):
        monkeypatch.setattr(sweep, name, lambda *_, name=name: pytest.fail(name))
    with mock.patch.object(Silent, "note") as note:
        found = sweep.run_sweep(config(), tmp_path / "run")
    assert "finished: there is nothing to do" in note.call_args.args[0]
    assert found.sizes["beta"] == 2


def test_handlers_that_a_library_takes_are_put_back() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with handlers_kept():
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
    assert [signal.getsignal(number) for number in SIGNALS] == before
