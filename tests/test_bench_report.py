"""The benchmark's page: made from the samples, all of them, and saying what they say."""

from __future__ import annotations

import json
import re
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench import figures, tables
from bench.errors import BenchError
from bench.peers import OURS, OURS_AGAIN, OURS_BF16, OURS_COMPILED, STACKED_FAST
from bench.provenance import ROOT
from bench.report import relation, write_report
from bench.storage import REPORTS
from bench.timing import ratio
from bench_samples import card_samples, samples


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
    shares = re.findall(r"^\| vaekit \|.*?\| (\d+%) \|", summary, re.MULTILINE)
    # Two steps of ten models, at 4 GFLOP/s.
    assert shares == [f"{2 * 10 * 197.492e6 / 4e9 / ours:.0%}"]
    assert "| one after another | 150.000 | 150.000 to 150.000 | 4 | " in summary
    assert "| 256, 128 | 50.000 | 47.000 to 53.000 | 1.00 to 1.10 | 30.000 | 60% |" in summary
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


def test_a_cards_page_has_full_stacks_whole_trainings_and_another_floor(tmp_path: Path) -> None:
    (tmp_path / "training.json").write_text(json.dumps(samples() | card_samples()))
    write_report(tmp_path)
    summary = (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert "cost 2.00 µs a model-step, with float32 products." in summary
    assert "ahead of its nearest peer: stacked autograd takes 2.00 (2.00 to 2.00) times" in summary
    assert "With bf16 products: 10 models of the default network cost 1.00 µs" in summary
    assert "10,000 steps of 121 models take 9.0 s with float32, 4.0 s with bf16;" in summary
    assert "| float32 | 9.00 | 10.00, 9.00, 8.00 | 2.00 | 22% |" in summary
    assert "| bf16 | 14.9 | 8.0 | 2.0 | 0.5 | 4.4 |" in summary
    assert "| vaekit, bf16 | 0.00100 | " in summary
    assert "The floor is measured: a copy of weights and both moments" in summary


def test_a_sweep_from_before_has_no_stages_and_says_what_was_compiled(tmp_path: Path) -> None:
    content = samples() | card_samples()
    del content["sweeps"]["stages"]
    (tmp_path / "training.json").write_text(json.dumps(content))
    write_report(tmp_path)
    summary = (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert "| bf16 | 14.9 |\n" in summary
    assert "Nothing saw to those that measure." in summary


def test_a_share_of_the_peak_is_of_a_rows_own_precision() -> None:
    content = samples() | card_samples()
    rates = content["ceilings"]["product_flops_per_second"]
    assert tables.share_of_products(content, "full_float32", OURS) == "98746%"
    assert tables.share_of_products(content, "full_tf32", OURS) == "not measured"
    rates |= {"tf32": 4e13, "bfloat16": 8e13}
    assert tables.share_of_products(content, "full_tf32", OURS) == "10%"
    assert tables.share_of_products(content, "full_tf32", OURS_BF16) == "10%"


def test_an_engine_is_ahead_where_its_own_noise_does_not_reach(tmp_path: Path) -> None:
    content = samples()
    content["peers"]["seconds"][OURS_AGAIN] = [0.9, 1.0, 2.1, 2.1]
    (tmp_path / "training.json").write_text(json.dumps(content))
    text = write_report(tmp_path).read_text(encoding="utf-8")
    said = "level with its nearest peer: stacked autograd takes 2.00 (2.00 to 2.00) times as long"
    assert said in text


def test_a_run_that_was_cut_short_has_a_page_of_what_it_measured(tmp_path: Path) -> None:
    content = {key: samples()[key] for key in ("provenance", "ceilings")} | card_samples()
    (tmp_path / "training-unfinished.json").write_text(json.dumps(content))
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert "<h2>Whole trainings</h2>" in text
    assert "<dt>not in these samples</dt><dd>Beside its peers; Against the number" in text


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


def test_times_that_are_far_apart_have_a_logarithmic_axis() -> None:
    """On a card the slowest peer takes a thousand times as long as a large stack."""
    made = samples()
    assert figures.scaling(made).axes[0].get_yscale() == "linear"
    made["peers"]["rows"]["stacked autograd"] = {"ms_per_model_step": 5000.0}
    assert figures.scaling(made).axes[0].get_yscale() == "log"


def test_peers_stand_at_every_number_of_models_that_they_were_timed_at(tmp_path: Path) -> None:
    (tmp_path / "training.json").write_text(json.dumps(samples()))
    write_report(tmp_path)
    summary = (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert "| floor over time | one after another over vaekit |" in summary
    assert summary.count("| 3.00 (2.00 to 3.00) |") == 3
    lines = {line.get_label(): line for line in figures.scaling(samples()).axes[0].lines}
    assert [*lines["one after another"].get_xdata()] == [1, 11, 121]
    assert [*lines["one after another"].get_ydata()] == pytest.approx([210.0, 150.0, 180.0])
    assert [*lines["stacked autograd"].get_xdata()] == [10]


def test_the_smaller_size_of_an_operation_is_hollow_in_its_roofline() -> None:
    row = {"direction": "forward", "implementation": "triton", "bytes": 10, "seconds": [1.0]}
    rows = [
        row | {"operation": name, "size": f"{letter}={size}", "work": work}
        for size, work in ((11, 20), (33, 30))
        for name, letter in (("pixel_nll", "M"), ("sigmoid_grid", "S"))
    ]
    content = {"kernels": {"rows": rows, "ceilings": samples()["ceilings"]}}
    lines = figures.roofline(content, "kernels").axes[0].lines
    found = {line.get_label(): line for line in lines if not line.get_label().startswith("_")}
    assert {name: [*line.get_xdata()] for name, line in found.items()} == {
        "triton, the smaller size": [2.0, 2.0],
        "triton": [3.0, 3.0],
    }
    assert found["triton, the smaller size"].get_markerfacecolor() == "none"
    assert found["triton"].get_markerfacecolor() != "none"


@pytest.mark.parametrize(
    ("differences", "words"),
    [
        ([], "with Triton 3: none differs from it."),
        (["a: 1 -> 2", "b"], "3: 2 differences from it, the first of which is a: 1 -&gt; 2."),
    ],
)
def test_the_kernels_table_is_what_the_run_measured(
    differences: list[str], words: str, tmp_path: Path
) -> None:
    """Not today's baseline, which may be of other kernels."""
    row = {"registers": 40, "spills": 0, "stack": 0, "shared": 64, "instructions": 9, "wide": 1}
    row |= {"mix": {"HMMA": 4, "LDG.128": 1}}
    found = {"triton": "3", "binaries": 1, "differences": differences}
    found |= {"of": 7, "kernels": {"sm_90": {"a kernel": row}}}
    (tmp_path / "training.json").write_text(json.dumps(samples() | {"resources": found}))
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert words in text
    assert "This run built 1 binaries of the 7 there" in text
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
    whole = samples()
    whole["provenance"]["seconds"] = 90.0
    (tmp_path / "training.json").write_text(json.dumps(whole))
    made = {"command": "nox -s bench -- --demonstrate", "commit": "def", "date": "2026-02-02"}
    content = {"provenance": made, "skipped": {"operations, compile": "a reason"}}
    (tmp_path / "operations.json").write_text(json.dumps(content))
    write_report(tmp_path)
    summary = (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert "- took: 1.5 min up to the raw samples\n" in summary
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
    "stacked autograd with the same products": STACKED_FAST,
    "stacked autograd": "stacked autograd",
    "stacked tensors through torch.compile": "stacked + torch.compile",
    "torch.func": "torch.func vmap",
}


def paragraph(readme: str, link: str) -> str:
    """The readme's text after a link's words, up to the end of its paragraph."""
    return " ".join(readme.partition(link)[2].partition("\n\n")[0].split())


def numbers_left(text: str, figures: list[str]) -> list[str]:
    """The figures of a paragraph that are not among those of its samples."""
    for figure in figures:
        text = text.replace(figure, "")
    return re.findall(r"\d+(?:\.\d+)?|level with", text.partition(")")[2])


def beside(content: dict[str, Any], ours: str) -> list[str]:
    """What can be said of an engine beside its peers."""
    figures = []
    for words, name in PEER.items():
        if name not in content["seconds"]:
            continue
        mid, _, _ = ratio(content["seconds"][name], content["seconds"][ours])
        if relation(content["seconds"], name, ours) == "level with":
            figures.append(f"level with {words}")
            continue
        figures.append(f"{mid:.2f} times as fast as {words}")
        figures.append(f"{1 / mid - 1:.0%} slower than {words}".replace("%", " %"))
        figures.append(f"{mid - 1:.0%} faster than {words}".replace("%", " %"))
    return figures


def of_a_cpu(content: dict[str, Any]) -> list[str]:
    peers = content["peers"]
    return [
        f"{peers['rows'][OURS]['ms_per_model_step']:.2f} ms a model-step",
        f"{peers['rows'][OURS_COMPILED]['ms_per_model_step']:.2f} ms compiled",
        f"with {peers['models']} models",
        *beside(peers, OURS),
    ]


def of_a_card(content: dict[str, Any]) -> list[str]:
    whole = content["whole"]
    times = [
        f"{statistics.median(seconds):.1f} s with {name}"
        for name, seconds in whole["seconds"].items()
    ]
    least = f"{whole['rows']['bf16']['floor_seconds']:.1f} s"
    sizes = ["H200", f"{whole['steps']:,} steps", f"{whole['models']} models"]
    pairs = [("float32", OURS), ("tf32", OURS), ("tf32", OURS_BF16)]
    said = [text for key, ours in pairs for text in beside(content[f"full_{key}"], ours)]
    return [*sizes, *times, least, *said, "tf32x3", "float32", "tf32", "bf16"]


def newest(*, card: bool) -> Path:
    """The newest samples of a CPU or of a card."""
    found = {path: json.loads(path.read_text()) for path in REPORTS.glob("*/training.json")}
    kind = [path for path in found if bool(found[path].get("whole")) == card]
    return max(kind, key=lambda path: found[path]["provenance"]["date"])


@pytest.mark.parametrize(
    ("link", "figures", "card"),
    [("[The newest report]", of_a_cpu, False), ("[The newest of a card]", of_a_card, True)],
)
def test_the_readme_quotes_the_newest_report_and_nothing_else(
    link: str, figures: Callable[[dict[str, Any]], list[str]], card: bool
) -> None:
    path = newest(card=card)
    content = json.loads(path.read_text())
    text = paragraph((ROOT / "README.md").read_text(encoding="utf-8"), link)
    assert text.startswith(f"({path.with_name('summary.md').relative_to(ROOT).as_posix()})")
    assert not numbers_left(text, figures(content))
    for part in ("peers", "full_float32", "full_tf32"):
        for name, seconds in content.get(part, {}).get("seconds", {}).items():
            if name == "JAX vmap + scan":
                seconds[:] = [1.1 * t for t in seconds]
    assert numbers_left(text, figures(content))
