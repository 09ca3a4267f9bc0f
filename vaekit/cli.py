"""The `vaekit` command: parses, calls, prints.

Exit codes: 0 done, 1 the run failed, 2 a mistake in use (one line says which), 130 interrupted.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from vaekit import __version__
from vaekit.config import PRESETS, ConfigError, SweepConfig, allowed

PREDICT_FIELDS = ("mu", "grid", "tile", "noise_variance", "decoder_variance", "generator")

Command = Callable[..., None]


def _option(name: str, default: object = None) -> Callable[[Command], Command]:
    """Make the option of a configuration field; its text is checked by the field itself."""
    field = SweepConfig.model_fields[name]
    text = f"{field.description} Allowed: {allowed(name)}."
    if not field.is_required():
        default = field.default
    if default is not None:
        text += f"  [default: {_plain(default) or 'none'}]"
    return click.option(f"--{name.replace('_', '-')}", name, metavar=_metavar(name), help=text)


def _options(names: Iterable[str], **defaults: object) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for name in reversed(list(names)):
            command = _option(name, defaults.get(name))(command)
        return command

    return decorate


def _metavar(name: str) -> str:
    default = SweepConfig.model_fields[name].default
    if name in ("mu", "beta", "test_levels", "hidden"):
        return "LIST"
    return {int: "INTEGER", float: "NUMBER"}.get(type(default), "TEXT")


def _plain(value: object) -> str:
    """Write a field's value as the command line takes it: a list with commas."""
    return ",".join(f"{part:g}" for part in value) if isinstance(value, tuple) else str(value)


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="vaekit")
def cli() -> None:
    """Train many small beta-VAEs at once on biased data and measure what each one recovered."""


@cli.command()
@click.option("--preset", metavar="NAME", help=f"Where to start from: {', '.join(PRESETS)}.")
@click.option(
    "--config", "file", metavar="FILE", help="Where to start from: a TOML file with the same names."
)
@_options(name for name in SweepConfig.model_fields if name != "preset")
@click.option(
    "--out", metavar="DIR", help="The run directory.  [default: runs/<time>-<preset>]"
)
@click.option("--overwrite", is_flag=True, help="Replace what is in the run directory.")
@click.pass_context
def sweep(
    context: click.Context,
    preset: str | None,
    file: str | None,
    out: str | None,
    overwrite: bool,
    **fields: str | None,
) -> None:
    """Train and measure every (mu, beta, seed) and write a report.

    Starts from a preset or a file; every option after that replaces one field. With neither, CUDA
    takes `post` and a CPU takes `laptop`. The last line printed is the path of the report. Lists
    are written with commas: --mu 0,1,2.
    """
    from vaekit.progress import progress_for

    if preset is not None and file is not None:
        raise click.UsageError("--preset and --config exclude each other")
    changes = _given(fields)
    reason = ""
    if file is not None:
        config = SweepConfig.from_toml(file, **changes)
    else:
        if preset is None:
            preset, reason = _default_preset(changes.get("device", "auto"))
        config = SweepConfig.from_preset(preset, **changes)
    directory = Path(out or Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{config.preset}")
    with progress_for(sys.stderr) as progress:
        if reason:
            progress.note(reason)
        from vaekit.results import FIGURES_AND_REPORT
        from vaekit.sweep import run_sweep

        dataset = run_sweep(
            config,
            directory,
            overwrite=overwrite,
            command=shlex.join(["vaekit", *context.find_root().meta["arguments"]]),
            progress=progress,
        )
        progress.note(_outcome(dataset["status"].values.ravel().tolist()))
    click.echo(directory / "report.html")


def _default_preset(device: str) -> tuple[str, str]:
    """Choose the preset that suits the device, and say why."""
    from vaekit.machine import resolve_device

    if resolve_device(device).type == "cuda":
        return "post", "preset post, because the device is CUDA (another: --preset or --config)"
    return "laptop", "preset laptop, because the device is a CPU (another: --preset or --config)"
