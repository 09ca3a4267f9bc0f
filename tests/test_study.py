"""Studies: the arms, the statistics over seeds, what a run leaves and resumes, and its page."""

from __future__ import annotations

import csv
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from hypothesis import example, given, settings
from hypothesis import strategies as st

from planted import dataset, with_boundary
from synthetic import synthetic_dataset
from vaekit import cli, results, theory
from vaekit.config import ConfigError
from vaekit.journal import FOLDER
from vaekit.study import arms, boundary, page, run
from vaekit.study.statistics import agreement, boundary_steps, bounded, interval, trend

COMMIT = ("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "it")
TINY = {
    "mu": (0.0, 2.0),
    "beta": (0.5, 8.0),
    "seeds": 2,
    "steps": 4,
    "hidden": (4,),
    "batch": 4,
    "grid": 2,
    "tile": 2,
    "latents": 2,
    "evaluation_draws": 64,
    "baseline_seeds": 4,
    "curve_points": 2,
    "device": "cpu",
}


def test_the_arms_are_every_reading_and_the_controls() -> None:
    study = arms.make_study("post-audit", "reduced")
    names = [arm.name for arm in study.arms]
    assert len(set(names)) == len(names) == 12 + 3 + 1 + 1
    configs = {arm.name: study.config(arm) for arm in study.arms}
    assert configs["warmup-sample-0.5"].beta_warmup == configs["warmup-sample-0.5"].steps // 2
    assert configs["warmup-sample-0.5"].kl == "sample"
    shared = {c.seed_values for name, c in configs.items() if name != "untrained"}
    assert shared == {(0, 1)}


@pytest.mark.parametrize("size", arms.SIZES)
def test_matched_arms_keep_the_ratio_and_the_boundary(size: str) -> None:
    study = arms.make_study("post-audit", size)
    ratio = float(theory.intensity_variance(0.0)) / 0.25
    boundary = theory.critical_beta(0.0)
    found = [study.config(arm) for arm in study.arms if arm.name.startswith("matched")]
    assert [config.mu[0] for config in found] == [mu for mu in study.base["mu"] if mu]
    linear = next(study.config(arm) for arm in study.arms if arm.name == "linear")
    for config in [*found, linear]:
        variance = float(theory.intensity_variance(config.mu[0], generator=config.generator))
        assert variance / config.noise_variance == pytest.approx(ratio, rel=1e-9)
        critical = theory.critical_beta(
            config.mu[0],
            noise_variance=config.noise_variance,
            decoder_variance=config.decoder_variance,
            generator=config.generator,
        )
        assert critical == pytest.approx(boundary, rel=1e-9)


def test_a_study_that_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"study: got 'other'; allowed: post-audit"):
        arms.make_study("other", "reduced")
    with pytest.raises(ConfigError, match=r"preset: got 'huge'; allowed: reduced"):
        arms.make_study("post-audit", "huge")


def test_the_interval_is_the_bootstraps() -> None:
    """Against the exact distribution: all 3^3 resamples of three seeds are equally likely."""
    values = np.array([[1.0, 2.0, 6.0]])
    every = np.array([values[0, list(p)].mean() for p in np.ndindex(3, 3, 3)])
    found = interval(values)
    assert found.mean[0] == 3.0
    # The ends of the exact distribution hold 1/27 each, more than the tail of 2.5 %.
    assert (found.low[0], found.high[0]) == (every.min(), every.max())
    many = np.random.default_rng(1).normal(size=(1, 400))
    error = 1.96 * many.std() / 20
    wide = interval(many)
    # 2,000 resamples place a 2.5 % quantile to about 4 % of the half width; 15 % is over 3 of it.
    assert wide.high[0] - wide.mean[0] == pytest.approx(error, rel=0.15)


def test_an_interval_needs_two_seeds_and_leaves_out_what_diverged() -> None:
    found = interval(np.array([[1.0, np.nan], [np.nan, np.nan], [1.0, 3.0]]))
    assert found.mean.tolist()[::2] == [1.0, 2.0]
    assert np.isnan(found.low).tolist() == [True, True, False]
    assert np.isnan(found.mean[1])
    assert np.isnan(interval(np.array([[1.0]])).low).all()


def test_trend_is_the_mean_rank_correlation() -> None:
    plane = np.array([[1.0, 2.0, 3.0], [5.0, 4.0, 3.5]])
    assert trend(plane, np.arange(3.0), axis=1) == pytest.approx(0.0)
    assert trend(plane, np.arange(2.0), axis=0) == pytest.approx(1.0)


@pytest.mark.parametrize("shift", [-2, -1, 0, 1])
def test_the_boundary_is_counted_in_beta_steps(shift: int) -> None:
    assert (boundary_steps(with_boundary(dataset(), shift)) == shift).all()


def test_the_boundary_skips_a_column_that_diverged() -> None:
    made = with_boundary(dataset(), 0)
    made["status"][1, 2, 0] = "diverged"
    steps = boundary_steps(made)
    assert np.argwhere(np.isnan(steps)).tolist() == [[1, 0]]


def test_a_column_collapses_from_where_on_all_of_it_did() -> None:
    """A lone collapse at a small beta is no boundary: units live again at the next one."""
    made = with_boundary(dataset(), 0)
    made["active_units"][:, 0] = 0
    assert (boundary_steps(made) == 0).all()


def test_a_column_whose_boundary_is_beyond_the_grid_of_beta_says_nothing() -> None:
    made = with_boundary(dataset(), 0)
    made["critical_beta"][0] = 100.0
    made["critical_beta"][1] = 0.01
    assert np.isnan(boundary_steps(made)[:2]).all()
    assert (boundary_steps(made)[2:] == 0).all()


def test_a_bound_within_a_step_is_no_boundary_within_a_step() -> None:
    """Dead at every beta where theory kills the second one: at least one step early, not one."""
    made = with_boundary(dataset(), 0)
    made["critical_beta"][0] = 0.7
    made["active_units"][0] = 0
    steps = boundary_steps(made)
    assert (steps[0] == -1).all() and bounded(made)[0].all()
    # Two steps early at the least is no boundary within one.
    made["critical_beta"][1] = 1.5
    made["active_units"][1] = 0
    assert boundary_steps(made)[1].tolist() == [-2] * 3
    assert not bounded(made)[1:].any()
    assert boundary.within_a_step(made) == pytest.approx(6 / 9)
    # A column that lives at the largest beta, where theory kills it, is a bound as well.
    made["critical_beta"][2] = 12.0
    made["active_units"][2] = 9
    assert (boundary_steps(made)[2] == 1).all() and bounded(made)[2].all()
    sentence = boundary.boundary_in_words({arms.REFERENCE: made})[0]
    assert "in 3 of 6 columns" in sentence
    assert "6 more columns" in sentence
    row = boundary.boundary_table({arms.REFERENCE: made})[1]
    assert row[-3:] == ["50", "6", "6"]


def test_what_has_fewer_than_two_cells_agrees_with_nothing() -> None:
    gone = np.full(4, np.nan)
    assert np.isnan(agreement(gone, np.arange(4.0)))
    assert np.isnan(agreement(np.array([1.0, np.nan]), np.arange(2.0)))
    assert agreement(np.ones(4), np.arange(4.0)) == 0.0
    plane = np.array([[1.0, 2.0, 3.0], [np.nan] * 3])
    assert trend(plane, np.arange(3.0), axis=1) == 1.0
    assert np.isnan(trend(plane, np.arange(2.0), axis=0))
    assert np.isnan(trend(plane * np.nan, np.arange(3.0), axis=1))


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(arms.SIZES, "reduced", TINY)

    def few(base: dict[str, Any]) -> tuple[arms.Arm, ...]:
        chosen = ("fixed-analytic-0.25", arms.REFERENCE, "matched-mu-2", "linear")
        return tuple(arm for arm in arms.post_audit(base) if arm.name in chosen)

    monkeypatch.setitem(arms.STUDIES, "post-audit", few)


@pytest.mark.usefixtures("tiny")
def test_the_command_runs_resumes_and_reports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "audit"
    assert cli.run(["study", "post-audit", "--out", str(out)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(out / "report.html")
    names = {path.name for path in (out / "arms").iterdir()}
    assert names == {arm.name for arm in arms.make_study("post-audit", "reduced").arms}
    first = (out / "arms" / "linear" / results.FILE_NAME).stat().st_mtime_ns
    before = (out / "summary.md").read_text(encoding="utf-8")
    cells = (out / "cells.csv").read_text(encoding="utf-8").splitlines()
    # Three arms of 2 x 2 cells and one matched arm of 1 x 2, eleven measures each.
    assert len(cells) == 1 + (3 * 4 + 2) * 11
    # One arm has lost its results: it is run again, the others are left.
    (out / "arms" / "matched-mu-2" / results.FILE_NAME).unlink()
    assert cli.run(["study", "post-audit", "--out", str(out)]) == 0
    assert (out / "arms" / "linear" / results.FILE_NAME).stat().st_mtime_ns == first
    assert cli.run(["study", "report", str(out)]) == 0
    after = (out / "summary.md").read_text(encoding="utf-8")
    assert [line for line in after.splitlines() if " s of " not in line] == [
        line for line in before.splitlines() if " s of " not in line
    ]


def test_a_report_says_how_its_arms_were_made(tmp_path: Path) -> None:
    for name in ("linear", "matched-mu-2", "untrained"):
        study_of(tmp_path, name)
    page.write_study_report(tmp_path)
    summary = (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert (
        "- 2 arms (matched-mu-2, linear): 9 latents, 64 hidden units, 1,200 steps of 64 images at "
        "a learning rate of 0.002, seeds 0, 1, β 0.5, 1, 2, 4, 8, 12; "
    ) in summary
    assert "- untrained: 9 latents, 256 and 128 hidden units, 20 networks that were" in summary
    assert "those of two are not alike" in summary
    assert "Made by `vaekit sweep --config synthetic.toml` at commit unknown, 2026-01-01" in summary
    (tmp_path / run.STUDY_FILE).write_text(
        'study = "post-audit"\npreset = "reduced"\ncommand = "made"\ncommit = "abc, def"\n', "utf-8"
    )
    page.write_study_report(tmp_path)
    for file in ("summary.md", "report.html"):
        assert "`made` at commit abc, def, 2026-01-01" in (tmp_path / file).read_text("utf-8")


def test_the_commit_is_that_of_our_own_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*words: str) -> None:
        subprocess.run(["git", *words], cwd=tmp_path, check=True)

    git("init", "-q")
    git(*COMMIT)
    package = tmp_path / "vaekit"
    (package / "study").mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.setattr(run, "__file__", str(package / "study" / "run.py"))
    # Installed within a checkout of something else.
    assert run.checked_out() == ""
    git("add", "vaekit")
    assert run.checked_out().endswith("-dirty")
    git(*COMMIT)
    (tmp_path / "report.html").touch()
    assert len(run.checked_out()) == 12
    for changed in ("kernels/one.py", "vaekit/__init__.py"):
        (tmp_path / changed).parent.mkdir(exist_ok=True)
        (tmp_path / changed).write_text("changed", "utf-8")
        assert run.checked_out().endswith("-dirty")
        git("add", changed)
        git(*COMMIT)
    monkeypatch.setattr(run, "__file__", str(tmp_path / "nowhere" / "study" / "run.py"))
    assert run.checked_out() == ""


@pytest.mark.usefixtures("tiny")
def test_a_directory_of_something_else_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    assert cli.run(["study", "post-audit", "--out", str(tmp_path)]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert cli.run(["study", "report", str(tmp_path)]) == 2
    assert "holds no study.toml" in capsys.readouterr().err
    study = arms.make_study("post-audit", "reduced")
    place = tmp_path / "arm" / "arms" / study.arms[0].name
    (place / FOLDER).mkdir(parents=True)
    (tmp_path / "arm" / run.STUDY_FILE).write_text(
        'study = "post-audit"\npreset = "reduced"\n', encoding="utf-8"
    )
    other = study.config(study.arms[0]).model_copy(update={"steps": 5})
    (place / "config.toml").write_text(other.to_toml(), encoding="utf-8")
    with pytest.raises(FileExistsError, match="another configuration"):
        run.run_study(study, tmp_path / "arm", command="test")


@pytest.mark.parametrize(
    ("seeds", "words"),
    [
        (1, "no intervals"),
        (2, "the median of all seeds with a chance of 50 %, not 95 %"),
        (3, "the median of all seeds with a chance of 75 %, not 95 %"),
        (8, "narrower than their name promises"),
    ],
)
def test_the_page_says_what_an_interval_of_so_few_seeds_is(seeds: int, words: str) -> None:
    assert words in page._what_an_interval_means(seeds)


@pytest.mark.parametrize("seeds", [2, 3, 4])
def test_an_interval_of_few_seeds_is_their_range(seeds: int) -> None:
    """What the page says of them, and no longer from four on."""
    values = np.arange(seeds) ** 2.0
    found = interval(values)
    whole = (float(found.low), float(found.high)) == (values.min(), values.max())
    assert whole == (seeds <= page.RANGE_SEEDS)


def study_of(directory: Path, name: str) -> Path:
    """A study's directory with one finished arm, which nobody trained."""
    study = arms.make_study("post-audit", "reduced")
    (directory / run.STUDY_FILE).write_text(
        'study = "post-audit"\npreset = "reduced"\n', encoding="utf-8"
    )
    arm = next(arm for arm in study.arms if arm.name == name)
    place = directory / "arms" / name
    place.mkdir(parents=True)
    results.save(synthetic_dataset(study.config(arm)), place / results.FILE_NAME)
    return directory


def test_a_finished_arm_that_is_damaged_is_a_mistake_of_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = arms.make_study("post-audit", "reduced")
    place = study_of(tmp_path, study.arms[0].name) / "arms" / study.arms[0].name
    (place / "config.toml").write_text(study.config(study.arms[0]).to_toml(), encoding="utf-8")
    (place / "report.html").touch()
    (place / results.FILE_NAME).write_bytes(b"")
    for words in (["study", "post-audit", "--out"], ["study", "report"]):
        assert cli.run([*words, str(tmp_path)]) == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.startswith(f"vaekit: {place / results.FILE_NAME}: not a readable netCDF file")


STUDY_TOML = st.dictionaries(
    st.sampled_from(["study", "preset", "command"]),
    st.recursive(
        st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(max_size=9),
        lambda inner: st.lists(inner, max_size=3),
    ),
).map(lambda values: tomli_w.dumps(values).encode())


@settings(max_examples=150, deadline=None)
@given(content=st.binary(max_size=200) | st.text(max_size=200).map(str.encode) | STUDY_TOML)
@example(content=b"study = " + b"9" * 5000)
@example(content=b"study = " + b"[" * 5000)
@example(content=b'preset = "reduced"\nstudy = "post-audit"\n#' + b" " * 2**20)
def test_no_bytes_in_a_studys_place_raise_anything_but_ours(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("study")
    (place / run.STUDY_FILE).write_bytes(content)
    with pytest.raises(ConfigError, match="allowed: "):
        run.open_study(place)


def test_a_study_file_that_never_ends_is_refused(tmp_path: Path) -> None:
    (tmp_path / run.STUDY_FILE).touch()
    os.truncate(tmp_path / run.STUDY_FILE, 2**40)
    with pytest.raises(ConfigError, match=r"allowed: a study's file .*more than 1,048,576 bytes"):
        run.open_study(tmp_path)


GAP = [f"minus {page.FIXED_ARM}{end}" for end in ("", ", low", ", high")]


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_cells_file_holds_means_differences_and_how_models_ended(tmp_path: Path) -> None:
    study_of(tmp_path, page.FIXED_ARM)
    study_of(tmp_path, "warmup-sample-0.5")
    place = tmp_path / "arms" / "warmup-sample-0.5" / results.FILE_NAME
    other, base = (
        results.open_results(tmp_path / "arms" / name / results.FILE_NAME)
        for name in ("warmup-sample-0.5", page.FIXED_ARM)
    )
    other["status"][1, 2] = ["collapsed", "diverged"]
    other["recovery_r2"][0, 0] = [0.75, 0.5]
    other["probe_mse"][0, 0, :, 1, 0] = [0.25, 0.5]
    results.save(other, place)
    page.write_study_report(tmp_path)
    rows = {
        (row["arm"], row["mu"], row["beta"], row["measure"]): row
        for row in table(tmp_path / "cells.csv")
    }
    row = rows["warmup-sample-0.5", "0", "0.5", "recovery_r2"]
    assert [float(row[name]) for name in ("mean", "low", "high")] == [0.625, 0.5, 0.75]
    gap = np.array([0.75, 0.5]) - base["recovery_r2"].values[0, 0]
    found = [float(row[name]) for name in GAP]
    assert found == pytest.approx([gap.mean(), gap.min(), gap.max()], rel=1e-4)
    assert (row["seeds"], row["collapsed"], row["diverged"]) == ("2", "0", "0")
    turned = rows["warmup-sample-0.5", "0", "0.5", "probe_mse code_to_truth exact"]
    assert float(turned["mean"]) == 0.375
    broken = rows["warmup-sample-0.5", "1", "2", "recovery_r2"]
    assert (broken["collapsed"], broken["diverged"]) == ("1", "1")
    assert float(broken["mean"]) == pytest.approx(float(other["recovery_r2"][1, 2, 0]), rel=1e-4)
    assert broken["low"] == ""
    same = rows[page.FIXED_ARM, "0", "0.5", "elbo"]
    assert float(same[f"minus {page.FIXED_ARM}"]) == 0.0


def test_the_verdicts_file_holds_numbers(tmp_path: Path) -> None:
    page.write_study_report(study_of(tmp_path, page.FIXED_ARM))
    rows = table(tmp_path / "verdicts.csv")
    assert rows and all(row["living"] and row["collapsed"] for row in rows)
    values = [float(row[name]) for row in rows for name in ("statistic", "low", "high")]
    assert min(values) < 0 and np.isfinite(values).all()


def test_a_report_of_some_arms_says_which_are_missing(tmp_path: Path) -> None:
    found, lines = page.write_study_report(study_of(tmp_path, "linear"))
    text = found.read_text(encoding="utf-8")
    assert "1 of 17 arms; still to run: fixed-analytic-0.25" in text
    assert any("On the linear grid" in line for line in lines)
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"controls.png"}


def test_a_report_without_controls_has_its_tables_and_no_figure_of_them(tmp_path: Path) -> None:
    found, _ = page.write_study_report(study_of(tmp_path, "fixed-analytic-0.25"))
    drawn = {path.stem for path in (tmp_path / "figures").iterdir()}
    assert drawn == {"boundary", "probe_error", "verdicts"}
    text = found.read_text(encoding="utf-8")
    for name in drawn:
        assert f'<figure id="{name}"><img alt="{page.ALTERNATIVES[name]}"' in text
    summary = (tmp_path / "summary.md").read_text(encoding="utf-8")
    for head in ("steps from critical β, mean", "probe, % of the map", "as it is"):
        assert f'<th scope="col">{head}</th>' in text
        assert f"| {head} |" in summary
    # A table's rows all have as many cells as its head.
    tables = [block for block in summary.split("\n\n") if block.startswith("|")]
    assert len(tables) == 4
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1
