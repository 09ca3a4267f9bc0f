"""Figures show what the dataset holds, mark what failed, and compare between runs."""

from __future__ import annotations

import re
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from synthetic import small_config, synthetic_dataset
from vaekit import figures
from vaekit.errors import RunError
from vaekit.figures import FIGURES, curves, heatmap, images, maps, save_figure, write_figures
from vaekit.figures.style import ink_on, sequence, spans
from vaekit.processes import elsewhere

HEAT_MAPS = (
    "pmi",
    "pmi_exact",
    "reverse_probe",
    "reverse_probe_exact",
    "decode_mse",
    "decode_mse_exact",
    "decode_ratio",
    "reconstruction_mse",
    "recovery_r2",
    "grid_recovery_r2",
    "active_units",
    "information_fraction",
)
TINY = {"grid": 2, "tile": 2, "latents": 4, "mu": (0.0, 2.5), "beta": (0.5, 2.0, 8.0)}


@pytest.fixture(scope="module")
def dataset() -> xr.Dataset:
    """4 mu and 3 beta, most of it collapsed, one cell diverged."""
    return synthetic_dataset(small_config())


def hatched(ax: Axes, hatch: str) -> set[tuple[float, float]]:
    return {p.get_xy() for p in ax.patches if isinstance(p, Rectangle) and p.get_hatch() == hatch}


def places(dataset: xr.Dataset, status: str) -> set[tuple[float, float]]:
    cells = np.argwhere((dataset["status"] == status).values[..., 0])
    return {(mu - 0.5, beta - 0.5) for mu, beta in cells}


def texts(ax: Axes) -> dict[tuple[int, int], str]:
    return {
        (int(t.get_position()[0]), int(t.get_position()[1])): t.get_text() for t in ax.texts[:-1]
    }


def legend(made: Figure) -> str:
    return " | ".join(text.get_text() for text in made.legends[0].get_texts())


def test_every_figure_has_a_title_a_caption_and_a_sentence() -> None:
    for name, entry in FIGURES.items():
        assert name == entry.draw.__name__
        assert entry.title and entry.caption.endswith(".")
        assert entry.draw.__doc__


@pytest.mark.parametrize(
    "changes",
    [
        {"seeds": 2},
        {"mu": (3.0,), "beta": (4.0,), "baseline_seeds": 0, "steps": 1},
        {"generator": "linear", "decoder_output": "linear", "test_levels": (-1.0, 0.0, 2.0)},
        {"mu": (-2.0, 0.0, 2.0), "beta": (0.0, 1.0), "baseline_seeds": 1},
    ],
    ids=["seeds", "one cell", "linear", "beta 0"],
)
def test_every_figure_draws(changes: dict, tmp_path: Path) -> None:
    """Any sweep, whatever it holds, without a warning."""
    made = synthetic_dataset(small_config(**{**TINY, **changes}))
    for path in write_figures(made, tmp_path, processes=1):
        assert path.read_bytes().startswith(b"\x89PNG"), path


def test_figures_survive_what_training_can_do(tmp_path: Path) -> None:
    """No boundary in theory, codes that blew up, everything else diverged."""
    made = synthetic_dataset(small_config(**TINY)).copy(deep=True)
    made["critical_beta"][:] = np.nan
    made["information_ceiling"][:] = np.inf
    made["status"][:] = "diverged"
    made["status"][0, 0] = "ok"
    for name in ("rate", "distortion", "kl", "recovery_r2", "loss_curve", "nll_curve", "kl_curve"):
        made[name] = made[name].where(made["status"] == "ok")
    made["rate"][0, 0] = 3e6
    made["kl"][0, 0] = 1e6
    assert len(write_figures(made, tmp_path, processes=1)) == len(FIGURES)


@pytest.mark.parametrize("name", HEAT_MAPS)
def test_a_heat_map_marks_what_failed(name: str, dataset: xr.Dataset) -> None:
    ax = FIGURES[name].draw(dataset).axes[0]
    assert len(places(dataset, "collapsed")) >= 3
    assert len(places(dataset, "diverged")) == 1
    assert hatched(ax, heatmap.COLLAPSED_HATCH) == places(dataset, "collapsed")
    assert hatched(ax, heatmap.DIVERGED_HATCH) == places(dataset, "diverged")
    assert len(texts(ax)) == 12
    (diverged,) = np.argwhere((dataset["status"] == "diverged").values[..., 0])
    assert texts(ax)[tuple(diverged)] == "–"


def test_the_other_planes_mark_what_failed_too(dataset: xr.Dataset) -> None:
    left, right = FIGURES["overview"].draw(dataset).axes[:2]
    for ax in (left, right):
        assert hatched(ax, heatmap.COLLAPSED_HATCH) == places(dataset, "collapsed")
    collapsed = int((dataset["status"] == "collapsed").sum())
    panels = FIGURES["kl_per_latent"].draw(dataset).axes[:4]
    assert sum(len(hatched(ax, heatmap.COLLAPSED_HATCH)) for ax in panels) == collapsed
    (ax,) = FIGURES["reconstructions"].draw(dataset).axes
    assert len(hatched(ax, heatmap.COLLAPSED_HATCH)) == collapsed


def test_a_traversal_says_how_its_model_ended(dataset: xr.Dataset) -> None:
    shown = set()
    for ax in FIGURES["traversals"].draw(dataset).axes:
        mu, beta, state = re.fullmatch(r"μ = (.+), β = (.+): (.+)", ax.get_title("left")).groups()
        status = str(dataset["status"].sel(mu=float(mu), beta=float(beta)).values[0])
        expected = {"ok": r"\d of 9 active", "diverged": "diverged at step 7"}.get(status, status)
        assert re.fullmatch(expected, state)
        shown.add(status)
    assert shown == {"ok", "collapsed", "diverged"}


def test_a_cell_shows_its_value(dataset: xr.Dataset) -> None:
    shown = texts(FIGURES["active_units"].draw(dataset).axes[0])
    for (i, k), text in shown.items():
        if text != "–":
            assert int(text) == dataset["active_units"].values[i, k, 0]
    shown = texts(FIGURES["recovery_r2"].draw(dataset).axes[0])
    value = float(dataset["recovery_r2"][1, 0, 0])
    assert float(shown[1, 0]) == pytest.approx(value, abs=0.005)


def test_seeds_are_averaged_and_their_spread_shown() -> None:
    made = synthetic_dataset(small_config(seeds=3)).copy(deep=True)
    made["recovery_r2"][0, 0] = [0.5, 0.6, 0.7]
    made["recovery_r2"][1, 0] = [0.5, 0.6, np.nan]
    made["status"][1, 0] = ["ok", "ok", "diverged"]
    made["status"][0, 1] = ["collapsed", "ok", "ok"]
    picture = FIGURES["recovery_r2"].draw(made)
    shown = texts(picture.axes[0])
    assert shown[0, 0] == "0.60\n±0.10"
    assert shown[1, 0] == "0.55\n±0.071"
    assert "collapsed in some seeds" in legend(picture)
    assert "diverged in some seeds" in legend(picture)


@pytest.mark.parametrize("name", HEAT_MAPS)
def test_colour_limits_do_not_follow_the_data(name: str, dataset: xr.Dataset) -> None:
    other = dataset.copy(deep=True)
    for variable in ("probe_mse", "decode_mse", "recovery_r2", "information", "active_units"):
        other[variable] = other[variable] * 3
    limits = [FIGURES[name].draw(run).axes[1].get_ylim() for run in (dataset, other)]
    assert limits[0] == limits[1]


def test_the_limits_are_those_of_the_metric(dataset: xr.Dataset) -> None:
    assert maps.pixel_scale(dataset).upper == pytest.approx(0.3567, abs=1e-4)
    assert maps.truth_scale(dataset).upper == pytest.approx(0.1067, abs=1e-4)


def test_light_is_better_in_every_map() -> None:
    for scale, best in ((maps.R2, 1.0), (maps.CODE_MSE, 0.0)):
        light = [sum(mpl.colormaps[scale.colours](scale.norm()(value))[:3]) for value in (0.0, 1.0)]
        assert int(np.argmax(light)) == best


def test_beta_has_a_place_between_the_rows() -> None:
    beta = np.array([0.5, 1.0, 2.0, 8.0])
    found = heatmap.beta_place(np.array([0.5, 0.75, 2.0, 5.0, 8.0, 14.0, 0.25]), beta)
    np.testing.assert_allclose(found, [0, 0.5, 2, 2.5, 3, 4, -0.5])


def test_the_line_goes_through_critical_beta(dataset: xr.Dataset) -> None:
    made = dataset.copy(deep=True)
    made["critical_beta"][:] = [20.0, 8.0, 2.0, 0.25]
    picture = FIGURES["active_units"].draw(made)
    (line,) = picture.axes[0].lines
    x, y = line.get_data()
    np.testing.assert_allclose(np.interp([1.0, 2.0], x, y), [2.0, 1.0], atol=0.03)
    assert "above 8 at μ = 0; below 0.5 at μ = 5" in legend(picture)
    made["critical_beta"][:] = np.nan
    assert not FIGURES["active_units"].draw(made).axes[0].lines


def test_the_order_of_the_sweep_does_not_matter(dataset: xr.Dataset, tmp_path: Path) -> None:
    shuffled = dataset.isel(mu=[2, 0, 3, 1], beta=[1, 2, 0])
    for number, run in enumerate((dataset, shuffled)):
        save_figure(FIGURES["pmi"].draw(run), tmp_path / f"{number}.png")
    assert (tmp_path / "0.png").read_bytes() == (tmp_path / "1.png").read_bytes()


def test_a_file_has_150_dots_an_inch(dataset: xr.Dataset, tmp_path: Path) -> None:
    made = FIGURES["rate_distortion"].draw(dataset)
    width, height = made.get_size_inches()
    save_figure(made, tmp_path / "a.png")
    assert mpl.image.imread(tmp_path / "a.png").shape[:2] == (int(150 * height), int(150 * width))


def test_matplotlib_is_left_as_it_was(dataset: xr.Dataset, tmp_path: Path) -> None:
    """The user's settings come back, and do not change the figures."""
    save_figure(FIGURES["rate_distortion"].draw(dataset), tmp_path / "plain.png")
    odd = {"font.size": 30, "axes.facecolor": "red", "savefig.dpi": 20, "figure.dpi": 30}
    with mpl.rc_context(odd):
        before = dict(mpl.rcParams)
        save_figure(FIGURES["rate_distortion"].draw(dataset), tmp_path / "odd.png")
        assert dict(mpl.rcParams) == before
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "odd.png").read_bytes()


def test_the_curves_say_which_beta_and_mu_they_show() -> None:
    made = synthetic_dataset(small_config(**{**TINY, "mu": (1.0, 2.5)}))
    over_mu = curves.curves_over_mu(made).get_suptitle()
    over_beta = curves.curves_over_beta(made).get_suptitle()
    assert over_mu.startswith("Training over μ at β = 0.5 (the sweep's nearest to the post's 1)")
    assert over_beta.startswith("Training over β at μ = 1 (the sweep's nearest to the post's 0)")


def test_lines_leave_out_what_diverged_and_say_so() -> None:
    """Windows of a diverged seed are in no average; a cell without a number has its mark."""
    made = synthetic_dataset(small_config(**TINY, seeds=2)).copy(deep=True)
    made["status"][:] = "ok"
    made["recovery_r2"][:] = 0.5
    for name in ("loss_curve", "nll_curve", "kl_curve"):
        made[name][:] = 1.0
        made[name][0, :, 1] = 1e9
        made[name][1, 0] = 1e9
    made["status"][0, :, 1] = "diverged"
    made["status"][1, 0] = "diverged"
    drawn = curves.curves_over_mu(made.assign_coords(beta=[1.0, 2.0, 8.0]))
    for ax in drawn.axes[:3]:
        assert np.nanmax(ax.lines[0].get_ydata()) == 1.0
        assert np.isnan(ax.lines[1].get_ydata()).all()
    assert legend(drawn) == "2.5 (diverged) | 0 (1 of 2 diverged)"
    notes = [art.get_text() for art in drawn.artists if hasattr(art, "get_text")]
    assert any("3 of 4 models diverged, left out" in note for note in notes)
    ax = curves.recovery_over_beta(made).axes[0]
    marks = [line for line in ax.lines if line.get_marker() == "P"]
    assert [line.get_xdata().tolist() for line in marks] == [[0, 1, 2], [0]]
    assert marks[0].get_ydata().tolist() == [0.5] * 3
    assert marks[1].get_ydata().tolist() == [curves.DIVERGED_HEIGHT]
    assert "5 of 12 models diverged, left out" in str([t.get_text() for t in ax.texts])
    ax = FIGURES["rate_distortion"].draw(made).axes[0]
    assert "5 of 12 models diverged, left out" in str([t.get_text() for t in ax.texts])


def test_the_best_beta_is_ringed(dataset: xr.Dataset) -> None:
    made = dataset.copy(deep=True)
    made["recovery_r2"][0, :, 0] = [0.2, 0.7, 0.9]
    made["status"][0, :, 0] = ["ok", "ok", "collapsed"]
    ax = FIGURES["recovery_over_beta"].draw(made).axes[0]
    rings = [line for line in ax.lines if line.get_markersize() == 9.5]
    assert [float(v) for v in (rings[0].get_xdata()[0], rings[0].get_ydata()[0])] == [1.0, 0.7]


def test_a_mosaic_keeps_rows_and_columns() -> None:
    laid = images.mosaic(np.arange(6.0).reshape(2, 3, 1, 1) * np.ones((1, 1, 2, 2)))
    assert laid.shape == (6, 10)
    np.testing.assert_array_equal(laid[::4, ::4], np.arange(6.0).reshape(2, 3))
    assert np.isnan(laid[2:4]).all()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.00004, "0"),
        (0.00012, "0.0001"),
        (0.0123, "0.012"),
        (0.999, "1.00"),
        (12, "12.0"),
    ],
)
def test_a_number_fits_its_cell(value: float, text: str) -> None:
    assert maps.R2.text(value) == text
    assert maps.R2.text(-value) == (f"−{text}" if text != "0" else "0")


def test_text_is_read_on_any_colour() -> None:
    assert ink_on((1.0, 1.0, 1.0, 1.0)) == "black"
    assert ink_on((0.27, 0.0, 0.33, 1.0)) == "white"
    lightness = [sum(colour[:3]) for colour in sequence(11)]
    assert np.all(np.diff(lightness) > 0)


def test_neighbours_are_written_as_a_range() -> None:
    values = np.array([-1.0, 0.0, 0.5, 1.0, 2.0])
    assert spans(values, np.array([True, True, True, False, True])) == "−1 to 0.5, 2"
    assert spans(values, np.array([False, True, True, False, False])) == "0, 0.5"
    assert spans(values, np.zeros(5, dtype=bool)) == ""


def some_figures(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(figures, "FIGURES", {name: FIGURES[name] for name in names})


def test_several_processes_draw_the_same(
    dataset: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some_figures(monkeypatch, "pmi", "rate_distortion", "baseline")
    alone = write_figures(dataset, tmp_path / "alone", processes=1)
    together = write_figures(dataset, tmp_path / "together", processes=2)
    assert [path.name for path in together] == [path.name for path in alone]
    for one, other in zip(alone, together, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name


def test_a_figure_that_another_process_cannot_draw(
    dataset: xr.Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    some_figures(monkeypatch, "pmi", "rate_distortion")
    with pytest.raises(RunError, match="worked on rate_distortion ended with code 1"):
        write_figures(dataset.drop_vars("rate"), tmp_path, processes=2)
    assert "KeyError" in capfd.readouterr().err
    assert not list(tmp_path.iterdir())


def test_no_more_processes_draw_than_there_is_memory_for(
    dataset: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some_figures(monkeypatch, "pmi", "rate_distortion", "baseline")
    monkeypatch.setattr(figures, "cores", lambda: 64)
    asked: list[int] = []

    def alone(*given: Any) -> list[bytes]:
        asked.append(given[-1])
        return elsewhere(*given[:-1], 1)

    monkeypatch.setattr(figures, "elsewhere", alone)
    each = figures.PROCESS_BYTES + figures.DATASET_COPIES * dataset.nbytes
    for free, wanted in ((0, 1), (2.5 * each, 2), (100 * each, 3)):
        monkeypatch.setattr(figures, "free_bytes", lambda free=free: int(free))
        write_figures(dataset, tmp_path)
        assert asked[-1] == wanted


def test_a_failed_figure_leaves_the_old_one(
    dataset: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pmi.png").write_bytes(b"old")

    def half(self: FigureCanvasAgg, file: BytesIO, **_: object) -> None:
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(FigureCanvasAgg, "print_png", half)
    some_figures(monkeypatch, "pmi")
    with pytest.raises(OSError, match="disk full"):
        write_figures(dataset, tmp_path)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("pmi.png", b"old")]


def test_the_difference_of_two_runs(dataset: xr.Dataset) -> None:
    other = dataset.copy(deep=True)
    other["recovery_r2"] = dataset["recovery_r2"] - 0.25
    shown = texts(maps.recovery_difference(dataset, other).axes[0])
    assert shown[0, 0] == "−0.25"
    same = texts(maps.recovery_difference(dataset, dataset).axes[0])
    assert same[0, 0] == "0"
