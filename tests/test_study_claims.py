"""The post's claims: verdicts that turn with the data, and what is counted of them."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from planted import dataset
from vaekit.study import answer, claims
from vaekit.study.statistics import interval


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


def test_a_statistic_that_is_nothing_but_residue_is_open() -> None:
    """Ranks that cancel to 1e-17 decide nothing, and a correlation next to nothing neither."""
    residue = interval(np.array([-1e-17, -2e-17]))
    assert claims.Verdict.of("", "", "", residue).word == "open"
    assert claims.Verdict.of("", "", "", interval(np.array([-0.05, -0.04]))).word == "reversed"
    assert claims.Correlation.of("", "", "", interval(np.array([-0.05, -0.04]))).word == "open"
    made = dataset()
    slope = made["mu"] + 0 * made["beta"] + 0 * made["seed"] + 0 * made["step"]
    kinds = {
        verdict.claim: type(verdict)
        for verdict in claims.verdicts({"fixed-analytic-0.25": made.assign(loss_curve=slope)})
    }
    # The low corner's gain is a share of the map and no correlation.
    assert [kind is claims.Correlation for kind in kinds.values()] == [
        True,
        True,
        False,
        True,
        True,
    ]


def test_a_seed_whose_models_all_diverged_is_left_out() -> None:
    made = dataset()
    rising = (made["mu"] + 0 * made["beta"] + 0 * made["seed"] + 0 * made["step"]).transpose(
        "mu", "beta", "seed", "step"
    )
    made = made.assign(loss_curve=rising)
    made["status"][:, :, 0] = "diverged"
    (found,) = (
        verdict
        for verdict in claims.verdicts({"fixed-analytic-0.25": made})
        if (verdict.claim, verdict.score) == ("loss rises with mu", "training loss")
    )
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)


def test_a_map_of_collapsed_models_is_called_one() -> None:
    """Fewer than five living cells a seed: what the map says is what collapse scores."""
    made = dataset()
    slope = (made["mu"] + made["beta"]) + 0 * made["seed"]
    probe = (20 + slope).expand_dims(direction=made["direction"], fit=made["fit"])
    made = made.assign(
        loss_curve=(slope + 0 * made["step"]).transpose("mu", "beta", "seed", "step"),
        probe_mse=probe.transpose(*made["probe_mse"].dims),
    )
    dead = made["beta"] + 10 * made["mu"] + 0 * made["seed"] > 6
    few = made.assign(status=xr.where(dead, "collapsed", "ok").transpose("mu", "beta", "seed"))
    score = "code → truth, exact, grid"
    found = [
        verdict
        for verdict in claims.verdicts({"fixed-analytic-0.25": few})
        if (verdict.claim, verdict.score)
        in ((claims.CLAIMS[3], score), ("loss rises with mu", "training loss"))
    ]
    assert [(v.living, v.collapsed) for v in found] == [(12, 60)] * 2
    # A loss is a loss, whether or not its model lives.
    assert [verdict.word for verdict in found] == ["holds", "too few living"]
    enough = few.assign(status=few["status"].where(made["beta"] > 0.5, "ok"))
    assert judged(enough, claims.CLAIMS[3], score) == "holds"
    # What is always so is so where there is anything to say.
    (holds,) = (
        verdict
        for verdict in claims.verdicts({"warmup-analytic-0.25": enough})
        if (verdict.claim, verdict.score) == (claims.CLAIMS[3], score)
    )
    both = answer.claims_in_words([found[1], holds])[0]
    assert both.endswith(f"; always with “{score}”, where enough models live.")
    sentence = answer.claims_in_words([found[1]])[0]
    assert sentence.endswith("open for too few living models in all 1 readings.")


@pytest.mark.parametrize(("r2", "said"), [(0.6, True), (0.05, False)])
def test_whom_the_exact_probe_flatters_is_said(r2: float, said: bool) -> None:
    made = dataset()
    dead = (made["beta"] + 0 * made["mu"] + 0 * made["seed"] > 8).transpose("mu", "beta", "seed")
    scores = xr.where(dead, r2, 0.9) + 0 * made["probe_r2"]
    made = made.assign(
        status=xr.where(dead, "collapsed", "ok"),
        probe_r2=scores.transpose(*made["probe_r2"].dims),
    )
    words = answer.collapse_in_words({"fixed-analytic-0.25": made})
    assert bool(words) == said
    if said:
        assert "gives 12 of 12 collapsed models an R² above 0.1 (up to 0.6)" in words[0]
