"""Studies: the arms, what a run leaves and resumes, the statistics, and words that follow data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from synthetic import synthetic_dataset
from vaekit import cli, results, theory
from vaekit.config import ConfigError, SweepConfig
from vaekit.journal import FOLDER
from vaekit.study import (
    answer,
    arms,
    bias,
    boundary,
    claims,
    figures,
    inverse,
    page,
    pairs,
    run,
    second_map,
)
from vaekit.study.section import spell
from vaekit.study.statistics import Interval, boundary_steps, interval, trend

BASE = {
    "mu": (0.0, 1.0, 2.0, 3.0),
    "beta": (0.5, 1.0, 2.0, 4.0, 8.0, 12.0),
    "seeds": 3,
    "steps": 300,
    "curve_points": 4,
    "baseline_seeds": 5,
}
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


def dataset(**changes: object) -> xr.Dataset:
    """An arm nobody trained, none of it diverged."""
    made = synthetic_dataset(SweepConfig(**{**BASE, **changes}))
    broken = made["status"] == "diverged"
    for name in ("recovery_r2", "decode_mse", "probe_mse", "loss_curve", "elbo"):
        made[name] = made[name].where(~broken, 0.5)
    made["status"] = made["status"].where(~broken, "ok")
    return made.assign(active_units=made["active_units"].where(~broken, 9))


def with_boundary(made: xr.Dataset, shift: int) -> xr.Dataset:
    """Units that live exactly up to theory's boundary, moved by some beta steps."""
    place = xr.DataArray(np.arange(made.sizes["beta"]), dims="beta")
    expected = (made["beta"] < made["critical_beta"]).sum("beta")
    alive = (place < expected + shift) & (made["seed"] >= 0)
    units = xr.where(alive, 9, 0).transpose("mu", "beta", "seed")
    status = xr.where(alive, "ok", "collapsed").transpose("mu", "beta", "seed")
    return made.assign(active_units=units, status=status)


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


@pytest.mark.parametrize(("shift", "words"), [(0, "meets"), (-1, "meets"), (-2, "falls short of")])
def test_the_boundarys_sentence_follows_the_data(shift: int, words: str) -> None:
    made = with_boundary(dataset(), shift)
    first, second = boundary.boundary_in_words({arms.REFERENCE: made})
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
    assert row == [name, "−0.75 [−1 to −0.5]", "62.5", "8"]
    assert len(head) == len(row)
    drawn = figures.boundary({name: mixed}).axes[0]
    assert [text.get_text() for text in drawn.texts] == ["62.5 % of columns within one step"]


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
    said = second_map.second_map_in_words(planted)
    for sentence, column in zip(said[:3], (*list(parts)[:2], head[4]), strict=True):
        assert sentence.endswith(f" {cells[column].split(' ')[0]} % ({name}).")
    assert said[3].startswith("36 of 72 models collapsed, and 36 of those score within 5 %")


def recovered(value: float | list[float], **changes: object) -> xr.Dataset:
    made = dataset(**changes)
    level = xr.DataArray(np.broadcast_to(value, made.sizes["mu"]), dims="mu")
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


@pytest.mark.parametrize(
    ("values", "words"),
    [([0.9] * 4, "next to nothing"), ([0.9, 0.8, 0.7, 0.6], "does change")],
)
def test_the_linear_grids_sentence_follows_the_data(values: list[float], words: str) -> None:
    assert words in bias.bias_in_words({"linear": recovered(values)})[0]


def judged(made: xr.Dataset, claim: str, score: str) -> str:
    (word,) = {
        verdict.word
        for verdict in claims.verdicts({"fixed-analytic-0.25": made})
        if (verdict.claim, verdict.score) == (claim, score)
    }
    return word


@pytest.mark.parametrize(("sign", "word"), [(1, "holds"), (-1, "reversed")])
def test_verdicts_turn_with_the_data(sign: int, word: str) -> None:
    made = dataset()
    slope = sign * (made["mu"] + made["beta"]) + 0 * made["seed"]
    probe = (20 + slope).expand_dims(direction=made["direction"], fit=made["fit"])
    turned = made.assign(
        loss_curve=(slope + 0 * made["step"]).transpose("mu", "beta", "seed", "step"),
        probe_mse=probe.transpose(*made["probe_mse"].dims),
        decode_mse=made["decode_mse"] * 0 + 20 - slope,
    )
    score = "truth → code, 3 epochs, grid"
    assert judged(turned, "loss rises with mu", "training loss") == word
    assert judged(turned, "loss rises with beta", "training loss") == word
    assert judged(turned, claims.CLAIMS[3], score) == word
    # Level sets are diagonal whichever way the map runs along both axes.
    assert judged(turned, claims.CLAIMS[4], score) == "holds"
    # The second map was made the first one's opposite, whichever way that goes.
    assert judged(turned, claims.CLAIMS[5], f"{score}; decoder exact") == "holds"


def test_the_decoders_level_sets_are_those_of_each_fit() -> None:
    """With one fit the decode MSE rises along both axes, with the other it falls along beta."""
    made = dataset()
    mu, beta = made["mu"] + 0 * made["seed"], 0.1 * made["beta"]
    decode = xr.concat([20 + mu + beta, 20 + mu - beta], made["fit"])
    planted = made.assign(decode_mse=decode.transpose(*made["decode_mse"].dims))
    assert made["fit"].values.tolist() == ["exact", "adam"]
    assert judged(planted, claims.CLAIMS[4], "decoder, exact") == "holds"
    assert judged(planted, claims.CLAIMS[4], "decoder, 3 epochs") == "reversed"


def test_the_claims_are_counted() -> None:
    def said(*words: str) -> str:
        """A sentence on verdicts of one claim under scores a, b, .. with these words."""
        ends = {"holds": (1, 2), "reversed": (-2, -1), "open": (-1, 1), "one seed": (np.nan,) * 2}
        verdicts = [
            claims.Verdict(claims.CLAIMS[1], "arm", score, 0.0, *map(float, ends[word]))
            for score, word in zip("abcd", words, strict=False)
        ]
        (sentence,) = answer.claims_in_words(verdicts)
        return sentence.removeprefix("“Loss rises with mu”: ")

    assert said("holds", "holds") == "holds in all 2 readings."
    assert said("one seed") == "without an interval (one seed) in all 1 readings."
    mixed = said("holds", "reversed", "open", "holds")
    assert mixed.startswith("of 4 readings: holds in 2, reversed in 1, open in 1")
    assert mixed.endswith("; always with “a”, “d”; never with “b”.")


@pytest.mark.parametrize(("last", "words"), [(100.0, "falls with μ"), (400.0, "rises with μ")])
def test_a_loss_that_moves_without_learning_says_so(last: float, words: str) -> None:
    """Collapsed at both ends of mu at the largest beta alone, where the distortion is planted; the
    next one collapsed at one end, and is not compared.
    """
    made = dataset()
    top = made["beta"] + 0.01 * made["mu"] + 0 * made["seed"] > 8
    level = xr.DataArray([300.0, 0.0, 0.0, last], dims="mu")
    planted = made.assign(
        status=xr.where(top, "collapsed", "ok").transpose("mu", "beta", "seed"),
        distortion=xr.where(top, level, 7.0).transpose("mu", "beta", "seed"),
    )
    first, second = answer.losses_in_words({"fixed-analytic-0.25": planted})
    assert f"distortion of 300 nats at μ = 0 and {last:.0f} at μ = 3" in first
    assert words in first
    assert "contains β times the KL" in second
    alive = planted.assign(status=planted["status"].where(~top, "ok"))
    assert answer.losses_in_words({"fixed-analytic-0.25": alive}) == [second]


@pytest.mark.parametrize(
    ("along_mu", "along_beta", "expected"),
    [(1, 1, 1.0), (-1, -1, 1.0), (1, -1, -1.0), (1, 0, 0.0)],
)
def test_diagonality_is_the_weaker_trend_with_the_sign_of_both(
    along_mu: int, along_beta: int, expected: float
) -> None:
    mu, beta = np.arange(3.0), np.arange(4.0)
    # The larger slope along one axis decides no ties along the other.
    plane = along_mu * mu[:, None] + 10 * along_beta * beta[None, :]
    assert claims.diagonality(plane, mu, beta) == pytest.approx(expected)


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
    assert inverse.Agreement("", "", "", value, value - 0.01, value + 0.01).word == word


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


def test_a_column_whose_boundary_is_beyond_the_grid_of_beta_says_nothing() -> None:
    made = with_boundary(dataset(), 0)
    made["critical_beta"][0] = 100.0
    made["critical_beta"][1] = 0.01
    assert np.isnan(boundary_steps(made)[:2]).all()
    assert (boundary_steps(made)[2:] == 0).all()


def test_a_verdict_says_when_seeds_disagree_or_there_is_one() -> None:
    made = dataset()
    sign = xr.DataArray([1.0, -1.0, 1.0], dims="seed")
    mixed = ((made["mu"] + 0 * made["beta"]) * sign + 0 * made["step"]).transpose(
        "mu", "beta", "seed", "step"
    )
    claim, score = "loss rises with mu", "training loss"
    assert judged(made.assign(loss_curve=mixed), claim, score) == "open"
    assert judged(dataset(seeds=1), claim, score) == "one seed"


@pytest.mark.parametrize(("level", "word"), [(0.1121, "holds"), (0.04, "fails")])
def test_the_baselines_verdict_follows_the_data(level: float, word: str) -> None:
    made = dataset()
    wobble = xr.DataArray(np.linspace(-0.01, 0.01, 5), dims="baseline_seed")
    values = (made["baseline_probe_mse"] * 0 + level + wobble).transpose(
        *made["baseline_probe_mse"].dims
    )
    found = claims.verdicts({"untrained": made.assign(baseline_probe_mse=values)})
    words = {verdict.word for verdict in found if verdict.claim == claims.BASELINE}
    assert words == {word}


def test_controls_are_no_reading() -> None:
    made = dataset()
    found = claims.verdicts({"fixed-analytic-0.25": made, "linear": made})
    assert {verdict.arm for verdict in found} == {"fixed-analytic-0.25"}


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


def test_an_interval_is_spelt_with_its_sign() -> None:
    found = Interval(*(np.array(end) for end in (0.25, -0.5, 1.0)))
    assert spell(found) == "0.25 [−0.5 to 1]"
    assert spell(found, scale=100, sign=True) == "+25 [−50 to +100]"
    assert spell(interval([0.0]), sign=True) == "0"
    assert spell(interval([np.nan])) == "–"


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
