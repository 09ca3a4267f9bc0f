"""Axis-dependent scores, on codes whose score is known: identity, rotation, noise, nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vaekit.axis_scores import VOTES, axis_scores, dci, factorvae, higgins, labels, mig, sap
from vaekit.config import SweepConfig
from vaekit.data import draw
from vaekit.model import StackedVAE

RNG = np.random.default_rng(3)
TRUTH = RNG.standard_normal((3000, 4))
TURN = np.linalg.qr(np.random.default_rng(11).standard_normal((4, 4)))[0]
# Information of a truth and itself plus noise of a tenth of its variance.
NOISY = TRUTH + 0.1**0.5 * RNG.standard_normal(TRUTH.shape)
CEILING = 0.5 * np.log1p(10.0)


def test_an_aligned_code_scores_high_and_a_turned_one_low() -> None:
    """Both hold the same: this is what makes the scores axis-dependent."""
    aligned, turned = NOISY[:, [2, 0, 3, 1]] * [5.0, -1.0, 0.2, 1.0], NOISY @ TURN
    assert mig(TRUTH, aligned, CEILING) == pytest.approx(1.0, abs=0.06)
    assert sap(TRUTH, aligned) == pytest.approx(1 / 1.1, abs=0.03)
    assert dci(TRUTH, aligned, 4) == pytest.approx((1.0, 1.0), abs=0.02)
    assert mig(TRUTH, turned, CEILING) < 0.3
    assert sap(TRUTH, turned) < 0.45
    assert max(dci(TRUTH, turned, 4)) < 0.6


def test_a_truth_in_two_latents_has_no_gap() -> None:
    doubled = np.column_stack([NOISY, NOISY])
    assert sap(TRUTH, doubled) == pytest.approx(0.0, abs=1e-9)
    assert mig(TRUTH, doubled, CEILING) == pytest.approx(0.0, abs=0.02)


def test_noise_scores_nothing() -> None:
    noise = np.random.default_rng(5).standard_normal(TRUTH.shape)
    assert sap(TRUTH, noise) < 0.01
    assert mig(TRUTH, noise, CEILING) < 0.03
    assert dci(TRUTH, noise, 4) == (0.0, 0.0)


def test_noise_scores_nothing_where_images_hold_next_to_nothing() -> None:
    """At mu = 5 an image holds 0.017 nats about a truth, less than KSG errs by."""
    noise = np.random.default_rng(5).standard_normal(TRUTH.shape)
    assert mig(TRUTH, noise, 0.0168) == 0.0
    assert mig(TRUTH, noise, 0.0) == 0.0
    # No latent holds more than the image does.
    assert mig(TRUTH, NOISY, 0.0168) == 1.0


def test_few_rows_give_noise_no_weight_either() -> None:
    noise = np.random.default_rng(5).standard_normal((400, 4))
    assert dci(TRUTH[:400], noise, 4) == (0.0, 0.0)


def test_completeness_is_to_the_base_of_all_latents() -> None:
    """Each truth is in two of twelve latents, four of which do not vary: 1 - ln 2 / ln 12."""
    rng = np.random.default_rng(8)
    twice = np.column_stack([TRUTH, TRUTH]) + 0.5 * rng.standard_normal((len(TRUTH), 8))
    disentangled, complete = dci(TRUTH, twice, 12)
    assert disentangled == pytest.approx(1.0, abs=0.02)
    assert complete == pytest.approx(1 - np.log(2) / np.log(12), abs=0.01)


def test_a_single_truth_is_always_recognised() -> None:
    batches = np.random.default_rng(4).standard_normal((30, 8, 3))
    only = np.zeros(30, dtype=np.int64)
    assert higgins(batches, only) == factorvae(batches, only) == 1.0
    assert dci(TRUTH[:, :1], NOISY[:, :1], 1) == (1.0, 1.0)


def held_batches(code: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes of batches that share one truth, through a linear map [4, L]; and which truth."""
    rng = np.random.default_rng(1)
    factor = rng.integers(0, 4, 300)
    z = rng.standard_normal((300, 64, 4))
    z[np.arange(300), :, factor] = rng.standard_normal((300, 1))
    return z @ code, factor


@pytest.mark.parametrize("score", [higgins, factorvae])
def test_interventions_are_recognised_along_the_axes(score: object) -> None:
    assert score(*held_batches(np.eye(4))) == 1.0
    batches, factor = held_batches(np.eye(4))
    chance = score(np.random.default_rng(2).standard_normal(batches.shape), factor)
    assert chance < 0.45
    assert score(batches[..., :1], factor) < 0.75


def test_factorvae_does_not_recognise_a_turned_code() -> None:
    assert factorvae(*held_batches(TURN)) < factorvae(*held_batches(np.eye(4))) - 0.1


def config(**changes: object) -> SweepConfig:
    small = {
        "mu": (0.0, 1.0),
        "beta": (0.5,),
        "steps": 1,
        "hidden": (),
        "grid": 2,
        "tile": 2,
        "latents": 5,
        "noise_variance": 0.01,
        "generator": "linear",
        "decoder_output": "linear",
        "axis_scores": ("mig", "sap", "dci", "higgins", "factorvae"),
    }
    return SweepConfig(**{**small, **changes})


def test_a_stacks_scores_are_those_of_its_models() -> None:
    """Model 0 has the tiles' means as its code, model 1 nothing: inactive latents do not count."""
    setup = config()
    vae = StackedVAE.initial(setup, torch.zeros(2, dtype=torch.int64))
    vae.flat.zero_()
    pixel = torch.arange(16)
    basis = torch.zeros(16, 5)
    basis[pixel, pixel // 4 // 2 * 2 + pixel % 4 // 2] = 0.25
    vae.layers[0][0][0, :, :5] = basis
    mu, seeds = torch.tensor(setup.mu), torch.zeros(2, dtype=torch.int64)
    images, z = draw(setup, mu, seeds, 0, batch=2000, purpose="evaluate")
    code = vae.encode(images)[0]
    active = code.var(dim=1) > 0.01
    assert active.sum(-1).tolist() == [4, 0]
    found = axis_scores(vae, setup, mu, seeds, z, code, active)
    assert found.shape == (2, len(labels(setup.axis_scores))) == (2, 6)
    assert found[1].tolist() == [0.0] * 6
    assert found[0, 1:].min() > 0.95
    # KSG falls short of three nats from a thousand rows.
    assert found[0, 0] > 0.8
    assert 2 * VOTES // 3 % 10 == 0
    alone = axis_scores(
        vae.slot(0), config(mu=(0.0,)), mu[:1], seeds[:1], z[:1], code[:1], active[:1]
    )
    torch.testing.assert_close(alone[0], found[0])
