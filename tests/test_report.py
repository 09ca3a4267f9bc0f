"""The page says what the dataset says, flatters no collapsed model, and stands alone."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from synthetic import small_config, synthetic_arrays, synthetic_dataset
from vaekit import results
from vaekit.errors import ResultsError
from vaekit.figures import FIGURES
from vaekit.report import GROUPS, narrative, write_report
from vaekit.report.asked import asked_tables
from vaekit.report.cells import all_seeds, first_collapsed, number, rank_correlation, runs
from vaekit.report.compare import differences, shared_cells
from vaekit.report.tables import (
    CELL_COLUMNS,
    Table,
    baseline_table,
    boundary_table,
    cell_table,
    configuration_table,
    run_table,
    selectivity,
)

TINY = {"grid": 1, "tile": 2, "latents": 2, "baseline_seeds": 2}
OUTSIDE = ("<script", "<link", "http://", "https://", "@import", "url(")


class Page(HTMLParser):
    """Collects what a page refers to, and checks that its tags close in order."""

    EMPTY = ("meta", "img", "br", "link", "!doctype")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.ids: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.sources += [found[name] for name in ("src", "href") if name in found]
        self.ids += [found["id"]] if "id" in found else []
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def alive(**changes: object) -> xr.Dataset:
    """A sweep of 3 mu and 3 beta in which nothing collapsed; recovery is 0.5 everywhere."""
    made = synthetic_dataset(small_config(mu=(0.0, 1.0, 2.0), **changes)).copy(deep=True)
    made["status"][:] = "ok"
    for name in ("recovery_r2", "grid_recovery_r2"):
        made[name][:] = 0.5
    for name in ("probe_mse", "probe_r2", "decode_mse", "active_units", "information"):
        made[name] = made[name].fillna(1.0)
    made["loss_curve"] = made["loss_curve"].fillna(300.0)
    return made


def said(dataset: xr.Dataset) -> str:
    return " ".join(narrative(dataset))


def recovering(rows: list[list[float]]) -> xr.Dataset:
    """A sweep with a recovery R2 for each mu (rows) and beta."""
    made = alive()
    made["recovery_r2"][..., 0] = rows
    return made


@pytest.fixture(scope="module")
def dataset() -> xr.Dataset:
    return synthetic_dataset(small_config())


@pytest.fixture(scope="module")
def page(dataset: xr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run")
    assert write_report(dataset, run) == run / "report.html"
    return run / "report.html"


def test_the_page_needs_nothing_but_itself(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not [part for part in OUTSIDE if part in text]
    found = Page(text)
    images = [
        source for source in found.sources if source.startswith("data:image/png;base64,iVBOR")
    ]
    anchors = [source for source in found.sources if source.startswith("#")]
    assert len(images) == len(FIGURES)
    assert len(images) + len(anchors) == len(found.sources)
    assert {anchor[1:] for anchor in anchors} <= set(found.ids)
    assert len(found.ids) == len(set(found.ids))


def test_the_page_tells_the_whole_story(page: Path, dataset: xr.Dataset) -> None:
    found = Page(page.read_text(encoding="utf-8"))
    text = found.text.replace("\xa0", " ")
    for sentence in narrative(dataset):
        assert sentence in text
    assert text.index("The answer") < text.index("The data") < text.index("Every cell")
    for name, entry in FIGURES.items():
        assert name in found.ids
        assert entry.title in text
        assert (page.parent / "figures" / f"{name}.png").is_file()
    for fact in ("vaekit sweep --config synthetic.toml", "no device", "12.5", "evaluation_draws"):
        assert fact in text


def test_every_figure_is_on_the_page_once() -> None:
    shown = [name for names in GROUPS.values() for name in names]
    assert sorted([*shown, "overview"]) == sorted(FIGURES)


def test_what_a_run_says_of_itself_is_escaped(tmp_path: Path) -> None:
    made = synthetic_dataset(small_config(mu=(0.0,), beta=(0.5,), **TINY))
    made.attrs["command"] = "<script>alert(1)</script>"
    text = write_report(made, tmp_path / "new" / "run").read_text(encoding="utf-8")
    assert "<script>" not in text
    assert "&lt;script&gt;alert(1)" in text


@pytest.mark.parametrize(
    ("rows", "answer"),
    [
        ([[0.9, 0.8, 0.7], [0.5, 0.4, 0.3], [0.3, 0.2, 0.1]], "A larger β does not protect"),
        ([[0.9, 0.8, 0.7], [0.5, 0.6, 0.3], [0.3, 0.2, 0.35]], "A larger β does help"),
        ([[0.9, 0.8, 0.7], [0.5, 0.6, 0.3], [0.3, 0.2, 0.1]], "A larger β hardly protects"),
        ([[0.9, 0.8, 0.7], [0.5, 0.51, 0.3], [0.3, 0.2, 0.31]], "A larger β does not protect"),
        ([[0.7, 0.8, 0.9], [0.6, 0.4, 0.3], [0.3, 0.2, 0.1]], "a β below β = 8"),
        ([[0.0, 0.0, 0.0]] * 3, "Nothing was recovered at any μ"),
    ],
)
def test_the_verdict_follows_the_numbers(rows: list[list[float]], answer: str) -> None:
    assert answer in narrative(recovering(rows))[0]


def test_the_verdict_names_where_and_how_much() -> None:
    made = recovering([[0.9, 0.8, 0.7], [0.5, 0.6, 0.3], [0.3, 0.2, 0.47]])
    assert narrative(made)[0] == (
        "A larger β does help on biased data here: at 2 of the 2 larger μ (1, 2) a β above "
        "β = 0.5, which is best at μ = 0, recovers more, by up to 0.17 R²."
    )
    assert "β = 0.5 at μ = 0 (R² 0.9); β = 2 at μ = 1 (R² 0.6); β = 8 at μ = 2" in said(made)


def test_a_sweep_too_small_says_so() -> None:
    for changes in ({"beta": (1.0,)}, {"mu": (0.0,)}):
        assert "cannot say" in narrative(synthetic_dataset(small_config(**changes)))[0]


def test_collapse_everywhere_else_is_no_protection() -> None:
    made = alive()
    made["status"][1:] = "collapsed"
    made["recovery_r2"][1:] = 0
    assert narrative(made)[0].startswith("No β protects against biased data here: at μ = 1, 2")


def test_the_best_cell_is_never_a_collapsed_one() -> None:
    made = recovering([[0.5, 0.6, 0.99], [0.4, 0.4, 0.4], [0.3, 0.3, 0.3]])
    assert "recovered best at μ = 0, β = 8: R² 0.99" in said(made)
    made["status"][0, 2] = "collapsed"
    assert "recovered best at μ = 0, β = 2: R² 0.6 " in said(made)


def test_the_fall_over_mu_is_what_it_is() -> None:
    assert "best R² over β falls as μ rises, from 0.9 at μ = 0 to 0.1 at μ = 2" in said(
        recovering([[0.9] * 3, [0.5] * 3, [0.1] * 3])
    )
    assert "falls with μ, though not at every step" in said(
        recovering([[0.9] * 3, [0.05] * 3, [0.1] * 3])
    )
    assert "rises with μ" in said(recovering([[0.1] * 3, [0.5] * 3, [0.9] * 3]))
    assert "does not change with μ" in said(alive())


def test_collapse_is_counted_against_the_boundary() -> None:
    made = alive()
    made["critical_beta"][:] = [9.0, 4.0, 1.0]
    assert "None of the 9 cells collapsed" in said(made)
    assert "0 of the 6 cells below that line collapsed all the same; of the 3 above it, 0" in said(
        made
    )
    made["status"][0, 2] = "collapsed"
    made["status"][1, 1:] = "collapsed"
    text = said(made)
    assert "3 of 9 cells collapsed" in text
    assert "2 of the 6 cells below that line collapsed all the same; of the 3 above it, 1" in text
    assert "β = 8 at μ = 0 (critical β 9), β = 2 at μ = 1 (critical β 4)" in text
    made["critical_beta"][:] = np.nan
    assert "no boundary here: no constant image" in said(made)


def test_divergence_is_named() -> None:
    assert "diverged" not in said(alive())
    made = alive(seeds=2)
    made["status"][1, 0] = "diverged"
    made["status"][2, 0, 1] = "diverged"
    assert "Training diverged at μ = 1, β = 0.5." in said(made)
    assert "In 1 more cell some seeds diverged" in said(made)


def test_the_first_map_is_read_beside_collapse() -> None:
    made = alive()
    made["probe_mse"].loc[{"direction": "truth_to_code", "fit": "adam"}] = 0.4
    made["probe_mse"][0, 0, 0, 0, 1] = 0.2
    assert "best value, 0.2, at μ = 0, β = 0.5, which is not collapsed" in said(made)
    made["status"][2, 1:] = "collapsed"
    made["probe_mse"][2, 1:, 0, 0, 1] = 0.003
    text = said(made)
    assert "best value, 0.0030, at μ = 2, β = 2, which is collapsed" in text
    assert "Of the 3 cells scored best, 2 collapsed." in text
    assert "total failure counts as the better recovery" in text
    made["probe_mse"][2, 1:, 0, 0, 1] = 0.9
    assert "here it does not favour them" in said(made)


def test_the_reverse_probe_is_watched_too() -> None:
    made = alive()
    made["status"][2, 1:] = "collapsed"
    made["probe_r2"][2, 1:, 0, 1, 0] = [0.05, 0.73]
    assert "collapsed cells R² up to 0.73 on the clean grid" in said(made)
    made["probe_r2"][2, 1:, 0, 1, 0] = 0.05
    assert "Turned round" not in said(made)


def test_the_reading_that_fits_the_post_is_named() -> None:
    made = recovering([[0.9, 0.8, 0.7], [0.6, 0.5, 0.4], [0.3, 0.2, 0.1]])
    falling = 1 - made["recovery_r2"]
    made["probe_mse"].loc[{"direction": "truth_to_code", "fit": "adam"}] = made["recovery_r2"]
    made["probe_mse"].loc[{"direction": "code_to_truth", "fit": "adam"}] = falling
    assert "over all cells 1); as worded, truth → code, it does not (−1)" in said(made)
    assert "ranks even the living models backwards" in said(made)
    made["probe_mse"].loc[{"direction": "truth_to_code", "fit": "adam"}] = falling
    assert "as worded" not in said(made)
    assert "backwards" not in said(made)


def test_opposite_directions_are_claimed_only_where_they_are() -> None:
    made = alive()
    made["status"][:, 2] = "collapsed"
    post = {"direction": "truth_to_code", "fit": "adam"}
    made["probe_mse"].loc[post] = 0.2
    made["decode_mse"].loc[{"fit": "exact"}] = 0.1
    made["probe_mse"].loc[{**post, "beta": 8.0}] = 0.05
    made["decode_mse"].loc[{"fit": "exact", "beta": 8.0}] = 0.3
    assert "MSE by −0.15 and the exact decode MSE by 0.2 on average: opposite" in said(made)
    made["decode_mse"].loc[{"fit": "exact", "beta": 8.0}] = 0.05
    assert "not opposite directions" in said(made)


def test_the_second_map_is_read_beside_the_mean_image() -> None:
    made = alive()
    made["decode_mse_constant"][:] = [0.1, 0.2, 0.3]
    made["status"][1:, 2] = "collapsed"
    made["decode_mse"].loc[{"fit": "exact", "beta": 8.0}] = [[0.1], [0.201], [0.2]]
    text = said(made)
    assert "1 of 2 collapsed cells lie within 5 % of what" in text
    assert "0.2 to 0.3." in text


def test_the_baseline_is_set_beside_the_post() -> None:
    made = alive()
    made["baseline_probe_mse"].loc[{"direction": "code_to_truth", "fit": "adam"}] = np.array(
        [0.105, 0.11, 0.115, 0.12, 0.125]
    )
    made["baseline_probe_mse"].loc[{"direction": "code_to_truth", "fit": "exact"}] = 0.04
    text = said(made)
    assert "scores 0.1150 on average on 5 untrained networks (0.1050 to 0.1250)" in text
    assert "0.1121 lies inside that range" in text
    assert "it scores 0.040" in text
    made["baseline_probe_mse"].loc[{"direction": "code_to_truth", "fit": "exact"}] = 0.115
    assert "had not been trained enough" not in said(made)
    made["baseline_probe_mse"][:] = 0.2
    assert "0.1121 lies outside that range" in said(made)
    assert "untrained" not in said(synthetic_dataset(small_config(baseline_seeds=0)))


def test_the_training_loss_is_compared_with_the_post() -> None:
    made = alive()
    made["loss_curve"][..., -1] = np.array([[[1], [2], [3]], [[4], [5], [6]], [[7], [8], [9]]])
    text = said(made)
    assert "At β = 0.5 the final training loss rises with μ, as the post reports: 1.0 nats" in text
    assert "At μ = 0 the final training loss rises with β, as the post reports: 1.0 nats" in text
    made["loss_curve"][..., 0] = np.array([[[1], [2], [3]], [[0], [5], [6]], [[8], [8], [9]]])
    assert (
        "At β = 0.5 the loss of the first 10 steps rises with μ, though not at every step, as the "
        "post reports: 1.0 nats at μ = 0, 8.0 at"
    ) in said(made)
    made["step"] = made["step"] - made["step"][0] + 1
    assert "At β = 0.5 the loss of the first step rises with μ" in said(made)
    made["loss_curve"] *= -1
    assert "falls with μ, where the post reports a rise: −1.0 nats" in said(made)


def test_codes_that_blew_up_are_named() -> None:
    made = alive()
    made["rate"][1, 0] = 3e6
    assert "At μ = 1, β = 0.5 the code blew up: 3,000,000 nats" in said(made)


@pytest.mark.parametrize(
    "name",
    [
        "recovery_r2",
        "grid_recovery_r2",
        "active_units",
        "probe_mse",
        "decode_mse",
        "decode_mse_constant",
        "information",
        "information_ceiling",
        "critical_beta",
        "loss_curve",
        "baseline_probe_mse",
        "baseline_probe_r2",
    ],
)
def test_the_words_follow_every_variable(name: str, dataset: xr.Dataset) -> None:
    changed = dataset.copy(deep=True)
    changed[name] = changed[name] * 0.7
    assert said(changed) != said(dataset)


def test_the_words_survive_what_training_can_do(dataset: xr.Dataset) -> None:
    for status in ("diverged", "collapsed"):
        made = dataset.copy(deep=True)
        made["status"][:] = status
        if status == "diverged":
            for name in ("recovery_r2", "probe_mse", "decode_mse", "rate", "loss_curve"):
                made[name] = made[name] * np.nan
        text = said(made)
        assert "nan" not in text
        assert "No model recovered anything" in text


def entries(table: Table, column: str) -> list:
    place = table.columns.index(column)
    return [row.entries[place] for row in table.rows]


def test_no_table_flatters_a_collapsed_model(dataset: xr.Dataset) -> None:
    table = cell_table(dataset)
    assert len(table.rows) == 12
    kinds = set()
    for row, status in zip(table.rows, entries(table, "status"), strict=True):
        kind = status.text.partition(" at ")[0]
        kinds.add(kind)
        assert row.kind == ("" if kind == "ok" else kind)
        for head, entry in zip(table.columns, row.entries, strict=True):
            flattering = "code" in head or "decode" in head or "reconstruction" in head
            assert entry.void == (status.text == "collapsed" and flattering), head
    assert kinds == {"ok", "collapsed", "diverged"}


def test_a_collapsed_number_is_struck_through_on_the_page(page: Path, dataset: xr.Dataset) -> None:
    flattering = sum(flag for _, flag in CELL_COLUMNS.values())
    dead = int((dataset["status"] == "collapsed").sum())
    text = page.read_text(encoding="utf-8")
    assert text.count("</s><small>collapsed</small>") == flattering * dead
    assert text.count('<tr class="collapsed">') == dead


def test_a_cell_of_mixed_seeds_says_so() -> None:
    made = alive(seeds=3)
    made["status"][0, 0] = ["ok", "collapsed", "diverged"]
    made["recovery_r2"][0, 0] = [0.6, 0.0, 0.9]
    table = cell_table(made)
    assert entries(table, "status")[0].text == "collapsed 1 of 3, diverged 1 of 3, ok 1 of 3"
    made["diverged_at"][0, 0] = [0, 0, 1234]
    first = entries(cell_table(made), "status")[0].text
    assert first == "collapsed 1 of 3, diverged 1 of 3, ok 1 of 3 at step 1,234"
    made["status"][0, 1], made["diverged_at"][0, 1] = "diverged", [70, 9, 2000]
    assert entries(cell_table(made), "status")[1].text == "diverged at steps 9 to 2,000"
    assert entries(table, "recovery R², noisy")[0].text == "0.3 ± 0.424"
    assert entries(table, "truth → code, exact")[0].void


@pytest.mark.parametrize("variance", [0.25, 0.5])
def test_every_table_says_what_beta_is_relative_to(variance: float) -> None:
    made = synthetic_dataset(small_config(decoder_variance=variance))
    for make in (cell_table, boundary_table, baseline_table, configuration_table, run_table):
        assert f"decoder variance {variance}" in make(made).caption


def test_what_was_asked_for_has_its_tables() -> None:
    """An estimate above what the draws support says so, and axis scores say what they are."""
    config = small_config(**TINY)
    cell = (len(config.mu), len(config.beta), config.seeds)
    arrays = synthetic_arrays(config) | {
        "baseline_recovery_r2": np.full((len(config.mu), config.baseline_seeds), 0.25),
        "estimator": np.array(["ksg", "mine"]),
        "information_limit": np.array([7.0, 6.0]),
        "information_estimate": np.full((*cell, 2), 6.5),
        "axis_metric": np.array(["sap"]),
        "axis_score": np.full((*cell, 1), 0.1),
    }
    made = results.build(config, arrays, synthetic_dataset(config).attrs)
    estimates, axes = asked_tables(made)
    ok = next(row for row in estimates.rows if row.kind == "")
    assert [entry.text for entry in ok.entries[-2:]] == ["6.5", "6.5 (unsupported)"]
    assert "ksg at most 7, mine at most 6 nats" in estimates.caption
    assert axes.columns[-1] == "sap (axis-dependent)"
    assert axes.caption.startswith("Axis-dependent scores")
    recovered = made["recovery_r2"].isel(mu=0, beta=0, seed=0)
    assert float(selectivity(made).isel(mu=0, beta=0, seed=0)) == float(recovered) - 0.25
    few = made.assign(recovery_r2_few=made["recovery_r2"] * 0 + 0.5)
    assert float(selectivity(few).isel(mu=0, beta=0, seed=0)) == 0.25
    assert cell_table(made).columns[-1] == "selectivity, noisy"
    assert not asked_tables(synthetic_dataset(config))


def test_the_boundary_table_measures_the_distance(dataset: xr.Dataset) -> None:
    made = dataset.copy(deep=True)
    made["critical_beta"][:] = [9.0, 4.0, 2.0, 1.0]
    made["status"][:] = "ok"
    made["status"][1, 2] = "collapsed"
    made["status"][2, 1:] = "collapsed"
    table = boundary_table(made)
    assert [entry.text for entry in entries(table, "ratio")] == ["–", "2", "1", "–"]


def test_the_baseline_table_has_mean_and_interval() -> None:
    made = alive()
    made["baseline_probe_mse"].loc[{"direction": "code_to_truth", "fit": "adam"}] = np.array(
        [0.10, 0.11, 0.11, 0.12, 0.11]
    )
    table = baseline_table(made)
    error = 2 * np.std([0.10, 0.11, 0.11, 0.12, 0.11], ddof=1) / 5**0.5
    first = [entry.text for entry in table.rows[0].entries]
    assert first[:2] == ["code → truth, 3 epochs", "0.1100"]
    assert first[2] == f"{0.11 - error:.4f} to {0.11 + error:.4f}"
    assert first[3] == "0.1000 to 0.1200"
    assert first[5] == "0.1121"
    assert len(baseline_table(synthetic_dataset(small_config(baseline_seeds=0))).rows) == 4


def test_two_runs_stand_side_by_side(tmp_path: Path) -> None:
    plain = synthetic_dataset(small_config(**TINY))
    changes = {"mu": (0.0, 2.5, 4.0), "beta": (0.5, 8.0), "preset": "warmup", "beta_warmup": 100}
    warm = synthetic_dataset(small_config(**{**TINY, **changes}), seed=1)
    path = write_report(plain, tmp_path, other=warm)
    found = Page(path.read_text(encoding="utf-8"))
    images = [source for source in found.sources if source.startswith("data:image/png")]
    assert len(images) == 2 * len(FIGURES) + 1
    text = found.text
    assert "A: custom" in text
    assert "B: warmup" in text
    assert "The runs share 4 cells. They differ in mu, beta, beta_warmup." in text
    assert "B − A" in text
    assert (tmp_path / "figures" / "other" / "pmi.png").is_file()
    assert not list(tmp_path.rglob("*.tmp"))


def test_the_differences_are_of_the_shared_cells(dataset: xr.Dataset) -> None:
    other = dataset.copy(deep=True).isel(mu=[3, 0, 1])
    first, second = shared_cells(dataset, other)
    assert list(second["mu"].values) == list(first["mu"].values) == [0.0, 1.0, 5.0]
    first, second = (run.copy(deep=True) for run in (first, second))
    for run in (first, second):
        run["status"][:] = "ok"
        run["recovery_r2"][:] = 0.5
    second["status"][0, 0] = "collapsed"
    second["recovery_r2"][0, 0] = 0.0
    second["recovery_r2"][1, 1] = 0.75
    text = " ".join(differences(first, second))
    assert "0 of these cells collapsed in A and 1 in B; 0 in A only, 1 in B only." in text
    assert (
        "B's largest gain is 0.25 at μ = 1, β = 2, its largest loss 0.5 at μ = 0, β = 0.5." in text
    )


def test_runs_without_a_common_cell_are_refused(dataset: xr.Dataset, tmp_path: Path) -> None:
    other = synthetic_dataset(small_config(beta=(3.0,)))
    with pytest.raises(ResultsError, match="beta: has no value in common"):
        write_report(dataset, tmp_path / "run", other=other)
    assert not (tmp_path / "run").exists()


def test_a_cell_is_collapsed_when_no_seed_lives() -> None:
    made = alive(seeds=2)
    made["status"][0, 0] = "collapsed"
    made["status"][0, 1] = ["collapsed", "diverged"]
    made["status"][0, 2] = ["collapsed", "ok"]
    made["status"][1, 2] = "diverged"
    assert all_seeds(made, "collapsed").values.tolist()[0] == [True, True, False]
    assert not all_seeds(made, "collapsed").values[1, 2]
    assert all_seeds(made, "diverged").values[1].tolist() == [False, False, True]
    made["status"][2, 1:] = "collapsed"
    np.testing.assert_array_equal(first_collapsed(made), [np.nan, np.nan, 2.0])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.00001, "<0.0001"),
        (-0.00001, ">−0.0001"),
        (0.00123, "0.0012"),
        (0.0456, "0.046"),
        (0.8949, "0.895"),
        (-0.5, "−0.5"),
        (9.5, "9.5"),
        (101.26, "101"),
        (12345.6, "12,346"),
        (float("nan"), "no number"),
    ],
)
def test_numbers_are_written_plainly(value: float, text: str) -> None:
    assert number(value) == text


def test_ranks_are_compared() -> None:
    assert rank_correlation(np.array([1.0, 2.0, 30.0]), np.array([0.1, 0.2, 0.3])) == pytest.approx(
        1
    )
    assert rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0])) == pytest.approx(
        -1
    )
    assert np.isnan(rank_correlation(np.ones(3), np.arange(3.0)))


def test_equal_neighbours_make_a_run() -> None:
    assert runs(np.array([0, 0, 1, -1, -1, 2])) == [(0, 1), (2, 2), (5, 5)]
