"""The answer's sections: sentences and tables that follow the data, either way."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from planted import dataset, with_boundary
from vaekit.study import arms, bias, boundary, figures, inverse, pairs, second_map
from vaekit.study.claims import Correlation
from vaekit.study.section import spell
from vaekit.study.statistics import Interval, interval


@pytest.mark.parametrize(("shift", "words"), [(0, "meets"), (-1, "meets"), (-2, "falls short of")])
def test_the_boundarys_sentence_follows_the_data(shift: int, words: str) -> None:
    made = with_boundary(dataset(), shift)
    first, second, *beyond = boundary.boundary_in_words({arms.REFERENCE: made})
    # Two steps early, the column of mu = 3 is dead from the first beta on.
    assert [text[:19] for text in beyond] == (["In 3 of 12 columns "] if shift == -2 else [])
    assert words in first
    assert f"in {0 if shift == -2 else 12} of 12 columns" in first
    assert second.startswith(f"With β warmed up, one reading collapses {spell_plain(shift)} steps")


def spell_plain(value: float) -> str:
    return f"{value:g}".replace("-", "−")


@pytest.mark.parametrize(
    ("beta", "words"),
    [((1.0, 2.0, 4.0), "a factor of 2 in β"), ((0.5, 1.0, 4.0, 6.0), "a factor of 1.5 to 4 in β")],
)
def test_the_boundarys_sentence_says_how_coarse_the_grid_is(
    beta: tuple[float, ...], words: str
) -> None:
    made = with_boundary(dataset(beta=beta), 0)
    assert f"A step is {words}." in boundary.boundary_in_words({arms.REFERENCE: made})[0]


def test_the_boundarys_table_and_figure_say_the_same() -> None:
    """Five of eight columns, 62.5 %, which one of them once rounded to 62."""
    made = with_boundary(dataset(seeds=2), 0)
    far = with_boundary(dataset(seeds=2), -2)
    kept = made["mu"] * 2 + made["seed"] < 5
    mixed = made.assign(
        active_units=xr.where(kept, made["active_units"], far["active_units"]).transpose(
            "mu", "beta", "seed"
        )
    )
    name = "fixed-analytic-0.25"
    head, row = boundary.boundary_table({name: mixed})
    assert row == [name, "−0.75 [−1 to −0.5]", "62.5", "8", "0"]
    assert len(head) == len(row)
    drawn = figures.boundary({name: mixed}).axes[0]
    assert [text.get_text() for text in drawn.texts] == ["62.5 % of 8 columns within one step"]


def test_the_probes_share_follows_the_data() -> None:
    made = dataset()
    decode = made["decode_mse"].copy()
    decode.loc[{"fit": "exact"}] = 0.02
    decode.loc[{"fit": "adam"}] = 0.08
    share = second_map.probe_share(made.assign(decode_mse=decode))
    assert float(share.mean) == pytest.approx(0.75)
    same = made["decode_mse"].copy()
    same.loc[{"fit": "adam"}] = same.sel(fit="exact")
    assert float(second_map.probe_share(made.assign(decode_mse=same)).mean) == pytest.approx(0.0)


def test_the_second_maps_parts_are_its_sum() -> None:
    """Half of the betas live and err by 0.02 exactly, 0.08 with 3 epochs; the others collapsed."""
    made = dataset()
    dead = made["beta"] + 0 * made["mu"] + 0 * made["seed"] > 2
    exact = xr.where(dead, made["decode_mse_constant"] * 1.04, 0.02)
    decode = xr.concat([exact, xr.where(dead, exact, 0.08)], made["fit"])
    name = "fixed-analytic-0.25"
    planted = {
        name: made.assign(
            decode_mse=decode.transpose(*made["decode_mse"].dims),
            status=xr.where(dead, "collapsed", "ok").transpose("mu", "beta", "seed"),
        )
    }
    head, row = second_map.second_map_table(planted)
    cells = dict(zip(head, row, strict=True))
    whole = 12 * 0.08 + 3 * 1.04 * float(made["decode_mse_constant"].sum())
    parts = {
        "probe, % of the map": 12 * 0.06,
        "collapsed models, %": whole - 12 * 0.08,
        "living decoders, %": 12 * 0.02,
    }
    for column, part in parts.items():
        assert float(cells[column].split(" ")[0]) == pytest.approx(100 * part / whole, rel=5e-3)
    assert cells["probe, % of the living models' part"].startswith("75 ")
    assert (cells["collapsed"], cells["at the mean image"]) == ("36 of 72", "36")
    for place, mu in enumerate(made["mu"].values):
        level = float(made["decode_mse_constant"][place])
        share = 3 * 0.06 / (3 * 0.08 + 3 * 1.04 * level)
        found = cells[f"probe, % of the map at μ = {mu:g}"].split(" ")[0]
        assert float(found) == pytest.approx(100 * share, rel=5e-3)
        assert f"{found} % at μ = {mu:g}" in second_map.second_map_in_words(planted)[3]
    said = second_map.second_map_in_words(planted)
    for sentence, column in zip(said[:3], (*list(parts)[:2], head[4]), strict=True):
        assert sentence.endswith(f" {cells[column].split(' ')[0]} % ({name}).")
    assert said[4].startswith("36 of 72 models collapsed, and 36 of those score within 5 %")
    assert "The other" not in said[4]
    # One whose picture at a code of zeros is none that it draws on average.
    planted[name]["decode_mse"][3, 5, 0, 0] = 0.9 * made["decode_mse_constant"][3]
    planted[name]["traversal"][3, 5] = 0.75
    last = second_map.second_map_in_words(planted)[-1]
    assert "and 35 of those score within 5 %" in last
    assert "The other 1, at μ = 3, are off it by −10 to −10 %" in last
    assert "an image of 0.75 on average (first seed), where the training images have 0.931" in last


def recovered(value: float | list[float], **changes: object) -> xr.Dataset:
    made = dataset(**changes)
    level = xr.DataArray(np.broadcast_to(value, made.sizes["mu"]), dims="mu")
    made["status"][:] = "ok"
    return made.assign(recovery_r2=xr.zeros_like(made["recovery_r2"]) + level)


@pytest.mark.parametrize(
    ("matched", "words"),
    [
        (0.9, "So 100 [100 to 100] % of the fall goes away with the lost signal put back."),
        (0.3, "So 0 [0 to 0] % of the fall goes away with the lost signal put back; what is left"),
    ],
)
def test_bias_or_noise_follows_the_data(matched: float, words: str) -> None:
    base = recovered([0.9, 0.7, 0.5, 0.3])
    found = bias.bias_in_words(
        {arms.REFERENCE: base, "matched-mu-3": recovered(matched, mu=(3.0,))}
    )
    assert len(found) == 1
    assert words in found[0]
    assert "falls by 0.6 [0.6 to 0.6]" in found[0]


def test_a_seed_without_a_fall_has_no_share_of_it() -> None:
    """One of three recovers nothing at any mu; the two others lose 0.6, and 0.3 with the noise."""
    base, control = recovered([0.9, 0.7, 0.5, 0.3]), recovered(0.6, mu=(3.0,))
    for made in (base, control):
        made["recovery_r2"][..., 0] = 0.0
    words = bias.bias_in_words({arms.REFERENCE: base, "matched-mu-3": control})[0]
    assert "So 50 [50 to 50] % of the fall goes away" in words


def test_dead_models_are_in_no_mean_of_bias_or_noise() -> None:
    """Where one of the three models compared is dead, the three are left out of both falls."""
    base, control = recovered([0.9, 0.7, 0.5, 0.3]), recovered(0.6, mu=(3.0,))
    base["status"][3, 4:] = "collapsed"
    base["recovery_r2"][3, 4:] = 0.0
    control["status"][0, 0, 1] = "collapsed"
    control["recovery_r2"][0, 0, 1] = 0.0
    said = {arms.REFERENCE: base, "matched-mu-3": control}
    words = bias.bias_in_words(said)[0]
    assert (
        "falls by 0.6 [0.6 to 0.6]; with the signal-to-noise ratio of μ = 0 kept, by 0.3" in words
    )
    assert "the 11 of 18 pairs of β and seed in which all three models live" in words
    ax = figures.controls(said).axes[0]
    assert ax.lines[0].get_ydata() == pytest.approx([0.9, 0.7, 0.5, 0.3])
    assert [text.get_text() for text in ax.get_xticklabels()] == [
        "0\n18",
        "1\n18",
        "2\n18",
        "3\n11",
    ]
    base["status"][3, 1:] = "collapsed"
    assert "live in 2 of 18 pairs of β and seed: inconclusive" in bias.bias_in_words(said)[0]


def test_one_seed_concludes_nothing_of_bias_or_noise() -> None:
    base, control = recovered([0.9, 0.7, 0.5, 0.3], seeds=1), recovered(0.6, mu=(3.0,), seeds=1)
    words = bias.bias_in_words({arms.REFERENCE: base, "matched-mu-3": control})[0]
    assert words.endswith("With one seed nothing is concluded from it.")


def test_what_collapsed_below_the_boundary_is_said_to_be_trainings() -> None:
    """One beta of four below the boundary dies; what dies above it, or diverges, is not counted."""
    base = recovered([0.9, 0.7, 0.5, 0.3])
    control = with_boundary(recovered(0.6, mu=(3.0,)), 0)
    control["critical_beta"][0] = 5.0
    control["status"][0] = np.array([["ok"], ["ok"], ["ok"], ["ok"], ["collapsed"], ["collapsed"]])
    said = {arms.REFERENCE: base, "matched-mu-3": control}
    assert "collapsed" not in bias.bias_in_words(said)[0]
    control["status"][0, 3] = "collapsed"
    control["status"][0, 2, 0] = "diverged"
    words = bias.bias_in_words(said)[0]
    assert "Of the 11 models of that control with β below critical β 3 collapsed" in words


def test_the_linear_grid_stands_beside_its_optimum_and_the_untrained() -> None:
    """lambda = 49 + 0.25: the optimum's R2 is 49 / 49.25 of any mu and every beta that lives."""
    linear = recovered([0.9, 0.8, 0.7, 0.6], generator="linear", decoder_output="linear")
    level = xr.DataArray([0.1, 0.0, 0.0, 0.2], dims="mu")
    untrained = (
        level + xr.zeros_like(linear["baseline_probe_mse"][:, 0, 0], dtype=float)
    ).drop_vars(["direction", "fit"])
    words = bias.bias_in_words({"linear": linear.assign(baseline_recovery_r2=untrained)})[0]
    assert "the exact optimum has an R² of 0.995 at every μ" in words
    assert "0.9 (untrained: 0.1) at μ = 0 and 0.6 (untrained: 0.2) at μ = 3" in words
    assert "what they lack of the optimum, training and" in words
    near = recovered(0.99, generator="linear", decoder_output="linear")
    assert "what they lack" not in bias.bias_in_words({"linear": near})[0]


@pytest.mark.parametrize(
    ("values", "words"),
    [([0.9] * 4, "next to nothing"), ([0.9, 0.8, 0.7, 0.6], "does change")],
)
def test_the_linear_grids_sentence_follows_the_data(values: list[float], words: str) -> None:
    assert words in bias.bias_in_words({"linear": recovered(values)})[0]


def maps(raw: float, scaled: float, turned: float, decoder: float) -> dict[str, xr.Dataset]:
    """One arm whose maps rise (1) or fall (-1) along beta, without a seed's difference."""
    made = dataset()
    slope = (made["beta"] + 0 * made["mu"] + 0 * made["seed"]).transpose("mu", "beta", "seed")
    probe = made["probe_mse"] * 0
    probe = xr.where(probe["direction"] == "truth_to_code", probe + raw * slope, probe)
    probe = xr.where(probe["direction"] == "code_to_truth", probe + turned * slope, probe)
    r2 = (made["probe_r2"] * 0 + 0.5 - scaled * slope / 40).transpose(*made["probe_r2"].dims)
    decode = (made["decode_mse"] * 0 + decoder * slope).transpose(*made["decode_mse"].dims)
    probe = probe.transpose(*made["probe_mse"].dims)
    return {inverse.POST: made.assign(probe_mse=probe, probe_r2=r2, decode_mse=decode)}


@pytest.mark.parametrize(
    ("signs", "words"),
    [
        ((-1, 1, 1, 1), "or with the truth as what is predicted, the maps run the same way"),
        ((-1, 1, -1, 1), "turning the probe round does not"),
        ((-1, -1, 1, 1), "hangs on the probe's direction"),
        ((-1, -1, -1, 1), "Neither the probe's direction nor"),
        ((1, 1, 1, 1), "no inverse relation that would need explaining"),
    ],
)
def test_the_inverse_relations_sentence_follows_the_data(
    signs: tuple[int, int, int, int], words: str
) -> None:
    assert words in inverse.inverse_in_words(maps(*signs))[-1]


def test_collapse_is_compared_with_the_living_of_the_same_column() -> None:
    made = maps(-1, 1, 1, 1)[inverse.POST]
    dead = made["beta"] + 0 * made["mu"] + 0 * made["seed"] >= 8
    status = xr.where(dead, "collapsed", "ok").transpose("mu", "beta", "seed")
    first, *_ = inverse.inverse_in_words({inverse.POST: made.assign(status=status)})
    assert f"{int(dead.sum())} of {dead.size} models collapsed" in first
    # Dead at beta 8 and 12, alive at 0.5, 1, 2 and 4; the first map falls, the second rises.
    assert "they score on the first map −10, living ones −1.88" in first
    assert "a difference of −8.12 [−8.12 to −8.12] (better)" in first
    assert "a difference of +8.12 [+8.12 to +8.12] (worse)" in first


def test_one_seed_concludes_nothing_of_the_inverse_relation() -> None:
    one = {name: made.isel(seed=[0]) for name, made in maps(-1, 1, 1, 1).items()}
    said = inverse.inverse_in_words(one)
    assert said[-1] == "With one seed there is no interval, so nothing is concluded from it."
    assert not any("Over the" in sentence for sentence in said)
    assert not any("[" in sentence for sentence in said)


def test_how_constant_a_collapsed_code_is_has_no_rank() -> None:
    """An R2 of minus millions says that a code hardly varies: it counts as 0, like any failure."""
    made = maps(-1, 1, 1, 1)[inverse.POST]
    dead = made["beta"] >= 4
    hardly = made["probe_r2"].where(~dead, -1e7 / made["beta"]).clip(max=0.9)
    planted = made.assign(probe_r2=hardly.transpose(*made["probe_r2"].dims))
    failed = made.assign(probe_r2=hardly.where(~dead, 0.0).transpose(*made["probe_r2"].dims))
    found, expected = (inverse.with_the_decoder(d, inverse.SCALED).value for d in (planted, failed))
    assert found == expected


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (-0.3, "reversed"),
        (-0.05, "open"),
        (0.05, "open"),
        (0.3, "holds"),
        (float("nan"), "one seed"),
    ],
)
def test_a_correlation_next_to_nothing_is_open(value: float, word: str) -> None:
    assert Correlation("", "", "", value, value - 0.01, value + 0.01).word == word


def test_an_agreement_that_is_collapses_says_so() -> None:
    """Living models run opposite ways in both maps, dead ones are worst in both."""
    made = maps(-1, 1, 1, 1)[inverse.POST]
    dead = made["beta"] + 0 * made["mu"] + 0 * made["seed"] >= 4
    error = xr.where(dead, 1.0, 0.5 - 0.1 * made["beta"])
    r2 = (made["probe_r2"] * 0 + 1.0 - error).transpose(*made["probe_r2"].dims)
    status = xr.where(dead, "collapsed", "ok").transpose("mu", "beta", "seed")
    arm = {inverse.POST: made.assign(probe_r2=r2, status=status)}
    last = inverse.inverse_in_words(arm)[-1]
    assert "the maps run the same way in most readings. That agreement owes to collapse" in last
    assert (
        "the same way in 0 of the 1 readings that have enough of them, opposite ways in 1" in last
    )
    head, row = inverse.inverse_table(arm)
    cells = dict(zip(head, row, strict=True))
    assert cells["as it is"] == cells["as it is, living models"] == "−1 [−1 to −1]"
    assert cells["over the code's variance, living models"] == "−1 [−1 to −1]"
    # Four living models a seed are too few to rank.
    few = arm[inverse.POST].assign(status=status.where(made["beta"] <= 0.5, "collapsed"))
    assert inverse.inverse_table({inverse.POST: few})[1][-1] == "–"
    words = inverse.inverse_in_words({inverse.POST: few})
    assert words[-1].endswith(
        "No reading has enough living models to say whether they agree by themselves."
    )
    assert words[-2].startswith("Over one reading of training")


def test_paired_changes_are_of_the_same_cells() -> None:
    rng = np.random.default_rng(0)
    base = dataset()
    wobble = xr.DataArray(rng.normal(size=3), dims="seed")
    base = base.assign(recovery_r2=(base["recovery_r2"] + wobble).transpose("mu", "beta", "seed"))
    other = base.assign(recovery_r2=base["recovery_r2"] + 0.25)
    found = pairs.paired_change([(other, base)], pairs.MEASURES["recovery R²"])
    assert [float(end) for end in (found.mean, found.low, found.high)] == pytest.approx(3 * [0.25])
    words = pairs.pairs_in_words({"warmup-sample-0.25": other, "fixed-sample-0.25": base})
    assert len(words) == 1
    assert "Warming β up instead of fixing it changes active units by 0" in words[0]
    assert "recovery R² by +0.25 [+0.25 to +0.25]" in words[0]
    assert pairs.pairs_in_words({"linear": base, "fixed-sample-0.25": base}) == []


def test_a_cell_that_diverged_is_in_no_paired_change() -> None:
    base = dataset()
    other = base.assign(recovery_r2=base["recovery_r2"] + 0.25)
    other["recovery_r2"][1, 2, 0], other["status"][1, 2, 0] = 9.0, "diverged"
    found = pairs.paired_change([(other, base)], pairs.MEASURES["recovery R²"])
    assert [float(end) for end in (found.mean, found.low, found.high)] == pytest.approx(3 * [0.25])


def test_an_interval_is_spelt_with_its_sign() -> None:
    found = Interval(*(np.array(end) for end in (0.25, -0.5, 1.0)))
    assert spell(found) == "0.25 [−0.5 to 1]"
    assert spell(found, scale=100, sign=True) == "+25 [−50 to +100]"
    assert spell(interval([0.0]), sign=True) == "0"
    assert spell(interval([np.nan])) == "–"
