"""The benchmark's page: made from the samples, all of them, and saying what they say."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from bench.peers import OURS, OURS_COMPILED
from bench.report import write_report
from bench.timing import REPORTS, ROOT, BenchError, ratio
from bench_samples import samples


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
    lost = text.partition("<dt>not in these samples</dt>")[2]
    assert lost.startswith("<dd>Against the batch; Single operations; ")
    assert "Peak memory" not in lost
    assert "<h2>Against the width</h2>" in text


def test_operations_are_on_the_page_with_their_roof(tmp_path: Path) -> None:
    (tmp_path / "training.json").write_text(json.dumps(samples()))
    row = {"size": "M=2", "direction": "forward", "bytes": 10**6, "work": 2 * 10**6}
    row |= {"share_of_roof": 0.25, "error": 1e-7, "seconds": [1.4e-3, 2e-3, 2.6e-3]}
    rows = [
        row | {"operation": name, "implementation": implementation}
        for name in ("pixel_nll", "layer")
        for implementation in ("reference", "torch")
    ]
    rows[0]["seconds"] = [1e-3 * 4 / 3, 2e-3, 3e-3]
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
    cells = "pixel_nll | M=2 | forward | torch | 2.000 | {} | 3 | 0.50 | 25% | 1.0e-07"
    assert f"| {cells.format('1.640 to 2.360')} |" in summary
    noisy = cells.replace("torch", "reference").format("1.600 to 2.600, noisy")
    assert f"| {noisy} |" in summary


@pytest.mark.parametrize(
    ("differences", "words"),
    [([], "with Triton 3: none differs from it."), (["a: 1 -> 2", "b"], "3: a: 1 -&gt; 2; b.")],
)
def test_the_kernels_table_is_what_the_run_measured(
    differences: list[str], words: str, tmp_path: Path
) -> None:
    """Not today's baseline, which may be of other kernels."""
    row = {"registers": 40, "spills": 0, "stack": 0, "shared": 64, "instructions": 9, "wide": 1}
    row |= {"mix": {"HMMA": 4, "LDG.128": 1}}
    found = {"triton": "3", "binaries": 1, "differences": differences}
    found |= {"kernels": {"sm_90": {"a kernel": row}}}
    (tmp_path / "training.json").write_text(json.dumps(samples() | {"resources": found}))
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert words in text
    assert "The table: 1 rows" in text
    cells = ("a kernel", "sm_90", 40, 0, 0, 64, 9, 1, "4 HMMA, 1 LDG.128")
    line = "".join(f"<td>{cell}</td>" for cell in cells)
    assert line in text


def test_kernels_that_were_not_built_have_their_reason(tmp_path: Path) -> None:
    found = {"skipped": {"kernels": "no compiler"}}
    (tmp_path / "training.json").write_text(json.dumps(samples() | {"resources": found}))
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert "kernels: no compiler" in text
    assert "<h2>What the kernels ask of a card</h2>" not in text


def test_every_file_of_samples_says_what_made_it(tmp_path: Path) -> None:
    (tmp_path / "training.json").write_text(json.dumps(samples()))
    made = {"command": "nox -s bench -- --demonstrate", "commit": "def", "date": "2026-02-02"}
    content = {"provenance": made, "skipped": {"operations, compile": "a reason"}}
    (tmp_path / "operations.json").write_text(json.dumps(content))
    write_report(tmp_path)
    summary = (tmp_path / "summary.md").read_text(encoding="utf-8")
    said = "- operations.json: nox -s bench -- --demonstrate, def, 2026-02-02\n"
    assert said in summary
    assert "operations, compile: a reason" in summary


def test_a_page_without_samples_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="is not there"):
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


PEER = {
    "JAX": "JAX vmap + scan",
    "one model after another": "one after another",
    "stacked autograd": "stacked autograd",
    "stacked tensors through torch.compile": "stacked + torch.compile",
    "torch.func": "torch.func vmap",
}


def quoted(readme: str, content: dict[str, Any]) -> tuple[str, list[str]]:
    """The readme's paragraph of the newest report without the figures that are right, and the
    figures that are left in it.
    """
    text = " ".join(readme.partition("[The newest report]")[2].partition("\n\n")[0].split())
    peers = content["peers"]
    figures = [
        f"{peers['rows'][OURS]['ms_per_model_step']:.2f} ms a model-step",
        f"{peers['rows'][OURS_COMPILED]['ms_per_model_step']:.2f} ms compiled",
        f"with {peers['models']} models",
    ]
    for words, name in PEER.items():
        mid, low, high = ratio(peers["seconds"][name], peers["seconds"][OURS_COMPILED])
        if low <= 1 <= high:
            figures.append(f"level with {words}")
            continue
        figures.append(f"{mid:.2f} times as fast as {words}")
        figures.append(f"{1 / mid - 1:.0%} slower than {words}".replace("%", " %"))
        figures.append(f"{mid - 1:.0%} faster than {words}".replace("%", " %"))
    for figure in figures:
        text = text.replace(figure, "")
    return text, re.findall(r"\d+(?:\.\d+)?", text.partition(")")[2])


def test_the_readme_quotes_the_newest_report_and_nothing_else() -> None:
    found = {path: json.loads(path.read_text()) for path in REPORTS.glob("*/training.json")}
    newest = max(found, key=lambda path: found[path]["provenance"]["date"])
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    text, left = quoted(readme, found[newest])
    assert text.startswith(f"({newest.with_name('summary.md').relative_to(ROOT).as_posix()})")
    assert not left and "level with" not in text
    peers = found[newest]["peers"]
    peers["rows"][OURS]["ms_per_model_step"] += 0.01
    peers["seconds"]["JAX vmap + scan"] = [1.1 * t for t in peers["seconds"]["JAX vmap + scan"]]
    assert len(quoted(readme, found[newest])[1]) == 2
