"""The benchmark's page: made from the samples, all of them, and saying what they say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from bench.figures import apart
from bench.report import write_report
from bench.timing import REPORTS
from bench_samples import samples
from resources import load


@pytest.mark.parametrize(
    ("ours", "words"), [(1.0, "ahead of"), (2.0, "level with"), (2.5, "behind")]
)
def test_the_pages_sentences_follow_the_samples(ours: float, words: str, tmp_path: Path) -> None:
    (tmp_path / "training.json").write_text(json.dumps(samples(ours)))
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert f"That is {words} its nearest peer: stacked autograd" in text
    assert "The cheapest stack is one of 11 models: 50.00 ms" in text
    assert "A &lt;machine&gt;" in text
    assert "15.0 GB/s" in text
    assert "12.0 GB/s" in text
    assert "JAX vmap + scan: jax is not installed" in text
    assert text.count("data:image/png;base64,") == 7
    summary = (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert "| one after another | 150.000 | 150.000 to 150.000 | 4 | " in summary
    assert "| 256, 128 | 50.000 | 30.000 | 60% |" in summary
    assert "| products | 30.000 | 75% |" in summary
    assert "| in all, unwatched | 35.000 |  |" in summary


def test_what_was_not_measured_has_its_reason_and_no_section(tmp_path: Path) -> None:
    content = samples() | {"memory": {"skipped": {"peak memory": "it is not there"}}}
    del content["batch"]
    (tmp_path / "training.json").write_text(json.dumps(content))
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert "peak memory: it is not there" in text
    assert "<h2>Peak memory</h2>" not in text
    assert "<h2>Against the batch</h2>" not in text
    assert "<h2>Against the width</h2>" in text


def test_operations_are_on_the_page_with_their_roof(tmp_path: Path) -> None:
    (tmp_path / "training.json").write_text(json.dumps(samples()))
    row = {"size": "M=2", "direction": "forward", "bytes": 10**6, "work": 2 * 10**6}
    row |= {"share_of_roof": 0.25, "error": 1e-7, "seconds": [1e-3, 2e-3, 3e-3]}
    rows = [
        row | {"operation": name, "implementation": implementation}
        for name in ("pixel_nll", "layer")
        for implementation in ("reference", "torch")
    ]
    content = {
        "ceilings": samples()["ceilings"],
        "rows": rows,
        "skipped": {"compile": "there is no compiler"},
    }
    (tmp_path / "operations.json").write_text(json.dumps(content))
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert text.count("data:image/png;base64,") == 8
    assert "compile: there is no compiler" in text
    summary = (tmp_path / "summary.md").read_text(encoding="utf-8")
    cells = "pixel_nll | M=2 | forward | torch | 2.000 | 1.400 to 2.600 | 3 | 0.50 | 25% | 1.0e-07"
    assert f"| {cells} |" in summary


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"skipped": {"kernels": "no compiler"}}, "This run compiled nothing: no compiler."),
        (
            {"triton": "3", "binaries": 2, "differences": []},
            "2 binaries with Triton 3: none differs",
        ),
        ({"triton": "3", "binaries": 2, "differences": ["a: 1 -> 2", "b"]}, "3: a: 1 -&gt; 2; b."),
    ],
)
def test_the_kernels_table_says_what_differs_from_it(
    found: dict[str, Any], words: str, tmp_path: Path
) -> None:
    (tmp_path / "training.json").write_text(json.dumps(samples() | {"resources": found}))
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert words in text
    row = next(iter(load().values()))["sm_90"]["weights [step, ieee]"]
    assert f"<td>weights [step, ieee]</td><td>sm_90</td><td>{row.registers}</td>" in text


def test_a_page_without_samples_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="is not there"):
        write_report(tmp_path)


def test_committed_summaries_are_those_of_their_samples(tmp_path: Path) -> None:
    found = sorted(REPORTS.glob("*/training.json"))
    assert found
    for path in found:
        place = tmp_path / path.parent.name
        place.mkdir()
        for samples_ in path.parent.glob("*.json"):
            shutil.copy(samples_, place)
        write_report(place)
        assert (place / "summary.md").read_text() == (path.parent / "summary.md").read_text()


def test_labels_of_like_heights_do_not_cover_each_other() -> None:
    assert apart([1.0, 5.0, 1.1, 1.05], 0.5) == pytest.approx([1.0, 5.0, 2.0, 1.5])
