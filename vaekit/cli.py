"""The `vaekit` command: parses, calls, prints.

Exit codes: 0 done, 1 the run failed, 2 a mistake in use (one line says which), 130 or 143
interrupted by Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar, get_args, get_origin

import click

from vaekit import __version__
from vaekit.config import PRESETS, ConfigError, SweepConfig, allowed
from vaekit.errors import ResultsError, RunError
from vaekit.interrupt import Interrupted, Interrupts

if TYPE_CHECKING:
    from vaekit.launch import Launcher
    from vaekit.sweep import OnDiverge

PREDICT_FIELDS = (
    "mu",
    "grid",
    "tile",
    "noise_variance",
    "decoder_variance",
    "generator",
    "likelihood",
)

Decorated = TypeVar("Decorated", bound=Callable[..., None])


def _options(names: Iterable[str]) -> Callable[[Decorated], Decorated]:
    """Make the options of configuration fields; the fields themselves check the texts given."""

    def decorate(command: Decorated) -> Decorated:
        for name in reversed(list(names)):
            field = SweepConfig.model_fields[name]
            text = f"{field.description} Allowed: {allowed(name)}."
            if not field.is_required():
                text += f"  [default: {_plain(field.default)}]"
            flag = f"--{name.replace('_', '-')}"
            command = click.option(flag, name, metavar=_metavar(name), help=text)(command)
        return command

    return decorate


def _metavar(name: str) -> str:
    annotation: Any = SweepConfig.model_fields[name].annotation
    if get_origin(annotation) is Literal:
        return "|".join(get_args(annotation))
    if get_origin(annotation) is tuple:
        return "LIST"
    return {int: "INTEGER", float: "NUMBER"}.get(annotation, "TEXT")


def _plain(value: object) -> str:
    """Write a value as the command line takes it: a list with commas."""
    return ",".join(f"{part:g}" for part in value) if isinstance(value, tuple) else str(value)


def _given(values: dict[str, str | None]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="vaekit")
def cli() -> None:
    """Train many small beta-VAEs at once on biased data and measure what each one recovered."""


@cli.command()
@click.option("--preset", metavar="NAME", help=f"Where to start from: {', '.join(PRESETS)}.")
@click.option("--config", "file", metavar="FILE", help="Where to start from: a TOML file.")
@_options(name for name in SweepConfig.model_fields if name != "preset")
@click.option("--out", metavar="DIR", help="The run directory.  [default: runs/<time>-<preset>]")
@click.option("--overwrite", is_flag=True, help="Replace what is in the run directory.")
@click.option(
    "--on-diverge",
    metavar="keep|fail",
    default="keep",
    help="If a model's loss or gradient is not finite, go on without it, or fail.  [default: keep]",
)
@click.option(
    "--checkpoint-seconds",
    metavar="NUMBER",
    default="60",
    help="Time between two checkpoints of a training.  [default: 60]",
)
@click.option(
    "--launcher",
    metavar="local|ray",
    default="local",
    help="Run the parts of the sweep here, or on Ray's workers (vaekit[ray]).  [default: local]",
)
@click.option("--address", metavar="ADDRESS", help="A Ray cluster; without it Ray starts here.")
@click.pass_obj
def sweep(
    arguments: list[str],
    /,
    preset: str | None,
    file: str | None,
    out: str | None,
    overwrite: bool,
    on_diverge: OnDiverge,
    checkpoint_seconds: str,
    launcher: Launcher,
    address: str | None,
    **fields: str | None,
) -> None:
    """Train and measure every (mu, beta, seed) and write a report.

    Starts from a preset or a file; every other option replaces one field. With neither, CUDA takes
    the preset post and a CPU takes laptop. The defaults below are those of fields that it does not
    set. Lists are written with commas: --mu 0,1,2. The last line printed is the path of the report.
    A run that was interrupted goes on where it was when it is given its --out again.
    """
    if preset is not None and file is not None:
        raise click.UsageError("--preset and --config exclude each other")
    if out == "":
        raise ConfigError("out", out, "a directory")
    if address is not None and launcher == "local":
        raise ConfigError("address", address, "a Ray cluster's, with --launcher ray")
    seconds = _seconds(checkpoint_seconds)
    changes = _given(fields)
    reason = ""
    if file is not None:
        config = SweepConfig.from_toml(file, **changes)
    else:
        if preset is None:
            preset, reason = _default_preset(changes)
        config = SweepConfig.from_preset(preset, **changes)
    directory = Path(out or Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{config.preset}")

    from vaekit.progress import progress_for
    from vaekit.sweep import run_sweep

    interrupts = Interrupts()
    with interrupts.listening(), progress_for(sys.stderr) as progress:
        if reason:
            progress.note(reason)
        try:
            dataset = run_sweep(
                config,
                directory,
                overwrite=overwrite,
                command=shlex.join(["vaekit", *arguments]),
                progress=progress,
                interrupts=interrupts,
                launcher=launcher,
                address=address,
                on_diverge=on_diverge,
                checkpoint_seconds=seconds,
            )
        except Interrupted:
            again = ["vaekit", *arguments, *([] if out else ["--out", str(directory)])]
            progress.note(f"what is done is kept; to go on: {shlex.join(again)}")
            raise
    status = dataset["status"].values.ravel().tolist()
    counts = ", ".join(f"{status.count(kind)} {kind}" for kind in sorted(set(status)))
    click.echo(f"{len(status)} models: {counts}", err=True)
    click.echo(directory / "report.html")


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError("checkpoint_seconds", text, "a number of 0 or more") from None


def _default_preset(changes: dict[str, Any]) -> tuple[str, str]:
    """Choose the preset that suits the device, and say why."""
    # From the validated field, so that a device of no known form is refused in the usual words.
    device = SweepConfig.from_preset("smoke", device=changes.get("device", "auto")).device

    from vaekit.machine import resolve_device

    name = "post" if resolve_device(device).type == "cuda" else "laptop"
    why = "there is a CUDA device" if name == "post" else "the device is a CPU"
    return name, f"preset {name}, because {why} and neither --preset nor --config is given"


@cli.command()
@click.argument("run", metavar="RUN")
@click.argument("other", metavar="[RUN2]", required=False)
@click.option(
    "--out",
    metavar="DIR",
    help="Where the page and its figures go.  [default: RUN; with RUN2, RUN-and-RUN2 beside RUN]",
)
def report(run: str, other: str | None, out: str | None) -> None:
    """Draw a run's figures and page again from its dataset; with RUN2, both side by side."""
    from vaekit.report import write_report
    from vaekit.results import open_results

    dataset = open_results(run, _complain)
    second = open_results(other, _complain) if other is not None else None
    directory = _run_directory(run)
    if out is not None:
        directory = Path(out)
    elif other is not None:
        directory = directory.with_name(f"{directory.name}-and-{_run_directory(other).name}")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ConfigError("out", str(directory), "a directory, below directories") from None
    click.echo(write_report(dataset, directory, other=second))


def _run_directory(run: str) -> Path:
    """Find the directory of a run that is given as it, or as the file in it."""
    path = Path(run).resolve()
    return path if path.is_dir() else path.parent


@cli.command()
def info() -> None:
    """Print versions, the device, and which engine runs on it and why."""
    import torch

    from vaekit.compiler import compiler_missing
    from vaekit.engine import DESCRIPTIONS, REPAID_MODEL_STEPS, engine_name
    from vaekit.machine import device_name, resolve_device, total_memory, versions
    from vaekit.products import product_library

    device = resolve_device("auto")
    engine = engine_name(SweepConfig.from_preset("smoke"), device)
    compiled = f"sweeps of {REPAID_MODEL_STEPS:,} model-steps or more are compiled"
    found = "there is a CUDA device" if device.type == "cuda" else "torch sees no CUDA device"
    rows = {
        "vaekit": __version__,
        **{name: version for name, version in versions().items() if name != "vaekit"},
        "device": f"{device} ({found}): {device_name(device)}",
        "memory": f"{total_memory(device) / 2**30:.1f} GiB",
        "threads": str(torch.get_num_threads()),
        "engine": f"{engine} ({DESCRIPTIONS[engine]})",
        "compiler": compiler_missing() or compiled if device.type == "cpu" else "not used",
        "ops": "triton kernels" if engine == "triton" else "their torch definitions",
        "float32 products": product_library(device),
    }
    width = max(map(len, rows))
    for name, value in rows.items():
        click.echo(f"{name:{width}}  {value}")


@cli.command()
@_options(PREDICT_FIELDS)
def predict(**fields: str | None) -> None:
    """Print, for every mu, the beta beyond which theory expects collapse, and the ceiling.

    The ceiling is the information in nats that one noisy image carries about its truth. Without
    --mu it is that of the preset post, 0 to 5.
    """
    from vaekit.theory import critical_beta, information_ceiling

    # Two levels are the least test grid that a sweep can have, and nothing here depends on it.
    least = {"mu": PRESETS["post"]["mu"], "beta": (1.0,), "test_levels": (0.25, 0.75)}
    config = SweepConfig(**{**least, **_given(fields)})
    setting = {name: getattr(config, name) for name in PREDICT_FIELDS if name != "mu"}
    click.echo(", ".join(f"{name} {_plain(value)}" for name, value in setting.items()))
    click.echo(f"{'mu':>8}  {'critical beta':>13}  {'ceiling (nats)':>14}")
    for mu in config.mu:
        boundary = critical_beta(
            mu,
            tile=config.tile,
            noise_variance=config.noise_variance,
            decoder_variance=config.decoder_variance,
            generator=config.generator,
            likelihood=config.likelihood,
        )
        ceiling = information_ceiling(
            mu,
            factors=config.factors,
            tile=config.tile,
            noise_variance=config.noise_variance,
            generator=config.generator,
        )
        click.echo(f"{mu:8g}  {boundary:13.4f}  {ceiling:14.4f}")


@cli.group()
def study() -> None:
    """Run several sweeps that share their noise, and report what they say together."""


@study.command("post-audit")
@click.option(
    "--preset",
    metavar="NAME",
    default="reduced",
    show_default=True,
    help="The size: reduced, laptop, post.",
)
@click.option("--out", metavar="DIR", required=True, help="The study's directory.")
@click.pass_obj
def post_audit(arguments: list[str], /, preset: str, out: str) -> None:
    """Train every reading of the post and judge each of its claims under each.

    A study that was interrupted goes on: finished arms are left as they are. The verdicts are
    printed; the last line printed is the path of the report.
    """
    from vaekit.progress import progress_for
    from vaekit.study import make_study, run_study

    chosen = make_study("post-audit", preset)
    interrupts = Interrupts()
    with interrupts.listening(), progress_for(sys.stderr) as progress:
        run_study(
            chosen,
            out,
            command=shlex.join(["vaekit", *arguments]),
            progress=progress,
            interrupts=interrupts,
        )
    _study_report(out)


@study.command("report")
@click.argument("directory", metavar="DIR")
def study_report(directory: str) -> None:
    """Write a study's report again from the datasets of its finished arms."""
    _study_report(directory)


def _study_report(directory: str) -> None:
    from vaekit.study import write_study_report

    page, lines = write_study_report(directory)
    for line in lines:
        click.echo(line)
    click.echo(page)


def run(arguments: Sequence[str]) -> int:
    """Run one command line.

    Args:
        arguments: what follows `vaekit`.

    Returns:
        The exit code (see the module).
    """
    given = list(arguments)
    try:
        code = cli.main(given, prog_name="vaekit", standalone_mode=False, obj=given)
    except click.exceptions.NoArgsIsHelpError as mistake:
        mistake.show()
        return 2
    except click.ClickException as mistake:
        return _complain(mistake.format_message(), 2)
    except (ConfigError, FileExistsError, ResultsError) as mistake:
        return _complain(str(mistake), 2)
    except click.Abort:
        return _complain("interrupted", 130)
    except Interrupted as asked:
        return _complain(f"interrupted ({asked})", 128 + asked.number)
    except (OSError, MemoryError, RunError) as failure:
        return _complain(f"the run failed: {str(failure) or type(failure).__name__}", 1)
    return code if isinstance(code, int) else 0


def _complain(message: str, code: int = 0) -> int:
    click.echo(f"vaekit: {' '.join(message.split())}", err=True)
    return code


def main() -> NoReturn:
    """Run the command line of this process and exit."""
    sys.exit(run(sys.argv[1:]))
