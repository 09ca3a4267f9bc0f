"""Estimators of information, on channels whose information is known."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
import torch
from scipy import special

from vaekit.estimators import (
    ESTIMATORS,
    Estimate,
    Estimator,
    critic,
    estimate,
    gaussian_bias,
    limit,
)
from vaekit.estimators.channels import (
    Channel,
    fold_channel,
    gaussian_channel,
    league,
    tile_channel,
)
from vaekit.estimators.critic import infonce, mine
from vaekit.estimators.neighbours import NOISE, ksg, largest

SEEDS = torch.arange(2)


def draws(channel: Channel, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two independent sets of draws, as two models: x [2, N, F] and y [2, N, L]."""
    rng = np.random.default_rng(7)
    pairs = [channel.draw(rng, rows) for _ in range(2)]
    x, y = (torch.tensor(np.array([pair[side] for pair in pairs])) for side in (0, 1))
    return x, y


@cache
def found(name: Estimator, channel: Channel, rows: int = 2048) -> Estimate:
    return estimate(name, *draws(channel, rows), SEEDS)


@cache
def known(what: str) -> Channel:
    """The channels of these tests, each made once so that `found` can remember it."""
    return {
        "nothing": gaussian_channel(1, 0.0),
        "a nat": gaussian_channel(1, 1.0),
        "ten nats": gaussian_channel(9, 10.0),
        "a tile": tile_channel(0.0, 1),
        "a fold": fold_channel(),
    }[what]


# In nats. The spread of 2,048 draws is 1 / sqrt(2048) = 0.022 times a density ratio of order 1, and
# a critic is scored on a quarter of them, so 0.044: four of those above. A critic may fall short.
SHORT, OVER = {"gaussian": 0.09, "ksg": 0.09, "mine": 0.25, "infonce": 0.25}, 0.18


@pytest.mark.parametrize("what", ["nothing", "a nat", "a tile"])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_known_channel_has_its_information(name: Estimator, what: str) -> None:
    """One tile at mu = 0 has 1.1 nats by quadrature; a Gaussian measure sees a bit less of it."""
    channel = known(what)
    values = found(name, channel).nats
    assert channel.nats - SHORT[name] < values.min() <= values.max() < channel.nats + OVER


@pytest.mark.parametrize("name", ["ksg", "mine", "infonce"])
def test_what_correlation_cannot_see_is_seen(name: Estimator) -> None:
    channel = known("a fold")
    assert found("gaussian", channel).nats.max() < 0.01
    values = found(name, channel).nats
    assert 1.0 < values.min() <= values.max() < channel.nats + OVER


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_code_that_does_not_vary_has_nothing(
    name: Estimator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(critic, "STEPS", 5)
    x, _ = draws(gaussian_channel(2, 1.0), 256)
    assert estimate(name, x, torch.full((2, 256, 3), 5.0), SEEDS).nats.tolist() == [0.0, 0.0]


def test_dead_columns_do_no_harm() -> None:
    x, y = draws(gaussian_channel(1, 1.0), 2048)
    wide = torch.cat([y, torch.zeros_like(y)], dim=-1)
    for name in ("gaussian", "ksg"):
        same = estimate(name, x, y, SEEDS).nats
        torch.testing.assert_close(estimate(name, x, wide, SEEDS).nats, same, rtol=1e-6, atol=1e-9)


def test_ksg_is_its_formula() -> None:
    """By all pairwise distances, on few draws: psi(k) + psi(N) - <psi(n_x + 1) + psi(n_y + 1)>."""
    x, y = (side[0].numpy() for side in draws(gaussian_channel(2, 1.5), 150))
    apart = [
        np.abs((side / side.std(0))[:, None] - (side / side.std(0))).max(-1) for side in (x, y)
    ]
    reach = np.sort(np.maximum(*apart), axis=1)[:, 3]
    inside = [(distance < reach[:, None]).sum(1) - 1 for distance in apart]
    exact = special.digamma(3) + special.digamma(150)
    exact -= np.mean([special.digamma(count + 1) for count in inside]) * 2
    assert ksg(x, y) == pytest.approx(exact, abs=1e-9)


def test_ksg_does_not_see_the_scale_of_a_column_and_survives_ties() -> None:
    x, y = (side[0].numpy() for side in draws(gaussian_channel(2, 2.0), 2048))
    assert ksg(x * 1e3 + 5.0, y * 1e-3) == pytest.approx(ksg(x, y), abs=1e-3)
    coin = np.random.default_rng(0).integers(0, 2, (2048, 1)).astype(float)
    assert math.isfinite(ksg(coin, coin))
    assert ksg(coin, np.ones((2048, 2))) == 0.0


def test_more_than_the_draws_support_says_so() -> None:
    """10 nats cannot be read from 1,024 draws, and whoever reads them is not believed."""
    bold = found("mine", known("ten nats"), rows=1024)
    assert bold.nats.max() > bold.limit == math.log(256) - 1
    assert not bold.supported.all()
    ksg_limit = found("ksg", known("a nat"), rows=1024).limit
    assert ksg_limit == pytest.approx(largest(1024) - 1) == pytest.approx(4.675, abs=1e-3)
    assert found("gaussian", known("ten nats"), rows=1024).limit == math.inf
    edge = Estimate(torch.tensor([2.9, 3.1]), limit=3.0)
    assert edge.supported.tolist() == [True, False]


def test_ksg_is_not_believed_where_its_neighbours_are_none() -> None:
    """Nine pairs in 1,024 draws: a third of ten nats is shown, and far less than the largest."""
    shy = found("ksg", known("ten nats"), rows=1024)
    assert shy.nats.max() < 4.0 < largest(1024) - 1
    assert shy.limit == 0.0 and not shy.supported.any()
    assert limit("ksg", 1024, 4) == limit("ksg", 1024, 2) > 4.0
    # More draws than a search takes are no help to it.
    assert limit("ksg", 10**6, 9) == 0.0


def test_the_gaussian_measure_of_nothing_is_nothing_on_average() -> None:
    """Nine independent pairs, 200 draws: about 81 / 400 nats before the bias is taken off.

    2 N I' is chi-squared of 81 degrees, so an estimate's deviation is sqrt(2 81) / 400 = 0.032.
    """
    rng = np.random.default_rng(3)
    x, y = (torch.tensor(rng.standard_normal((400, 200, 9))) for _ in range(2))
    seeds = torch.arange(400)
    error = 4 * 0.032 / 400**0.5
    assert estimate("gaussian", x, y, seeds).nats.mean().abs() < error
    bias = gaussian_bias(200, torch.tensor([9]), torch.tensor([9]))
    assert float(bias[0]) == pytest.approx(81 / 400, rel=0.1)
    # Whatever there is to be seen, and of the columns that vary alone.
    x[..., 1] = 0.0
    y[..., 5:] = 0.0
    linked = estimate("gaussian", x, y + 2.0 * x.flip(2) * (y != 0), seeds).nats
    exact = 0.5 * math.log(5.0) * 5
    assert linked.mean() == pytest.approx(exact, abs=4 * (5 * 0.8 / 200) ** 0.5 / 400**0.5)


def test_ksg_gives_no_more_than_its_largest_and_is_not_believed_near_it() -> None:
    """A code that is the truth itself holds infinitely much; twelve nats are shown as half."""
    x = np.random.default_rng(0).standard_normal((1024, 1))
    assert ksg(x, x) == pytest.approx(largest(1024)) == pytest.approx(5.6749, abs=1e-4)
    bold = estimate("ksg", *draws(gaussian_channel(1, 12.0), 1024), SEEDS)
    assert bold.nats.max() < 6.0
    assert not bold.supported.any()


def test_ksgs_noise_is_what_it_says() -> None:
    """400 estimates place a standard deviation to 3.5 %, and it moves by as much with N: twice."""
    rng = np.random.default_rng(2)
    found = [ksg(*rng.standard_normal((2, 200, 1))) for _ in range(400)]
    assert np.std(found) * 200**0.5 == pytest.approx(NOISE, rel=0.15)


def test_a_critic_is_scored_on_draws_that_it_was_not_trained_on() -> None:
    """Nine independent pairs and few draws: on its own training draws a critic sees nats here."""
    x, y = draws(gaussian_channel(9, 0.0), 512)
    for bound in (mine, infonce):
        options = {"batch": 64} if bound is infonce else {}
        assert bound(x, y, SEEDS, steps=300, **options).abs().max() < 0.25


@pytest.mark.parametrize("bound", [mine, infonce])
def test_a_critic_does_not_depend_on_its_neighbours(bound: object) -> None:
    x, y = draws(gaussian_channel(1, 1.0), 512)
    options = {"batch": 64} if bound is infonce else {}
    together = bound(x, y, SEEDS, steps=60, **options)
    alone = bound(x[1:], y[1:], SEEDS[1:], steps=60, **options)
    torch.testing.assert_close(together[1:], alone, rtol=1e-3, atol=1e-4)


def test_what_is_not_allowed_is_refused() -> None:
    x, y = draws(gaussian_channel(2, 1.0), 15)
    with pytest.raises(ValueError, match="got 'mime'; allowed: gaussian, ksg, mine, infonce"):
        estimate("mime", x, y, SEEDS)
    with pytest.raises(ValueError, match="got 15 draws; allowed: at least 16"):
        estimate("gaussian", x, y, SEEDS)


@pytest.mark.parametrize("channel", league(), ids=lambda channel: channel.name)
def test_the_leagues_channels_are_what_they_say(channel: Channel) -> None:
    """By an independent route: the density ratio of Gaussians, or a histogram of one dimension."""
    x, y = channel.draw(np.random.default_rng(1), 20_000)
    if channel.name.startswith("Gaussian"):
        joint = np.linalg.slogdet(np.cov(np.column_stack((x, y)).T))[1]
        apart = sum(np.linalg.slogdet(np.atleast_2d(np.cov(side.T)))[1] for side in (x, y))
        assert 0.5 * (apart - joint) == pytest.approx(channel.nats, abs=0.1)
        return
    counts = np.histogram2d(x[:, 0], y[:, 0], bins=30)[0] / len(x)
    product = counts.sum(1, keepdims=True) * counts.sum(0)
    seen = counts > 0
    binned = float((counts[seen] * np.log(counts[seen] / product[seen])).sum())
    # Bins lose some of the information, and 900 cells of 20,000 draws add up to 900 / 40,000.
    one = channel.nats / x.shape[1]
    assert 0.75 * one < binned < one + 0.03
