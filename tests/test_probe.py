"""Probes at their extremes: identity, rotation, nothing, noise, and scale."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vaekit.probe import fit_adam, fit_exact, moments_of, mse_and_r2


def truth(rows: int = 2000, factors: int = 4) -> torch.Tensor:
    return torch.rand(rows, factors, generator=torch.Generator().manual_seed(0))


def normals(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def score(inputs: torch.Tensor, targets: torch.Tensor) -> tuple[float, float]:
    mse, r2 = mse_and_r2(fit_exact(inputs, targets), inputs, targets)
    return float(mse[0]), float(r2[0])


def test_identity_and_rotation_are_recovered_exactly() -> None:
    s = truth()
    rotation = torch.linalg.qr(normals(4, 4))[0]
    for code in (s[None], (s @ rotation)[None], (3e-4 * s @ rotation + 1.0)[None]):
        assert score(code, s) == pytest.approx((0.0, 1.0), abs=1e-4)
        assert score(s, code)[1] == pytest.approx(1.0, abs=1e-4)


def test_a_code_of_zeros_predicts_the_mean() -> None:
    s = truth()
    mse, r2 = score(torch.zeros(1, len(s), 3), s)
    assert r2 == pytest.approx(0.0, abs=1e-6)
    assert mse == pytest.approx(s.var(dim=0, unbiased=False).mean().item(), rel=1e-5)


def test_predicting_a_code_of_zeros_looks_perfect_and_explains_nothing() -> None:
    """The post's reading: total collapse has MSE 0. Its R2 is 0: nothing was there to explain."""
    assert score(truth(), torch.zeros(1, 2000, 3)) == (0.0, 0.0)


def test_a_shuffled_code_explains_nothing() -> None:
    s = truth()
    order = torch.randperm(len(s), generator=torch.Generator().manual_seed(2))
    _, r2 = score(s[order][None], s)
    assert 0.0 <= r2 < 0.01


def test_one_unit_that_sums_the_factors_recovers_one_factors_worth() -> None:
    s = normals(50_000, 4)
    code = s.sum(-1, keepdim=True)[None]
    assert score(code, s)[1] == pytest.approx(1 / 4, abs=0.01)
    assert score(s, code)[1] == pytest.approx(1.0, abs=1e-5)


def test_exact_fit_is_numpys_least_squares_for_every_model() -> None:
    x, y = normals(3, 500, 5), normals(3, 500, 2, seed=3)
    y = y + x[..., :2] * torch.tensor([1.0, 10.0, 100.0])[:, None, None]
    probe = fit_exact(x, y)
    for index in range(3):
        columns = np.column_stack([x[index].double(), np.ones(500)])
        expected, *_ = np.linalg.lstsq(columns, y[index].double().numpy(), rcond=None)
        np.testing.assert_allclose(probe.weight[index], expected[:-1], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(probe.bias[index], expected[-1], rtol=1e-4, atol=1e-4)


def test_repeated_columns_do_no_harm() -> None:
    s = truth()
    code = torch.cat([s, s, torch.zeros(len(s), 1)], dim=-1)[None]
    mse, r2 = score(code, s)
    assert (mse, r2) == pytest.approx((0.0, 1.0), abs=1e-5)


def test_r2_is_pooled_over_outputs() -> None:
    """1 - (sum of squared errors) / (sum of variances): a small output counts for little."""
    y = torch.cat([10 * normals(4000, 1), 0.1 * normals(4000, 1, seed=5)], dim=-1)
    assert score(y[None, :, 1:], y)[1] < 0.01
    assert score(y[None, :, :1], y)[1] > 0.99


def test_scores_do_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several chunks with a rest give what one gives, and a constant target still has no spread."""
    x, y = normals(2, 1000, 4), 1e3 + normals(2, 1000, 3, seed=1)
    y[1] = 0.1
    probe = fit_exact(x, y)
    error = (probe(x).double() - y).square().mean(dim=(1, 2))
    spread = y.double().var(dim=1, unbiased=False).mean(dim=1)
    monkeypatch.setattr("vaekit.probe.CHUNK_ROWS", 300)
    mse, r2 = mse_and_r2(probe, x, y)
    torch.testing.assert_close(mse, error, rtol=1e-12, atol=0.0)
    torch.testing.assert_close(r2[0], 1 - error[0] / spread[0], rtol=1e-9, atol=1e-9)
    assert r2[1] == 0.0


@pytest.mark.parametrize("chunk", [1, 7, 300, 5000])
def test_moments_do_not_depend_on_the_chunks(chunk: int) -> None:
    x = 1e4 + normals(2, 1000, 3)
    moments = moments_of(x, chunk=chunk)
    torch.testing.assert_close(moments.mean, x.double().mean(1), rtol=1e-9, atol=1e-9)
    expected = torch.stack([torch.cov(model.double().T, correction=0) for model in x])
    torch.testing.assert_close(moments.covariance, expected, rtol=1e-7, atol=1e-9)


def test_adam_converges_to_the_exact_fit_given_time() -> None:
    s = truth(512)
    code = (s @ normals(4, 4))[None]
    seeds = torch.tensor([0])
    exact = score(code, s)[0]
    short, _ = mse_and_r2(fit_adam(code, s, seeds), code, s)
    long, _ = mse_and_r2(fit_adam(code, s, seeds, epochs=150, learning_rate=3e-2), code, s)
    assert exact <= float(long[0]) < 1e-3 < 0.05 < float(short[0])


def test_adam_is_torchs_linear_layer_and_optimiser() -> None:
    """One model, one batch an epoch: the same parameters as nn.Linear trained by torch.optim."""
    s = truth(64)
    code = (s @ normals(4, 3))[None]
    seeds = torch.tensor([5])
    start = fit_adam(code, s, seeds, epochs=0, batch=64)
    linear = torch.nn.Linear(3, 4)
    linear.weight.data.copy_(start.weight[0].T)
    linear.bias.data.copy_(start.bias[0])
    assert linear.weight.abs().max() <= 3**-0.5
    adam = torch.optim.Adam(linear.parameters(), lr=1e-3)
    for _ in range(5):
        adam.zero_grad()
        torch.nn.functional.mse_loss(linear(code[0]), s).backward()
        adam.step()
    trained = fit_adam(code, s, seeds, epochs=5, batch=64)
    torch.testing.assert_close(trained.weight[0], linear.weight.T, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(trained.bias[0], linear.bias, rtol=1e-5, atol=1e-6)


def test_adam_does_not_see_the_seeds_of_the_neighbours() -> None:
    """The order of the rows is one for all: it may not be that of the first model in the stack."""
    s = truth(400)
    codes = normals(2, 400, 5)
    both = fit_adam(codes, s, torch.tensor([3, 8]))
    alone = fit_adam(codes[1:], s, torch.tensor([8]))
    torch.testing.assert_close(both.weight[1], alone.weight[0], rtol=1e-5, atol=1e-6)


def test_adam_gives_each_model_what_it_gets_alone() -> None:
    s = truth(300)
    codes = normals(3, 300, 5)
    seeds = torch.tensor([1, 2, 3])
    together = fit_adam(codes, s, seeds)
    again = fit_adam(codes, s, seeds)
    assert torch.equal(together.weight, again.weight)
    same_order = fit_adam(codes[:2], s, seeds[:2])
    torch.testing.assert_close(together.weight[:2], same_order.weight, rtol=1e-5, atol=1e-7)
