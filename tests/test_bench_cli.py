"""What `python -m bench` takes, refuses, and hands to whom."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench import __main__ as cli
from bench import gate, storage
from bench_samples import samples


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["bench", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--against", "HEAD", "--report"), "--against goes without --report"),
        (("--against", "HEAD", "--demonstrate"), "--against goes without --demonstrate"),
        (("--demonstrate", "--quick"), "--demonstrate goes without --quick"),
        (("--demonstrate", "0"), "got '0'; allowed: 1 or more"),
        (("--demonstrate", "some"), "got 'some'; allowed: 1 or more"),
    ],
)
def test_what_makes_no_sense_is_refused(
    words: tuple[str, ...],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, *words) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "code"), [("slower", 1), ("no difference", 0), ("faster", 0), ("not known", 2)]
)
def test_a_commit_and_a_stored_run_go_each_to_its_own(
    word: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def judged(ref: object, *_: int, **__: bool) -> dict[str, SimpleNamespace]:
        asked.append(ref)
        return {"a": SimpleNamespace(word="no difference"), "b": SimpleNamespace(word=word)}

    monkeypatch.setattr(gate, "against", judged)
    monkeypatch.setattr(cli, "against_stored", judged)
    (tmp_path / "training.json").touch()
    for ref in ("HEAD", str(tmp_path)):
        assert run(monkeypatch, "--against", ref) == code
    assert asked == ["HEAD", tmp_path / "training.json"]


def test_what_cannot_be_compared_is_no_regression(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1 says that the tree is slower."""
    assert run(monkeypatch, "--against", "no-such-commit") == 2
    assert "got 'no-such-commit'; allowed: a commit" in capsys.readouterr().err
    (tmp_path / "training.json").write_text("{}")
    assert run(monkeypatch, "--against", str(tmp_path)) == 2
    assert run(monkeypatch, "--report", str(tmp_path / "nowhere")) == 2

    def failing(*_: Any, **__: Any) -> None:
        raise RuntimeError("detected recompile")

    monkeypatch.setattr(cli.gate, "against", failing)
    assert run(monkeypatch, "--against", "HEAD") == 2
    assert "detected recompile" in capsys.readouterr().err
    # Elsewhere it is an error like any other.
    monkeypatch.setattr(cli, "write_report", failing)
    with pytest.raises(RuntimeError, match="detected recompile"):
        run(monkeypatch, "--report", str(tmp_path))


def test_on_a_card_its_kernels_are_timed_and_on_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"operation": "pixel_nll gaussian", "size": "M=121", "direction": "forward"}
    row |= {"bytes": 10**6, "work": 10**6, "share_of_roof": 0.75, "error": 1e-7}
    rows = [
        row | {"implementation": name, "seconds": [t, t], "warm_seconds": [1e-6, 1e-6]}
        for name, t in (("triton", 2e-6), ("compile", 3e-6))
    ]
    ceilings = {"copy_bytes_per_second": 2e12, "read_bytes_per_second": 1e12}
    ceilings |= {"product_flops_per_second": {"float32": 5e13, "float32, default": 5e13}}
    kernels = {"card": {"name": "A card"}, "ceilings": ceilings, "rows": rows}
    asked: list[torch.device] = []
    monkeypatch.setattr(storage, "REPORTS", tmp_path)
    monkeypatch.setattr(storage, "machine_slug", lambda: "here")
    monkeypatch.setattr(cli, "resolve_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(
        cli,
        "run",
        lambda device, quick, keep: asked.append(device) or (keep(samples()) and samples()),
    )
    known: dict[str, Any] = {}

    def operations(quick: bool, before: Any) -> dict[str, Any]:
        known["cpu"] = before
        return {"skipped": {"all": "a test"}}

    monkeypatch.setattr(cli, "measure_operations", operations)
    monkeypatch.setattr(
        cli, "measure_kernels", lambda quick, before: known.update(cuda=before) or kernels
    )
    monkeypatch.setattr(sys, "argv", ["bench"])
    cli.main()
    assert asked == [torch.device("cuda")]
    # Of a card the training's ceilings are those of its kernels, and not of the CPU's operations.
    assert known == {"cuda": samples()["ceilings"], "cpu": None}
    summary = (tmp_path / "here" / "summary.md").read_text(encoding="utf-8")
    assert "Times of the device on A card" in summary
    assert "bytes at 2,000 GB/s, and the arithmetic" in summary
    cells = "forward | compile | 3.0 | 1.0 | 333 | 75% | 1.50 | 1.50 to 1.50 | 1.0e-07"
    assert f"| pixel_nll gaussian | M=121 | {cells} |" in summary
    assert (tmp_path / "here" / "figures" / "kernels.png").is_file()
    made = json.loads((tmp_path / "here" / "kernels.json").read_text())["provenance"]
    assert made["command"] == "python -m bench"
    assert 0 <= made["seconds"] < 60


def test_a_run_that_is_cut_short_leaves_the_whole_one_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(device: torch.device, quick: bool, keep: Callable[[dict], object]) -> None:
        keep({"ceilings": {}})
        raise KeyboardInterrupt

    monkeypatch.setattr(storage, "REPORTS", tmp_path)
    monkeypatch.setattr(storage, "machine_slug", lambda: "here")
    monkeypatch.setattr(cli, "run", cut)
    whole = tmp_path / "here" / "training.json"
    whole.parent.mkdir()
    whole.write_text("whole")
    with pytest.raises(KeyboardInterrupt):
        cli.measure(quick=False)
    assert whole.read_text() == "whole"
    assert "ceilings" in whole.with_name("training-unfinished.json").read_text()


def test_a_quick_run_has_a_page_of_its_own_and_leaves_the_full_one_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(storage, "REPORTS", tmp_path)
    monkeypatch.setattr(storage, "machine_slug", lambda: "here")
    monkeypatch.setattr(cli, "run", lambda device, quick, keep: keep(samples()) and samples())
    known: list[Any] = []
    monkeypatch.setattr(
        cli,
        "measure_operations",
        lambda quick, before: known.append(before) or {"skipped": {"all": "a test"}},
    )
    monkeypatch.setattr(cli, "resolve_device", lambda name: torch.device("cpu"))
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "training.json").write_text("full")
    monkeypatch.setattr(sys, "argv", ["bench", "--quick"])
    cli.main()
    page = tmp_path / "here" / "quick" / "index.html"
    assert page.is_file()
    assert capsys.readouterr().out.endswith(f"{page}\n")
    assert known == [samples()["ceilings"]]
    page.unlink()
    monkeypatch.setattr(sys, "argv", ["bench", "--report", "--quick"])
    cli.main()
    assert page.is_file()
    # The folder that one stands in is a folder like any other.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "training.json").write_text(json.dumps(samples()))
    monkeypatch.chdir(elsewhere)
    monkeypatch.setattr(sys, "argv", ["bench", "--report", "."])
    cli.main()
    assert (elsewhere / "index.html").is_file()
    assert [path.name for path in (tmp_path / "here").glob("*.*")] == ["training.json"]
    assert (tmp_path / "here" / "training.json").read_text() == "full"


@pytest.mark.parametrize("kept", [True, False])
def test_a_gate_that_breaks_its_word_is_a_failure(
    kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "demonstrate", lambda trials: kept)
    assert run(monkeypatch, "--demonstrate") == (not kept)
