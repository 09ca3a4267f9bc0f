"""The command line: what is asked is what is run, what is printed where, and every exit code."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import xarray as xr

import vaekit.sweep
from vaekit import cli
from vaekit.compiler import compiler_missing
from vaekit.config import PRESETS, ConfigError, SweepConfig
from vaekit.errors import ResultsError
from vaekit.progress import Live, Plain, Progress, Silent, progress_for
from vaekit.results import open_results

ROOT = Path(__file__).parents[1]
TINY = [
    "--mu=0,3",
    "--beta=0.5,8",
    "--steps=6",
    "--hidden=8",
    "--batch=4",
    "--grid=2",
    "--tile=2",
    "--latents=2",
    "--evaluation-draws=64",
    "--baseline-seeds=2",
    "--curve-points=3",
    "--device=cpu",
]


class Sweep:
    """Stands in for `run_sweep` and keeps what it was asked."""

    def __init__(self, failure: BaseException | None = None) -> None:
        self.failure = failure
        self.config = SweepConfig.from_preset("smoke")
        self.out = Path()
        self.options: dict[str, Any] = {}

    def __call__(self, config: SweepConfig, out: Path, **options: Any) -> xr.Dataset:
        self.config, self.out, self.options = config, out, options
        options["progress"].note("9 models of 300 steps")
        if self.failure is not None:
            raise self.failure
        return xr.Dataset({"status": (("mu", "beta"), [["ok", "collapsed"], ["ok", "ok"]])})


@pytest.fixture
def sweep(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Sweep:
    stand_in = Sweep()
    monkeypatch.setattr(vaekit.sweep, "run_sweep", stand_in)
    monkeypatch.chdir(tmp_path)
    return stand_in


def test_every_field_of_the_configuration_has_a_flag(sweep: Sweep) -> None:
    flags = {option.name for option in cli.cli.commands["sweep"].params}
    assert set(SweepConfig.model_fields) <= flags


def test_every_flag_reaches_the_configuration(sweep: Sweep) -> None:
    given = {
        "mu": "0,1,2",
        "beta": "0.5,1",
        "seeds": "3",
        "first_seed": "7",
        "steps": "4000",
        "batch": "64",
        "learning_rate": "0.01",
        "hidden": "64,32",
        "latents": "4",
        "generator": "linear",
        "grid": "2",
        "tile": "5",
        "noise_variance": "0.5",
        "test_levels": "-1,0,1",
        "likelihood": "gaussian",
        "decoder_variance": "0.125",
        "decoder_output": "linear",
        "kl": "sample",
        "beta_warmup": "2000",
        "code": "sample",
        "evaluation_draws": "4096",
        "estimators": "ksg,mine",
        "axis_scores": "mig,dci",
        "baseline_seeds": "5",
        "curve_points": "50",
        "device": "cpu",
        "engine": "torch",
        "precision": "bf16",
        "threads": "1",
        "stack": "2",
    }
    assert set(given) == set(SweepConfig.model_fields) - {"preset"}
    words = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    assert cli.run(["sweep", "--preset", "smoke", *words]) == 0
    assert sweep.config == SweepConfig(preset="smoke", **given)


def test_a_list_may_begin_with_a_minus(sweep: Sweep) -> None:
    assert cli.run(["sweep", "--preset", "smoke", "--mu", "-1,0"]) == 0
    assert sweep.config.mu == (-1.0, 0.0)


def test_no_hidden_layer_can_be_asked_for(sweep: Sweep) -> None:
    assert cli.run(["sweep", "--preset", "smoke", "--hidden", ""]) == 0
    assert sweep.config.hidden == ()


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_taken_as_it_is(sweep: Sweep, name: str) -> None:
    assert cli.run(["sweep", "--preset", name]) == 0
    assert sweep.config == SweepConfig.from_preset(name)


def test_a_file_is_taken_and_flags_go_before_it(sweep: Sweep, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(SweepConfig.from_preset("warmup", steps=6_000).to_toml())
    assert cli.run(["sweep", "--config", "c.toml", "--seeds", "1"]) == 0
    assert sweep.config == SweepConfig.from_preset("warmup", steps=6_000, seeds=1)


@pytest.mark.parametrize(("cuda", "preset"), [(False, "laptop"), (True, "post")])
def test_without_preset_and_file_the_device_decides_and_the_first_line_says_so(
    sweep: Sweep,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    cuda: bool,
    preset: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    assert cli.run(["sweep", "--seeds", "2"]) == 0
    assert sweep.config == SweepConfig.from_preset(preset, seeds=2)
    first = capsys.readouterr().err.splitlines()[0]
    assert first.startswith(f"preset {preset}, because ")


def test_a_preset_that_is_given_needs_no_reason(
    sweep: Sweep, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["sweep", "--preset", "smoke"]) == 0
    assert capsys.readouterr().err.splitlines()[0] == "9 models of 300 steps"


def test_the_last_line_is_the_path_of_the_report(
    sweep: Sweep, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["sweep", "--preset", "smoke"]) == 0
    output = capsys.readouterr()
    assert re.fullmatch(r"runs/\d{8}-\d{6}-smoke", sweep.out.as_posix())
    assert output.out == f"{sweep.out / 'report.html'}\n"
    assert output.err.splitlines()[-1] == "4 models: 1 collapsed, 3 ok"


def test_out_overwrite_and_the_command_are_passed_on(sweep: Sweep) -> None:
    words = ["sweep", "--preset", "smoke", "--out", "a b", "--overwrite"]
    assert cli.run(words) == 0
    assert sweep.out == Path("a b")
    assert sweep.options["overwrite"] is True
    assert sweep.options["command"] == "vaekit sweep --preset smoke --out 'a b' --overwrite"
    assert cli.run(["sweep", "--preset", "smoke"]) == 0
    assert sweep.options["overwrite"] is False


MISTAKES = [
    (["nothing"], "No such command"),
    (["sweep", "--betas", "1"], "No such option"),
    (["sweep", "--seeds"], "requires an argument"),
    (["sweep", "more"], "unexpected extra argument"),
    (["sweep", "--preset", "huge"], "preset: got 'huge'; allowed: post, laptop, warmup, smoke"),
    (["sweep", "--preset", "smoke", "--config", "c.toml"], "exclude each other"),
    (["sweep", "--config", "absent.toml"], "config: got 'absent.toml'"),
    (["sweep", "--preset", "smoke", "--steps", "0"], "steps: got '0'; allowed: a whole number"),
    (["sweep", "--preset", "smoke", "--beta", "1,-2"], "beta: got '-2'; allowed: "),
    (["sweep", "--preset", "smoke", "--beta", "1,nan"], "beta: got 'nan'; allowed: "),
    (["sweep", "--preset", "smoke", "--mu", "0,0"], "mu: got (0.0, 0.0); allowed: "),
    (["sweep", "--preset", "smoke", "--grid", "4"], "grid: got 4; allowed: a test grid of at most"),
    (["sweep", "--preset", "smoke", "--kl", "exact"], "kl: got 'exact'; allowed: analytic, sample"),
    (["sweep", "--device", "tpu"], "device: got 'tpu'; allowed: auto, cpu, cuda"),
    (["sweep", "--device", "cuda:99"], "device: got 'cuda:99'; allowed: what this machine has"),
    (["sweep", "--preset", "smoke", "--out", ""], "out: got ''; allowed: a directory"),
    (["sweep", "--preset", "smoke", "--address", "auto"], "address: got 'auto'; allowed: a Ray"),
    *(
        (
            ["sweep", "--preset", "smoke", "--checkpoint-seconds", value],
            f"checkpoint_seconds: got {shown}; allowed: a number of 0 or more",
        )
        for value, shown in (("x", "'x'"), ("", "''"), ("-1", "-1.0"), ("nan", "nan"))
    ),
    (["predict", "--mu", "x"], "mu: got 'x'"),
    (["predict", "--tile", "0"], "tile: got '0'"),
    (["report"], "Missing argument 'RUN'"),
    (["report", "absent"], "absent: there is no such file"),
    (["info", "more"], "unexpected extra argument"),
]


@pytest.mark.parametrize(("words", "message"), MISTAKES, ids=lambda part: str(part)[:50])
def test_a_mistake_in_use_is_2_and_one_line(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run(words) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("vaekit: ")
    assert output.err.count("\n") == 1
    assert message in output.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("below", "words"),
    [
        ("f", []),
        *product(["f/g", "f/g/h", "link/g", "loop/g"], [[], ["--overwrite"]]),
    ],
    ids=str,
)
def test_a_run_directory_that_cannot_be_is_a_mistake(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    below: str,
    words: list[str],
) -> None:
    """Below a file, a link to nothing or to itself; and in place of a file that is to stay."""
    monkeypatch.chdir(tmp_path)
    Path("f").write_text("mine")
    Path("link").symlink_to("absent")
    Path("loop").symlink_to("loop")
    assert cli.run(["sweep", "--preset", "smoke", "--out", below, *words]) == 2
    first = below.split("/")[0]
    what = "is not" if below == "f" else f"lies below {first}, which is not"
    assert (
        f"vaekit: out: {below} {what} a directory; allowed: a new or em" in capsys.readouterr().err
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f", "link", "loop"]
    assert Path("f").read_text() == "mine"


@pytest.mark.parametrize(
    ("failure", "code", "message"),
    [
        (ConfigError("device", "cuda", "cpu"), 2, "vaekit: device: got 'cuda'; allowed: cpu"),
        (FileExistsError("out: x is not empty"), 2, "vaekit: out: x is not empty"),
        (OSError(28, "No space left on device"), 1, "No space left on device"),
        (MemoryError(), 1, "vaekit: the run failed: MemoryError"),
        (KeyboardInterrupt(), 130, "vaekit: interrupted"),
    ],
    ids=lambda part: type(part).__name__ if isinstance(part, BaseException) else None,
)
def test_a_failure_has_its_code_and_one_line(
    sweep: Sweep,
    capsys: pytest.CaptureFixture[str],
    failure: BaseException,
    code: int,
    message: str,
) -> None:
    sweep.failure = failure
    assert cli.run(["sweep", "--preset", "smoke"]) == code
    output = capsys.readouterr()
    assert output.out == ""
    assert message in output.err.splitlines()[-1]


def test_a_bug_keeps_its_traceback(sweep: Sweep) -> None:
    sweep.failure = RuntimeError("a bug")
    with pytest.raises(RuntimeError, match="a bug"):
        cli.run(["sweep", "--preset", "smoke"])


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["sweep", "--help"], ["predict", "-h"]])
def test_help_is_0_and_on_the_standard_output(
    capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert cli.run(words) == 0
    output = capsys.readouterr()
    assert "Usage: vaekit" in output.out
    assert output.err == ""


def test_no_command_shows_the_help_and_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([]) == 2
    assert "Commands:" in capsys.readouterr().err


def test_the_help_of_every_field_says_what_it_takes_and_its_default(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.run(["sweep", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--kl analytic|sample" in text
    assert "--hidden LIST" in text
    assert "[default: 256,128]" in text
    assert "Allowed: a number from 1e-9 to 1e9. [default: 0.25]" in text


def test_predict_prints_the_known_boundaries(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["predict", "--mu", "0,1,2,3,4,5"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[0] for row in rows] == ["0", "1", "2", "3", "4", "5"]
    found = [float(row[1]) for row in rows]
    # experiment.md's figures for the defaults, given there to two decimals
    assert found == pytest.approx([9.50, 7.55, 4.05, 1.92, 1.20, 1.03], abs=0.02)


def test_predict_takes_its_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["predict", "--mu", "0"]) == 0
    usual = float(capsys.readouterr().out.splitlines()[-1].split()[1])
    assert cli.run(["predict", "--mu", "0", "--decoder-variance", "0.5"]) == 0
    assert float(capsys.readouterr().out.splitlines()[-1].split()[1]) == pytest.approx(
        usual / 2, abs=1e-4
    )
    linear = ["--generator", "linear", "--tile", "2", "--noise-variance", "1"]
    assert cli.run(["predict", "--mu", "7", *linear]) == 0
    # (2^2 * 1 + 1) / 0.25, and nine times half the logarithm of 1 + 4
    last = capsys.readouterr().out.splitlines()[-1].split()
    assert [float(part) for part in last] == pytest.approx([7, 20, 7.2425], abs=1e-4)


def test_predict_without_flags_takes_the_posts_biases(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["predict"]) == 0
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [float(row.split()[0]) for row in rows] == list(PRESETS["post"]["mu"])


def test_info_names_versions_device_and_engine(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["info"]) == 0
    rows = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert rows["vaekit"] == vaekit.__version__
    assert rows["torch"] == torch.__version__
    assert {"python", "triton", "numpy", "device", "memory", "threads", "engine"} <= set(rows)
    assert rows["compiler"] == (
        compiler_missing() or "sweeps of 200,000 model-steps or more are compiled"
    )


def test_info_needs_no_triton(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from importlib import metadata

    from vaekit import machine

    def version(package: str) -> str:
        if package == "triton":
            raise metadata.PackageNotFoundError(package)
        return metadata.version(package)

    monkeypatch.setattr(machine, "version", version)
    monkeypatch.setitem(sys.modules, "triton", None)
    assert cli.run(["info"]) == 0
    assert re.search(r"^triton +absent$", capsys.readouterr().out, re.MULTILINE)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_plain_lines_come_at_most_every_few_seconds() -> None:
    clock, stream = Clock(), io.StringIO()
    with Plain(stream, seconds=5, clock=clock) as progress:
        progress.note("hello")
        progress.stage("train", 1000, "model-steps")
        for _ in range(10):
            clock.now += 1
            progress.advance(100)
        progress.stage("baseline", 2, "networks")
        clock.now += 61
        progress.advance(2)
    assert stream.getvalue().splitlines() == [
        "hello",
        "train: 1,000 model-steps",
        "train: 50%, 500 of 1,000 model-steps, 100 a second, 0:05 left",
        "train: done in 0:10",
        "baseline: 2 networks",
        "baseline: done in 1:01",
    ]


def test_a_stage_that_an_error_ends_is_not_called_done() -> None:
    stream = io.StringIO()
    progress = Plain(stream)
    progress.stage("train", 10, "steps")
    progress.__exit__(OSError, OSError("full"), None)
    assert "done" not in stream.getvalue()


def test_a_long_time_left_is_in_hours() -> None:
    clock, stream = Clock(), io.StringIO()
    with Plain(stream, seconds=5, clock=clock) as progress:
        progress.stage("train", 10_000, "steps")
        clock.now += 10
        progress.advance(10)
    assert "1 a second, 2:46:30 left" in stream.getvalue()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_live_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with progress_for(stream) as progress:
        assert isinstance(progress, Live)
        progress.note("9 models [not markup]")
        progress.stage("train", 1000, "model-steps")
        progress.advance(400)
        progress.advance(600)
        progress.stage("baseline", 0, "networks")
    text = stream.getvalue()
    assert "9 models [not markup]" in text
    assert "1,000 / 1,000 model-steps" in text
    assert "baseline" in text


def test_a_file_gets_plain_lines() -> None:
    assert isinstance(progress_for(io.StringIO()), Plain)


@pytest.mark.parametrize("make", [Silent, lambda: Plain(io.StringIO()), lambda: Live(Terminal())])
def test_advancing_before_any_stage_is_harmless(make: Callable[[], Progress]) -> None:
    with make() as progress:
        progress.advance(3)
        progress.note("still here")


Run = tuple[Path, subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A real sweep, the smallest, in a process of its own as a shell starts it."""
    place = tmp_path_factory.mktemp("cli")
    code = (
        f"import runpy, sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'kernels')!r}]; "
        "runpy.run_module('vaekit', run_name='__main__')"
    )
    words = ["sweep", "--preset", "smoke", *TINY, "--out", "run"]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *words],
        capture_output=True,
        text=True,
        cwd=place,
        check=False,
    )
    return place / "run", done


def test_a_sweep_end_to_end(run: Run) -> None:
    directory, done = run
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{Path('run') / 'report.html'}\n"
    assert done.stderr.startswith("4 models ")
    assert "train and measure: 24 model-steps" in done.stderr
    assert re.search(r"^4 models: ", done.stderr.splitlines()[-1])
    assert (directory / "report.html").read_text(encoding="utf-8").startswith("<!")
    assert open_results(directory).attrs["command"].startswith("vaekit sweep --preset smoke --mu=")
    assert SweepConfig.from_toml(directory / "config.toml").steps == 6


def test_a_run_is_not_written_over_unasked(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run[0] / "results.nc").read_bytes()
    words = ["sweep", "--preset", "smoke", *TINY, "--out", str(run[0])]
    assert cli.run([*words, "--learning-rate", "0.5"]) == 2
    assert (
        "another configuration: learning_rate is 0.001 there and 0.5 h" in capsys.readouterr().err
    )
    assert cli.run(words) == 0
    assert "finished: there is nothing to do" in capsys.readouterr().err
    assert (run[0] / "results.nc").read_bytes() == before


def test_report_needs_the_dataset_alone(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results.nc").write_bytes((run[0] / "results.nc").read_bytes())
    assert cli.run(["report", str(tmp_path / "results.nc")]) == 0
    printed = Path(capsys.readouterr().out.strip())
    assert printed == tmp_path / "report.html"
    assert printed.is_file()


@pytest.mark.parametrize("out", ["f", "f/g"])
def test_a_report_goes_into_a_directory(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], out: str
) -> None:
    (tmp_path / "f").write_text("mine")
    assert cli.run(["report", str(run[0]), "--out", str(tmp_path / out)]) == 2
    assert f"vaekit: out: got '{tmp_path / out}'; allowed: a dir" in capsys.readouterr().err


def test_report_of_two_runs_leaves_both_as_they_are(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run[0] / "report.html").read_bytes()
    assert cli.run(["report", str(run[0]), str(run[0])]) == 0
    assert Path(capsys.readouterr().out.strip()) == run[0].parent / "run-and-run" / "report.html"
    assert (run[0] / "report.html").read_bytes() == before


def test_a_damaged_run_is_a_mistake_of_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = SweepConfig.from_preset("smoke", mu=(0.0,))
    (tmp_path / "config.toml").write_text(config.to_toml(), encoding="utf-8")
    (tmp_path / "report.html").touch()
    (tmp_path / "results.nc").write_bytes(b"not a dataset")
    with pytest.raises(ResultsError):
        open_results(tmp_path)
    sweep = ["sweep", "--preset", "smoke", "--mu=0", "--out", str(tmp_path)]
    for words in (["report", str(tmp_path)], ["report", str(tmp_path), str(tmp_path)], sweep):
        assert cli.run(words) == 2
        said = capsys.readouterr().err.splitlines()
        assert said[-1].startswith(f"vaekit: {tmp_path / 'results.nc'}: not a readable netCDF file")
        # A sweep says that it is finished first.
        assert len(said) == 1 + (words is sweep)
