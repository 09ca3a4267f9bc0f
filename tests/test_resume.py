"""Runs that were stopped, killed or disturbed go on to the bits of a run that was not."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.numpy import load_file

from vaekit import shard, sweep
from vaekit.config import SweepConfig
from vaekit.errors import BusyError, DivergedError
from vaekit.interrupt import Interrupted, Interrupts
from vaekit.journal import FOLDER, DiskKeeper, Journal
from vaekit.launch import check_launcher
from vaekit.model import StackedVAE
from vaekit.progress import Silent
from vaekit.results import open_results
from vaekit.stack import Stack, split
from vaekit.state import MOMENTS
from vaekit.train import Training

ROOT = Path(__file__).parents[1]


def config(**changes: object) -> SweepConfig:
    tiny = {
        "mu": (0.0, 3.0),
        "beta": (0.5, 8.0),
        "steps": 45,
        "hidden": (16,),
        "batch": 8,
        "grid": 2,
        "tile": 3,
        "latents": 3,
        "evaluation_draws": 128,
        "baseline_seeds": 2,
        "curve_points": 4,
        "device": "cpu",
        "threads": 1,
        "stack": 2,
    }
    return SweepConfig(**{**tiny, **changes})


@pytest.fixture(scope="module", autouse=True)
def plain_report() -> Iterator[None]:
    """Write a page without figures: they are not what is tried here, and take the longest."""

    def page(dataset: xr.Dataset, out: Path) -> None:
        (out / "report.html").write_text("a page")

    with mock.patch.object(sweep, "write_report", page):
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, xr.Dataset]:
    """A run that nothing disturbed."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    return out, sweep.run_sweep(config(), out)


def assert_same_bits(found: xr.Dataset, expected: xr.Dataset) -> None:
    assert found.data_vars.keys() == expected.data_vars.keys()
    for name in expected.data_vars:
        np.testing.assert_array_equal(found[name].values, expected[name].values, err_msg=str(name))


class After(Silent):
    """Does something at the n-th sign of progress."""

    def __init__(self, count: int, act: Callable[[], None]) -> None:
        self.count, self.act = count, act
        self.notes: list[str] = []

    def advance(self, amount: int) -> None:
        self.count -= 1
        if self.count == 0:
            self.act()

    def note(self, text: str) -> None:
        self.notes.append(text)


class Killed(BaseException):
    """Stands for a process that ends here: nothing after it runs."""


def kill() -> None:
    raise Killed


@pytest.mark.parametrize("count", [2, 4, 7, 9, 11, 14])
def test_a_run_that_was_asked_to_leave_goes_on_to_the_same_bits(
    whole: tuple[Path, xr.Dataset], tmp_path: Path, count: int
) -> None:
    """In the first or second part, at its start, middle or end."""
    interrupts = Interrupts()

    def ask() -> None:
        interrupts.asked = signal.SIGTERM

    out = tmp_path / "run"
    with pytest.raises(Interrupted, match="SIGTERM"):
        sweep.run_sweep(config(), out, progress=After(count, ask), interrupts=interrupts)
    assert list((out / FOLDER).glob("*.safetensors"))
    assert not (out / "results.nc").exists()
    assert_same_bits(sweep.run_sweep(config(), out), whole[1])
    assert sorted(path.name for path in out.iterdir()) == sorted(
        path.name for path in whole[0].iterdir()
    )


@pytest.mark.parametrize("seconds", [0.0, 60.0])
@pytest.mark.parametrize("count", [3, 10])
def test_a_run_that_was_killed_goes_on_from_its_last_checkpoint(
    whole: tuple[Path, xr.Dataset], tmp_path: Path, count: int, seconds: float
) -> None:
    out = tmp_path / "run"
    with pytest.raises(Killed):
        sweep.run_sweep(config(), out, progress=After(count, kill), checkpoint_seconds=seconds)
    trained = After(0, kill)
    assert_same_bits(sweep.run_sweep(config(), out, progress=trained), whole[1])
    # Less than a whole run was left to do exactly where a checkpoint had been kept.
    assert any("parts are done" in note for note in trained.notes) is (count == 10)


def test_a_finished_run_is_left_alone_and_said_to_be_finished(
    whole: tuple[Path, xr.Dataset],
) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole[0].rglob("*")}
    progress = After(0, kill)
    found = sweep.run_sweep(config(preset="custom"), whole[0], progress=progress)
    assert "nothing to do" in progress.notes[0]
    assert {path: path.stat().st_mtime_ns for path in whole[0].rglob("*")} == before
    assert found.sizes == whole[1].sizes


def test_another_configuration_is_refused_and_the_difference_shown(
    whole: tuple[Path, xr.Dataset], tmp_path: Path
) -> None:
    with pytest.raises(FileExistsError, match=r"steps is 45 there and 46 here; kl is analytic the"):
        sweep.run_sweep(config(steps=46, kl="sample"), whole[0])
    out = tmp_path / "run"
    with pytest.raises(Killed):
        sweep.run_sweep(config(), out, progress=After(3, kill))
    with pytest.raises(FileExistsError, match="batch is 8 there and 9 here"):
        sweep.run_sweep(config(batch=9), out)
    assert not list(out.glob("*.nc"))


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(
    whole: tuple[Path, xr.Dataset], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with pytest.raises(Killed):
        sweep.run_sweep(config(), out, progress=After(5, kill), checkpoint_seconds=0.0)
    newest = max((out / FOLDER).glob("training-*.safetensors"))
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    progress = After(0, kill)
    assert_same_bits(sweep.run_sweep(config(), out, progress=progress), whole[1])
    assert any(newest.name in note and "checksum" in note for note in progress.notes)


@pytest.mark.parametrize(
    "content", ["", "{", '{"shards": []}', '{"shards": [{"mu": [0], "seeds": [0], "beta": [1]}]}']
)
def test_a_damaged_plan_is_made_anew(
    whole: tuple[Path, xr.Dataset], tmp_path: Path, content: str
) -> None:
    out = tmp_path / "run"
    with pytest.raises(Killed):
        sweep.run_sweep(config(), out, progress=After(10, kill))
    (out / FOLDER / "plan.json").write_text(content)
    progress = After(0, kill)
    assert_same_bits(sweep.run_sweep(config(), out, progress=progress), whole[1])
    assert any("plan.json" in note and "planned anew" in note for note in progress.notes)


def test_the_plan_of_a_run_outlives_a_change_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    with pytest.raises(Killed):
        sweep.run_sweep(config(stack=0), out, progress=After(3, kill))
    before = json.loads((out / FOLDER / "plan.json").read_text())
    monkeypatch.setattr("vaekit.stack.CPU_STACK", 1)
    journal = Journal(out, config(stack=0), lambda _: None)
    with pytest.raises(Killed):
        sweep.run_sweep(config(stack=0), out, progress=After(3, kill))
    assert json.loads((journal.directory / "plan.json").read_text()) == before


def test_a_second_process_refuses_and_tears_nothing(
    whole: tuple[Path, xr.Dataset], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    refused: list[str] = []

    def second() -> None:
        try:
            sweep.run_sweep(config(), out)
        except BusyError as error:
            refused.append(str(error))

    assert_same_bits(sweep.run_sweep(config(), out, progress=After(4, second)), whole[1])
    (message,) = refused
    assert message.startswith(f"out: process {os.getpid()} on {platform.node()} works in {out}; ")


def test_overwriting_goes_on_where_it_was_too(tmp_path: Path) -> None:
    out = tmp_path / "run"
    sweep.run_sweep(config(steps=9), out)
    with pytest.raises(Killed):
        sweep.run_sweep(config(), out, overwrite=True, progress=After(10, kill))
    assert open_results(out).attrs["config"] == config(steps=9).to_toml()
    progress = After(0, kill)
    sweep.run_sweep(config(), out, overwrite=True, progress=progress)
    assert any("parts are done" in note for note in progress.notes)
    assert open_results(out).attrs["config"] == config().to_toml()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def poison(monkeypatch: pytest.MonkeyPatch, model: int) -> None:
    """Give one model of each first stream a weight that is not finite."""
    initial = StackedVAE.initial

    def poisoned(setup: SweepConfig, seeds: torch.Tensor) -> StackedVAE:
        vae = initial(setup, seeds)
        if vae.models == 2:
            vae.layers[0][0][model, 0, 0] = torch.nan
        return vae

    monkeypatch.setattr(StackedVAE, "initial", poisoned)


@pytest.mark.parametrize("model", [0, 1])
def test_a_diverging_model_is_marked_and_its_sibling_keeps_its_bits(
    whole: tuple[Path, xr.Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: int
) -> None:
    poison(monkeypatch, model)
    found = sweep.run_sweep(config(baseline_seeds=0), tmp_path / "run")
    for place in range(2):
        cell, clean = (data.isel(beta=place, seed=0) for data in (found, whole[1]))
        if place == model:
            assert cell["status"].values.tolist() == ["diverged"] * 2
            assert cell["diverged_at"].values.tolist() == [1, 1]
            for name in ("recovery_r2", "probe_mse", "rate", "loss_curve", "traversal"):
                assert cell[name].isnull().all(), name
        else:
            assert cell["diverged_at"].values.tolist() == [0, 0]
            for name in ("recovery_r2", "rate", "loss_curve", "kl", "probe_mse"):
                np.testing.assert_array_equal(cell[name].values, clean[name].values)


def test_a_divergence_can_be_a_failure_and_the_run_can_go_on_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, 1)
    setup = config(baseline_seeds=0)
    with pytest.raises(DivergedError, match=r"mu = 0, beta = 8, seed = 0 at step 1$"):
        sweep.run_sweep(setup, tmp_path / "run", on_diverge="fail")
    found = sweep.run_sweep(setup, tmp_path / "run", on_diverge="keep")
    assert found["status"].values[:, 1].tolist() == [["diverged"], ["diverged"]]


@pytest.mark.parametrize("count", [7, 10], ids=["trained", "measured"])
def test_a_divergence_from_before_is_a_failure_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Found in the checkpoint of the last step, or in a part that is done."""
    out, setup = tmp_path / "run", config(baseline_seeds=0)
    interrupts = Interrupts()

    def ask() -> None:
        interrupts.asked = signal.SIGTERM

    with monkeypatch.context() as patch:
        poison(patch, 1)
        with pytest.raises(Interrupted):
            sweep.run_sweep(setup, out, progress=After(count, ask), interrupts=interrupts)
    last = f"training-00000-{setup.steps:012d}.safetensors"
    for path in (out / FOLDER).glob(last):
        # Nobody goes on from the last step.
        assert "parameters" in load_file(path)
        assert MOMENTS.isdisjoint(load_file(path))
    assert (out / FOLDER / last).exists() is (count == 7)
    for _ in range(2):
        with pytest.raises(
            DivergedError, match=r"^diverged: mu = 0, beta = 8, seed = 0 at step 1$"
        ):
            sweep.run_sweep(setup, out, on_diverge="fail")
    found = sweep.run_sweep(setup, out)
    assert found["diverged_at"].values[0].ravel().tolist() == [0, 1]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
    ids=["cuda", "cpu", "python"],
)
def test_a_stack_that_does_not_fit_is_split_and_the_run_goes_on(
    whole: tuple[Path, xr.Dataset],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    train = shard.train

    def small(setup: SweepConfig, stack: Stack, *arguments: object, **named: object) -> Training:
        if stack.models > 1:
            raise error
        return train(setup, stack, *arguments, **named)

    monkeypatch.setattr(shard, "train", small)
    progress = After(0, kill)
    found = sweep.run_sweep(config(stack=4), tmp_path / "run", progress=progress)
    assert [note for note in progress.notes if "halves" in note] == [
        f"{models} models do not fit in memory: going on with halves" for models in (4, 2, 2)
    ]
    for name in ("loss_curve", "rate", "probe_mse", "status", "diverged_at"):
        expected = whole[1][name].values
        if expected.dtype.kind == "f":
            np.testing.assert_allclose(found[name].values, expected, rtol=2e-3, atol=2e-4)
        else:
            np.testing.assert_array_equal(found[name].values, expected)


def short_of_memory(monkeypatch: pytest.MonkeyPatch, name: str, most: int) -> list[int]:
    """Let a step of a shard have memory for no more than so many models; return those it did."""
    real, sizes = getattr(shard, name), []

    def small(setup: SweepConfig, stack: Stack, *arguments: object, **named: object) -> object:
        if stack.models > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(stack.models)
        return real(setup, stack, *arguments, **named)

    monkeypatch.setattr(shard, name, small)
    return sizes


@pytest.mark.parametrize("name", ["evaluate_stack", "model_pictures"])
def test_a_stack_that_cannot_be_measured_at_once_is_trained_once(
    whole: tuple[Path, xr.Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    trained = short_of_memory(monkeypatch, "train", 4)
    real = getattr(shard, name)

    def small(vae: StackedVAE, *given: object, **named: object) -> object:
        if vae.models > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(vae, *given, **named)

    monkeypatch.setattr(shard, name, small)
    progress = After(0, kill)
    found = sweep.run_sweep(config(stack=4), tmp_path / "run", progress=progress)
    assert trained == [4]
    assert sum("halves" in note for note in progress.notes) == 3
    for measure in ("loss_curve", "rate", "probe_mse", "diverged_at", "reconstruction"):
        np.testing.assert_allclose(
            found[measure].values, whole[1][measure].values, rtol=2e-3, atol=6e-3, err_msg=measure
        )


@pytest.mark.parametrize("count", [2, 7, 9, 14])
def test_halves_that_were_asked_to_leave_go_on_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """In the first or the second half, and from the checkpoint of each."""
    short_of_memory(monkeypatch, "train", 2)
    expected = sweep.run_sweep(config(stack=4), tmp_path / "whole")
    interrupts = Interrupts()

    def ask() -> None:
        interrupts.asked = signal.SIGTERM

    out = tmp_path / "run"
    with pytest.raises(Interrupted):
        sweep.run_sweep(config(stack=4), out, progress=After(count, ask), interrupts=interrupts)
    kept = {path.name.rpartition("-")[0] for path in (out / FOLDER).glob("training-*.json")}
    assert kept == {f"training-00000.{half}" for half in range(1 + count // 8)}
    found, load = [], DiskKeeper.load

    def loads(keeper: DiskKeeper, *given: object) -> object:
        found.append((keeper.name, load(keeper, *given)))
        return found[-1][1]

    monkeypatch.setattr(DiskKeeper, "load", loads)
    assert_same_bits(sweep.run_sweep(config(stack=4), out), expected)
    assert {name for name, checkpoint in found if checkpoint} == kept


def test_a_model_that_does_not_fit_alone_is_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("tried to allocate 8 GiB")

    monkeypatch.setattr(shard, "train", never)
    with pytest.raises(MemoryError, match="one model alone does not fit in memory: tried to"):
        sweep.run_sweep(config(), tmp_path / "run")


def test_other_failures_are_not_taken_for_a_lack_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*_: object, **__: object) -> None:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(shard, "train", wrong)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        sweep.run_sweep(config(), tmp_path / "run")


def test_halves_are_the_whole_in_order() -> None:
    for stack in (
        Stack((0.0, 1.0, 2.0), (0, 0, 1), (1.0, 2.0)),
        Stack((0.0,), (3,), (1.0, 2.0, 3.0)),
    ):
        first, second = split(stack)
        assert first.cells() + second.cells() == stack.cells()
        assert first.models
        assert second.models


COMMAND = (
    f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'kernels')!r}]; "
    "from vaekit import cli; sys.exit(cli.run(sys.argv[1:]))"
)


def start(out: Path, setup: SweepConfig, *words: str) -> subprocess.Popen[str]:
    """Start a sweep in a process of its own."""
    file = out.with_suffix(".toml")
    file.write_text(setup.to_toml())
    given = ["sweep", "--config", str(file), "--out", str(out), *words]
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *given],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    limit = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < limit
        time.sleep(0.01)


# Not compiled: a signal would come before the first step.
LONG = {"steps": 200_000, "engine": "torch"}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_commits_and_leaves_within_ten_seconds(
    tmp_path: Path, number: int, code: int
) -> None:
    out = tmp_path / "run"
    process = start(out, config(**LONG), "--checkpoint-seconds", "1e6")
    wait_for((out / FOLDER / "plan.json").exists, process)
    time.sleep(1.0)
    process.send_signal(number)
    begun = time.monotonic()
    _, said = process.communicate(timeout=30)
    assert time.monotonic() - begun < 10
    assert process.returncode == code
    assert f"to go on: vaekit sweep --config {out}.toml --out {out}" in said
    assert len(list((out / FOLDER).glob("training-*.safetensors"))) == 1


def test_a_process_that_was_killed_leaves_a_run_that_goes_on(
    whole: tuple[Path, xr.Dataset], tmp_path: Path
) -> None:
    """One SIGKILL in a real process; `nox -s soak` does it 25 times at random times."""
    out = tmp_path / "run"
    process = start(out, config(), "--checkpoint-seconds", "0")
    wait_for(lambda: bool(list((out / FOLDER).glob("training-*.json"))), process)
    process.kill()
    process.communicate()
    assert not (out / "report.html").exists()
    assert_same_bits(sweep.run_sweep(config(), out), whole[1])


@pytest.mark.skipif(os.name == "nt", reason="Windows stops no process")
def test_of_two_processes_the_second_names_the_first_which_ends_in_the_right_bits(
    whole: tuple[Path, xr.Dataset], tmp_path: Path
) -> None:
    """The first is held still, wherever it is, until the second has been and gone."""
    out = tmp_path / "run"
    with start(out, config()) as first:
        try:
            wait_for(lambda: bool(list((out / FOLDER).glob("shard-*.json"))), first)
            first.send_signal(signal.SIGSTOP)
            before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
            with start(out, config()) as second:
                said = second.stderr.read()
            after = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
            first.send_signal(signal.SIGCONT)
            first.stderr.read()
            first.wait(timeout=60)
        finally:
            first.kill()
    assert second.returncode == 1
    assert said == (
        f"vaekit: the run failed: out: process {first.pid} on {platform.node()} works in {out}; "
        "allowed: to wait until it is done, or another directory\n"
    )
    assert after == before
    assert first.returncode == 0
    assert_same_bits(open_results(out), whole[1])
    assert sorted(path.name for path in out.iterdir()) == [
        "config.toml",
        "figures",
        "report.html",
        "results.nc",
    ]


@pytest.mark.parametrize("name", ["slurm", "", "LOCAL"])
def test_a_launcher_that_is_not_there_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=f"launcher: got {name!r}; allowed: local, ray"):
        sweep.run_sweep(config(), tmp_path / "run", launcher=name)
    assert not (tmp_path / "run").exists()


def test_ray_that_is_not_installed_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"local, or ray after `python -m pip install 'vaekit\[ra"):
        check_launcher("ray", "cpu")


def test_ray_with_two_workers_one_of_them_killed_gives_the_local_result(
    whole: tuple[Path, xr.Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray", reason="the extra vaekit[ray] is not installed")
    out = tmp_path / "run"
    marker = tmp_path / "killed"
    path = {"env_vars": {"PYTHONPATH": os.pathsep.join(sys.path)}}  # the tree, as here
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=path)
    try:
        from vaekit import launch

        remote = launch._remote

        def dies_once(work: launch.Work, index: int, stack: Stack) -> dict:
            if index == 0 and not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return remote(work, index, stack)

        monkeypatch.setattr(launch, "_remote", dies_once)
        found = sweep.run_sweep(config(), out, launcher="ray")
    finally:
        ray.shutdown()
    assert marker.exists()
    assert_same_bits(found, whole[1])


# A first run imports all that a second one does, which may not be nobody's to read.
AS_NOBODY = f"""
import contextlib, io, os, sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "kernels")!r}]
from vaekit import cli, sweep
sweep.write_report = lambda *_: None
with contextlib.redirect_stderr(io.StringIO()):
    assert cli.run([*sys.argv[1:-1], "first"]) == 0
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
sys.exit(cli.run(sys.argv[1:]))
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")
@pytest.mark.parametrize("begun", [False, True], ids=["new", "begun"])
def test_a_directory_that_cannot_be_written_gives_a_message_and_loses_nothing(
    whole: tuple[Path, xr.Dataset], tmp_path: Path, begun: bool
) -> None:
    """As nobody where root runs the tests, since root may write everywhere."""
    # The child stands in it and takes paths from there, so the directories above do not matter.
    tmp_path.chmod(0o755)
    locked = tmp_path / "locked"
    locked.mkdir()
    if begun:
        with pytest.raises(Killed):
            sweep.run_sweep(config(), locked, progress=After(10, kill), checkpoint_seconds=0.0)
    (tmp_path / "run.toml").write_text(config().to_toml())
    before = {path: path.read_bytes() for path in locked.rglob("*") if path.is_file()}
    paths = [locked, *locked.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    out = "locked" if begun else "locked/run"
    words = ["sweep", "--config", "run.toml", "--out", out]
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    for path in paths:
        path.chmod(0o755 if path.is_dir() else 0o644)
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("vaekit: the run failed: [Errno 13] Permission denied: ")
    # The directory, or the one above it, where the lock goes.
    assert done.stderr.count("\n") == 1 and str(tmp_path if begun else "locked") in done.stderr
    assert {path: path.read_bytes() for path in locked.rglob("*") if path.is_file()} == before
    assert_same_bits(sweep.run_sweep(config(), tmp_path / out), whole[1])
