"""Shards on Ray's workers: what is asked of the cluster, and what becomes of its failures.

Ray is an extra and starts slowly, so each test runs on a stand-in that keeps what it is asked, and,
where Ray is installed, on a cluster of one node with two CPUs as well.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import xarray as xr

from vaekit import cli, launch, sweep
from vaekit.config import ConfigError, SweepConfig
from vaekit.errors import DivergedError, RunError
from vaekit.interrupt import Interrupted, Interrupts
from vaekit.journal import FOLDER
from vaekit.machine import threads
from vaekit.memory import stack_bytes
from vaekit.stack import Stack, plan

CPUS, MEMORY = 2, 2**32


def config(**changes: object) -> SweepConfig:
    values = {"mu": (0.0, 3.0), "beta": (0.5, 8.0), "steps": 9, "hidden": (4,), "batch": 4}
    values |= {"grid": 2, "tile": 2, "latents": 2, "evaluation_draws": 64, "baseline_seeds": 0}
    return SweepConfig(**{**values, "device": "cpu", "threads": 1, "stack": 2, **changes})


@pytest.fixture(autouse=True)
def plain_report(monkeypatch: pytest.MonkeyPatch) -> None:
    def page(dataset: xr.Dataset, out: Path) -> None:
        (out / "report.html").write_text("a page")

    monkeypatch.setattr(sweep, "write_report", page)


class RayError(Exception):
    """As `ray.exceptions` has it."""


class WorkerCrashedError(RayError):
    """As `ray.exceptions` has it."""


class RayTaskError(RayError):
    """As `ray.exceptions` has it: the text is that of the worker's traceback."""

    def __init__(self, cause: Exception) -> None:
        self.cause = cause
        super().__init__(f"Traceback of a worker:\n{cause}")


class FakeRay:
    """One node; a task runs when its result is asked for, and waits for ever if it cannot run."""

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self) -> None:
        self.up = False
        self.addresses: list[str | None] = []
        self.asked: list[dict[str, Any]] = []
        self.crashes = False

    def is_initialized(self) -> bool:
        return self.up

    def init(self, address: str | None = None, **_: object) -> None:
        self.up = True
        self.addresses.append(address)

    def shutdown(self) -> None:
        self.up = False

    def nodes(self) -> list[dict[str, Any]]:
        has = {"CPU": float(CPUS), "memory": float(MEMORY)}
        return [
            {"Alive": True, "Resources": has},
            {"Alive": False, "Resources": {name: 9 * held for name, held in has.items()}},
        ]

    def remote(self, **options: object) -> Callable[..., Any]:
        def decorate(function: Callable[..., Any]) -> Any:
            def ask(more: dict[str, Any], *given: object) -> Callable[[], Any]:
                self.asked.append({**options, **more})
                return lambda: function(*given)

            return SimpleNamespace(
                remote=lambda *given: ask({}, *given),
                options=lambda **more: SimpleNamespace(remote=lambda *given: ask(more, *given)),
            )

        return decorate

    def wait(self, pending: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        assert self.asked[0]["num_cpus"] <= CPUS, "waits for ever"
        assert self.asked[0].get("memory", 0) <= MEMORY, "waits for ever"
        return pending[:1], pending[1:]

    def get(self, reference: Callable[[], Any]) -> Any:
        if self.crashes:
            raise WorkerCrashedError("The worker died\nunexpectedly.")
        try:
            return reference()
        except DivergedError as error:
            raise RayTaskError(error) from error

    def cancel(self, reference: object, *, force: bool) -> None:
        del reference, force


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    made = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", made)
    return made


@pytest.fixture(params=["fake", "installed"])
def ray(request: pytest.FixtureRequest) -> Iterator[Any]:
    if request.param == "fake":
        yield request.getfixturevalue("fake")
        return
    ray = pytest.importorskip("ray", reason="the extra vaekit[ray] is not installed")
    path = {"env_vars": {"PYTHONPATH": os.pathsep.join(sys.path)}}  # the tree, as here
    ray.init(
        address="local",
        num_cpus=CPUS,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env=path,
    )
    yield ray
    ray.shutdown()


def refusal(out: Path, **changes: object) -> str:
    """Run where Ray has no place for a part; return the complaint."""
    with pytest.raises(ConfigError) as caught:
        sweep.run_sweep(config(**changes), out, launcher="ray")
    assert not out.exists()
    return str(caught.value)


@pytest.mark.usefixtures("ray")
def test_threads_that_no_node_has_are_refused(tmp_path: Path) -> None:
    said = refusal(tmp_path / "run", threads=1024)
    assert said == (
        "threads: got 1024; allowed: what a node of the cluster has, at most 2 CPUs; a part of "
        "this run takes 1,024"
    )


@pytest.mark.usefixtures("ray")
def test_memory_that_no_node_has_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "stack_bytes", lambda *_: 2**60)
    said = refusal(tmp_path / "run")
    assert said.startswith("stack: got 2; allowed: what a node of the cluster has, at most ")
    assert said.endswith(f" bytes of memory; a part of this run takes {2**60:,}")


def test_a_run_that_began_with_more_threads_than_there_are_does_not_wait(
    fake: FakeRay, tmp_path: Path
) -> None:
    interrupts = Interrupts()
    interrupts.asked = signal.SIGTERM
    setup = config(threads=0)
    with threads(CPUS + 1), pytest.raises(Interrupted):
        sweep.run_sweep(setup, tmp_path / "run", interrupts=interrupts)
    with pytest.raises(ConfigError, match="^threads: got 3; allowed: what a node of the cluster"):
        sweep.run_sweep(setup, tmp_path / "run", launcher="ray")
    assert not fake.asked


def test_every_part_asks_for_the_memory_that_it_takes(fake: FakeRay, tmp_path: Path) -> None:
    setup = config(stack=4, beta=(0.5, 2.0, 8.0))
    sweep.run_sweep(setup, tmp_path / "run", launcher="ray")
    stacks = plan(setup, 4)
    assert [asked["memory"] for asked in fake.asked] == [stack_bytes(setup, s) for s in stacks]
    assert {(asked["num_cpus"], asked["num_gpus"]) for asked in fake.asked} == {(1, 0)}


@pytest.mark.parametrize(("address", "joined"), [(None, "local"), ("auto", "auto")])
def test_ray_starts_here_unless_a_cluster_is_named(
    fake: FakeRay, tmp_path: Path, address: str | None, joined: str
) -> None:
    sweep.run_sweep(config(), tmp_path / "run", launcher="ray", address=address)
    assert fake.addresses == [joined]
    assert not fake.up


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("device", ["cuda:0", "cuda:1"])
def test_a_card_of_a_number_is_not_asked_of_ray(tmp_path: Path, device: str) -> None:
    said = refusal(tmp_path / "run", device=device)
    assert said == f"device: got '{device}'; allowed: auto, cpu, cuda: Ray chooses the card"


def dies(work: launch.Work, index: int, stack: Stack) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_workers_that_die_again_and_again_are_one_line(
    ray: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if isinstance(ray, FakeRay):
        ray.crashes = True
    else:
        monkeypatch.setattr(launch, "_remote", dies)
    monkeypatch.setattr(launch, "RETRIES", 0)
    with pytest.raises(RunError, match=r"^Ray: The worker died"):
        sweep.run_sweep(config(), tmp_path / "run", launcher="ray")
    file = tmp_path / "run.toml"
    file.write_text(config().to_toml(), encoding="utf-8")
    words = ["--config", str(file), "--out", str(tmp_path / "run"), "--launcher", "ray"]
    assert cli.run(["sweep", *words]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("vaekit: the run failed: Ray: The ")


def diverges(work: launch.Work, index: int, stack: Stack) -> None:
    raise DivergedError("diverged: mu = 0")


@pytest.mark.usefixtures("ray")
def test_a_failure_of_a_part_is_as_it_would_be_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "_remote", diverges)
    with pytest.raises(DivergedError, match="^diverged: mu = 0$") as caught:
        sweep.run_sweep(config(), tmp_path / "run", launcher="ray")
    assert caught.type is DivergedError


def test_a_signal_while_the_last_part_arrives_is_obeyed_when_it_is_kept(
    fake: FakeRay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    get, interrupts = fake.get, Interrupts()

    def signalled(reference: Callable[[], Any]) -> Any:
        if (tmp_path / "run" / FOLDER / "shard-00000-000000000009.json").exists():
            signal.raise_signal(signal.SIGTERM)
        return get(reference)

    monkeypatch.setattr(fake, "get", signalled)
    with interrupts.listening(), pytest.raises(Interrupted):
        sweep.run_sweep(config(), tmp_path / "run", launcher="ray", interrupts=interrupts)
    parts = (tmp_path / "run" / FOLDER).glob("shard-*.json")
    assert sorted(path.name for path in parts) == [
        f"shard-0000{part}-000000000009.json" for part in range(2)
    ]
