"""The measures of a stack, on models whose score is known beforehand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vaekit import evaluate, model
from vaekit.config import SweepConfig
from vaekit.data import grid_truth
from vaekit.estimators import gaussian_bias, limit
from vaekit.evaluate import evaluate_baseline, evaluate_stack
from vaekit.model import StackedVAE
from vaekit.theory import information_ceiling

MU, SEEDS = (0.0, 3.0), (0, 1)


def config(**changes: object) -> SweepConfig:
    small = {
        "mu": MU,
        "beta": (0.5, 4.0),
        "steps": 1,
        "hidden": (),
        "grid": 2,
        "tile": 3,
        "latents": 6,
        "decoder_output": "linear",
        "evaluation_draws": 3000,
    }
    return SweepConfig(**{**small, **changes})


def measure(vae: StackedVAE, setup: SweepConfig) -> dict[str, np.ndarray]:
    return evaluate_stack(vae, setup, mu=MU, seeds=SEEDS, betas=setup.beta)


def perfect(setup: SweepConfig, models: int = 4) -> StackedVAE:
    """Linear models whose first four latents are the tiles' means and whose decoder undoes that.

    Their posterior is narrow, and the latents to spare stay at the prior.
    """
    vae = StackedVAE.initial(setup, torch.zeros(models, dtype=torch.int64))
    vae.flat.zero_()
    (encoder, encoder_bias), (decoder, _) = vae.layers
    basis = torch.zeros(4, setup.pixels)
    pixel = torch.arange(setup.pixels)
    tile = pixel // 6 // 3 * 2 + pixel % 6 // 3
    basis[tile, pixel] = 1.0
    # Ten times the intensity: at mu = 3 its variance alone would not make a latent active.
    encoder[:, :, :4] = 10.0 * basis.T / 9.0
    decoder[:, :4] = basis / 10.0
    encoder_bias[:, 6:10] = -12.0
    return vae


def test_a_perfect_model_scores_perfectly() -> None:
    setup = config(noise_variance=1e-6)
    found = measure(perfect(setup), setup)
    assert found["status"].tolist() == ["ok"] * 4
    assert found["active_units"].tolist() == [4] * 4
    assert found["probe_mse"][:, 1, 0] == pytest.approx([0.0] * 4, abs=1e-6)
    assert found["probe_r2"][:, :, 0] == pytest.approx(np.ones((4, 2)), abs=1e-4)
    assert found["decode_mse"][:, 0] == pytest.approx([0.0] * 4, abs=1e-6)
    assert found["reconstruction_mse"] == pytest.approx([0.0] * 4, abs=1e-6)
    assert found["recovery_r2"] == pytest.approx([1.0] * 4, abs=1e-3)
    assert found["grid_recovery_r2"] == pytest.approx([1.0] * 4, abs=1e-4)


def test_a_collapsed_model_is_never_recovered() -> None:
    """Its truth -> code MSE is a perfect 0; everything that counts says nothing was kept."""
    setup = config()
    vae = perfect(setup)
    vae.flat.zero_()
    found = measure(vae, setup)
    assert found["status"].tolist() == ["collapsed"] * 4
    assert found["probe_mse"][:, 0, 0].tolist() == [0.0] * 4
    for name in ("recovery_r2", "grid_recovery_r2", "information", "rate", "active_units"):
        assert found[name].tolist() == [0.0] * 4, name
    assert found["canonical_correlation"].max() == 0.0
    levels = np.array(setup.test_levels)
    assert found["decode_mse"][:, 0] == pytest.approx([np.mean(levels**2)] * 4, rel=1e-5)


def test_a_whisper_of_a_code_is_collapsed_too() -> None:
    """Scaled to nothing, a code still fits exactly; its latents are inactive, so it recovers 0."""
    setup = config()
    vae = perfect(setup)
    vae.layers[0][0][:, :, :4] *= 1e-4
    found = measure(vae, setup)
    assert found["probe_r2"][0, 1, 0] > 0.99
    assert found["status"].tolist() == ["collapsed"] * 4
    assert found["recovery_r2"].tolist() == [0.0] * 4
    assert found["grid_recovery_r2"].tolist() == [0.0] * 4
    assert found["information"].tolist() == [0.0] * 4


def test_a_collapsed_model_is_not_saved_by_sampling_its_code() -> None:
    """A sample of a dead latent varies by 1; it is the mean that says whether a latent lives."""
    setup = config(code="sample")
    vae = perfect(setup)
    vae.flat.zero_()
    found = measure(vae, setup)
    assert found["status"].tolist() == ["collapsed"] * 4
    assert found["code_variance"].max() == 0.0
    for name in ("recovery_r2", "grid_recovery_r2", "information", "active_units"):
        assert found[name].tolist() == [0.0] * 4, name


def test_no_model_holds_more_than_the_ceiling() -> None:
    setup = config(latents=4, evaluation_draws=30_000)
    vae = StackedVAE.initial(setup, torch.zeros(4, dtype=torch.int64))
    vae.flat.zero_()
    spread = perfect(config()).layers[0][0][:, :, :4]
    vae.layers[0][0][:, :, :4] = spread
    found = measure(vae, setup)
    for index, mu in enumerate(np.repeat(MU, 2)):
        ceiling = information_ceiling(mu, factors=4, tile=3)
        assert 0.5 * ceiling < found["information"][index] <= ceiling * 1.01


def test_rate_distortion_and_objective_belong_together() -> None:
    setup = config()
    found = measure(perfect(setup), setup)
    beta = np.array([0.5, 4.0, 0.5, 4.0])
    np.testing.assert_allclose(found["rate"], found["kl"].sum(-1))
    np.testing.assert_allclose(found["elbo"], -(found["rate"] + found["distortion"]))
    np.testing.assert_allclose(found["objective"], found["distortion"] + beta * found["rate"])
    # Decoding a tile's mean leaves the noise less the one ninth that the mean took in.
    noise = 0.5 * setup.pixels * (np.log(2 * np.pi * 0.25) + 8 / 9)
    assert found["distortion"] == pytest.approx([noise] * 4, rel=0.01)
    assert found["kl"][:, 4:].max() == 0.0


def test_the_rate_is_information_and_the_aggregates_kl() -> None:
    """At a code of ten times the intensities the aggregate is far from the prior, and says so."""
    setup = config()
    found = measure(perfect(setup), setup)
    assert (found["aggregate_kl"] <= found["rate"]).all()
    # Four latents of mean ten times E[s] and little variance; the two to spare are at the prior.
    mean = 10 * np.array([0.5, 0.5, 0.9, 0.9])
    assert (found["aggregate_kl"] > 0.5 * 4 * 0.9 * mean**2).all()
    vae = perfect(setup)
    vae.flat.zero_()
    assert measure(vae, setup)["aggregate_kl"] == pytest.approx([0.0] * 4, abs=1e-12)


def test_noise_recovers_nothing_on_draws_that_the_probe_was_not_fitted_on() -> None:
    """Forty latents of noise and sixty draws to fit: on those it was fitted on, noise recovers."""
    setup = config(latents=40, evaluation_draws=120)
    vae = StackedVAE.initial(setup, torch.arange(4))
    vae.flat.zero_()
    # Differences of neighbouring pixels of a tile: the pixels' noise, without the truth.
    pixel = 2 * torch.arange(18) // 6 * 6 + 3 * (torch.arange(18) % 2)
    weight = vae.layers[0][0]
    weight[:, pixel[:18], torch.arange(18)] = 1.0
    weight[:, pixel[:18] + 1, torch.arange(18)] = -1.0
    weight[:, :, 18:40] = weight[:, :, :18].repeat(1, 1, 2)[:, :, :22].roll(1, dims=1)
    found = measure(vae, setup)
    assert found["active_units"].min() >= 10
    assert found["recovery_r2"].max() < 0.1


@pytest.mark.parametrize("code", ["mean", "sample"])
def test_estimates_and_axis_scores_are_measured_where_they_are_asked_for(code: str) -> None:
    setup = config(estimators=("ksg", "gaussian"), axis_scores=("sap", "dci"), code=code)
    found = measure(perfect(setup), setup)
    names = evaluate.names_of_columns(setup)
    assert names["estimator"].tolist() == ["ksg", "gaussian"]
    assert names["information_limit"].tolist() == [limit("ksg", 3000, 8), np.inf]
    assert names["axis_metric"].tolist() == ["sap", "dci_disentanglement", "dci_completeness"]
    gaussian = found["information_estimate"][:, 1]
    # The dataset's own measure of it has the bias of so many draws.
    bias = float(gaussian_bias(3000, torch.tensor([4]), torch.tensor([4]))[0])
    assert gaussian == pytest.approx(found["information"] - bias, rel=1e-6)
    assert (found["information_estimate"][:, 0] > 0.3 * gaussian).all()
    assert found["axis_score"].min() > 0.1
    vae = perfect(setup)
    vae.flat.zero_()
    collapsed = measure(vae, setup)
    assert collapsed["information_estimate"].tolist() == [[0.0, 0.0]] * 4
    assert collapsed["axis_score"].tolist() == [[0.0] * 3] * 4
    assert not evaluate.names_of_columns(config())
    assert not {"information_estimate", "axis_score"} & set(measure(vae, config()))


def test_a_model_that_is_not_finite_is_diverged_and_disturbs_nobody() -> None:
    setup = config(hidden=(16,))
    clean = StackedVAE.initial(setup, torch.arange(4))
    broken = StackedVAE(clean.architecture, clean.flat.clone())
    broken.layers[1][0][2, 0, 0] = torch.nan
    expected, found = measure(clean, setup), measure(broken, setup)
    assert found["status"][2] == "diverged"
    assert found["active_units"][2] == 0
    others = [0, 1, 3]
    for name, values in found.items():
        np.testing.assert_array_equal(values[others], expected[name][others], err_msg=name)
        if values.dtype.kind == "f":
            assert np.isnan(values[2]).all(), name


@pytest.mark.parametrize("code", ["mean", "sample"])
@pytest.mark.parametrize("overflow", ["code", "posterior", "grid"])
def test_a_model_that_overflows_is_diverged_and_disturbs_nobody(overflow: str, code: str) -> None:
    """Its parameters are finite, its codes or their variances are not; on the grid alone, too."""
    setup = config(hidden=(16,), code=code, estimators=("ksg", "gaussian"), axis_scores=("sap",))
    clean = StackedVAE.initial(setup, torch.arange(4))
    broken = StackedVAE(clean.architecture, clean.flat.clone())
    weight, bias = broken.layers[1]
    if overflow == "code":
        weight[2] *= 1e38
        bias[2] *= 1e38
    elif overflow == "posterior":
        bias[2, setup.latents :] = 800.0
    else:
        # A hidden unit that lives where the first pixel is below -10: never, but for this grid.
        broken.layers[0][0][2, :, 0] = 0.0
        broken.layers[0][0][2, 0, 0] = -1e25
        broken.layers[0][1][2, 0] = -1e26
        weight[2, 0] = 1e38
        setup = SweepConfig(
            **{**setup.model_dump(), "generator": "linear", "test_levels": (-20.0, 0.0)}
        )
    expected, found = measure(clean, setup), measure(broken, setup)
    assert found["status"].tolist() == ["ok", "ok", "diverged", "ok"]
    for name, values in found.items():
        np.testing.assert_array_equal(values[[0, 1, 3]], expected[name][[0, 1, 3]], err_msg=name)
        if values.dtype.kind == "f":
            assert np.isnan(values[2]).all(), name


@pytest.mark.parametrize("code", ["mean", "sample"])
def test_the_chunks_change_nothing_beyond_rounding(
    code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = config(hidden=(16,), code=code)
    vae = StackedVAE.initial(setup, torch.arange(4))
    whole = measure(vae, setup)
    monkeypatch.setitem(model.CHUNK_BYTES, "cpu", 4 * 4 * 36 * 37)
    pieces = measure(vae, setup)
    for name, values in whole.items():
        if values.dtype.kind == "f":
            np.testing.assert_allclose(pieces[name], values, rtol=1e-4, atol=1e-6, err_msg=name)


def test_a_sampled_code_is_noisier_than_its_mean() -> None:
    vae = StackedVAE.initial(config(hidden=(16,)), torch.arange(4))
    by_mean, by_sample = (
        measure(vae, config(hidden=(16,), code=code)) for code in ("mean", "sample")
    )
    assert (by_sample["probe_mse"][:, 1, 0] > 1.5 * by_mean["probe_mse"][:, 1, 0]).all()


def test_the_draws_were_never_trained_on_and_differ_between_streams() -> None:
    setup = config(hidden=(16,))
    vae = StackedVAE.initial(setup, torch.zeros(4, dtype=torch.int64))
    found = measure(vae, setup)
    assert found["distortion"][0] != found["distortion"][2]


def test_the_untrained_baseline_is_the_posts() -> None:
    """Untrained networks and 3 epochs of Adam: 0.106 to 0.126 around the post's 0.1121."""
    setup = SweepConfig(mu=(0.0,), beta=(1.0,), steps=1, baseline_seeds=6)
    found = evaluate_baseline(setup, torch.device("cpu"))
    mse = found["baseline_probe_mse"].mean(0)
    assert 0.106 <= mse[1, 1] <= 0.126
    assert mse[1, 0] == pytest.approx(0.038, abs=0.004)
    assert mse[0, 1] == pytest.approx(0.005, abs=0.003)
    assert mse[0, 0] < 5e-4
    variance = grid_truth(setup).var(dim=0, unbiased=False).mean().item()
    assert found["baseline_probe_r2"].mean(0)[1, 0] == pytest.approx(1 - mse[1, 0] / variance)


def test_the_untrained_recover_less_the_more_the_data_are_biased() -> None:
    """It is measured on each mu's own noisy draws, of which the first seed's are known."""
    setup = config(baseline_seeds=5, mu=(0.0, 2.0, 5.0), hidden=(16,))
    found = evaluate_baseline(setup, torch.device("cpu"))["baseline_recovery_r2"]
    assert found.shape == (3, 5)
    low, middle, high = found.mean(axis=1)
    assert 1 > low > middle > high > -0.05
    vae = StackedVAE.initial(setup, torch.arange(5))
    few = config(
        baseline_seeds=5,
        mu=(0.0,),
        beta=(1.0, 2.0, 3.0, 4.0, 5.0),
        hidden=(16,),
        evaluation_draws=2048,
    )
    # Untrained means vary too little to count as active; their size is nothing to a linear probe.
    vae.layers[len(vae.architecture.encoder) - 1][0][..., : setup.latents] *= 100.0
    same = evaluate_stack(vae, few, mu=(0.0,), seeds=(0,), betas=few.beta)
    assert (same["active_units"] == setup.latents).all()
    np.testing.assert_allclose(found[0], same["recovery_r2"], rtol=1e-4)
    # A trained model is compared on as many draws, whatever it is measured on.
    more = few.model_copy(update={"evaluation_draws": 8192})
    found = evaluate_stack(vae, more, mu=(0.0,), seeds=(0,), betas=few.beta)
    np.testing.assert_allclose(found["recovery_r2_few"], same["recovery_r2"], rtol=1e-4)
    assert not np.allclose(found["recovery_r2"], same["recovery_r2"], rtol=1e-4)


def test_the_untrained_are_read_by_samples_where_the_trained_are() -> None:
    """An untrained code is nearly all noise: its samples hold next to nothing of the truth."""
    betas = (1.0, 2.0, 3.0, 4.0)
    read = {"baseline_seeds": 4, "mu": (0.0,), "beta": betas, "evaluation_draws": 2048}
    found = {}
    for code in ("mean", "sample"):
        setup = config(**read, code=code)
        found[code] = evaluate_baseline(setup, torch.device("cpu"))["baseline_recovery_r2"][0]
    assert (found["sample"] < 0.5 * found["mean"]).all()


def test_no_baseline_is_an_empty_table() -> None:
    found = evaluate_baseline(config(baseline_seeds=0), torch.device("cpu"))
    assert found["baseline_probe_mse"].shape == (0, 2, 2)
    assert found["baseline_recovery_r2"].shape == (2, 0)
