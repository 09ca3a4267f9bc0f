"""The trained stack arrives where theory says: spectra, betas and variances drawn at random, the
grid's probes, and the boundary of collapse.

These train to the end, so they have a session of their own; `test_theory` holds the same closed
forms against each other in seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from linear import linear_config, population, train_linear
from vaekit import metrics
from vaekit.checkpoint import Array, Check
from vaekit.config import SweepConfig
from vaekit.evaluate import evaluate_stack
from vaekit.keeper import Keeper
from vaekit.machine import threads
from vaekit.model import StackedVAE
from vaekit.progress import Silent
from vaekit.stack import Stack
from vaekit.theory import (
    LinearSolution,
    critical_beta,
    grid_measures,
    linear_optimum,
    linear_solution,
)
from vaekit.train import train
from vaekit_kernels import render

pytestmark = pytest.mark.oracles
CPU = torch.device("cpu")
PIXELS, LATENTS, PROBLEMS = 16, 5, 12
VARIANCES = (0.1, 0.5, 2.0)
# What the last digits of float32 weights cost, relative to the objective.
ROUNDING = 1e-5


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Products this small only lose by being shared out."""
    with threads(1):
        yield


def problems(variance: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Covariances [M, P, P] and betas [M] drawn at random.

    A unit whose eigenvalue is the water level leaves its saddle at speed 0, so no number of steps
    decides it; and two directions of equal eigenvalue may rotate freely. So spectra with a leading
    eigenvalue within 20 % of the level, or of the next one, are drawn again.
    """
    rng = np.random.default_rng(int(variance * 1000))
    covariances, betas = [], []
    while len(betas) < PROBLEMS:
        beta = float(np.exp(rng.uniform(np.log(0.2), np.log(8.0))))
        spectrum = variance * np.exp(rng.normal(0.7, 1.2, PIXELS))
        leading = np.log(np.sort(spectrum)[::-1][: LATENTS + 1])
        level = np.log(beta * variance)
        if min(np.abs(leading[:-1] - level).min(), -np.diff(leading).max()) < 0.2:
            continue
        axes = np.linalg.qr(rng.normal(size=(PIXELS, PIXELS)))[0]
        covariances.append((axes * spectrum) @ axes.T)
        betas.append(beta)
    return torch.tensor(np.array(covariances)), torch.tensor(betas)


@dataclass(frozen=True)
class Trained:
    """A problem's exact solution, and what training found: expectations over the population."""

    oracle: LinearSolution
    objective: float
    kl: np.ndarray
    code_variance: np.ndarray
    decoder: np.ndarray
    encoder: np.ndarray


@pytest.fixture(scope="module", params=VARIANCES)
def trained(request: pytest.FixtureRequest) -> list[Trained]:
    config = linear_config(decoder_variance=request.param)
    covariances, betas = problems(request.param)
    vae = train_linear(config, covariances, betas)
    found = []
    for model, (covariance, beta) in enumerate(zip(covariances, betas.tolist(), strict=True)):
        oracle = linear_solution(
            covariance.numpy(), beta=beta, decoder_variance=request.param, latents=LATENTS
        )
        decoder = vae.layers[1][0][model].T.double().numpy()
        encoder = vae.layers[0][0][model, :, :LATENTS].T.double().numpy()
        measured = population(vae, config, covariance, model, beta)
        found.append(Trained(oracle, *measured, decoder, encoder))
    return found


def test_training_reaches_the_oracles_objective(trained: list[Trained]) -> None:
    for run in trained:
        best = run.oracle.optimum.objective
        assert best - ROUNDING * abs(best) <= run.objective <= best + 1e-3 * abs(best)


def test_exactly_the_oracles_units_are_active(trained: list[Trained]) -> None:
    for run in trained:
        active = metrics.active(torch.from_numpy(run.code_variance))
        assert int(active.sum()) == run.oracle.optimum.active_units
    # Problems that are all alike would show little.
    assert len({run.oracle.optimum.active_units for run in trained}) > 1


def test_every_units_kl_is_the_oracles(trained: list[Trained]) -> None:
    for run in trained:
        assert np.sort(run.kl)[::-1] == pytest.approx(run.oracle.optimum.kl, abs=0.01)


def test_the_weights_are_the_oracles_up_to_rotation(trained: list[Trained]) -> None:
    """W W^T and W V do not see how latents are turned, ordered or signed.

    They err by the root of what the objective errs by: 2e-5 of it is some 1 % of a weight.
    """
    for run in trained:
        for found, exact in (
            (run.decoder @ run.decoder.T, run.oracle.decoder @ run.oracle.decoder.T),
            (run.decoder @ run.encoder, run.oracle.decoder @ run.oracle.encoder),
        ):
            assert found == pytest.approx(exact, abs=0.03 * max(1.0, np.abs(exact).max()))


def test_the_learned_variance_is_the_best_to_train_with() -> None:
    """The trained objective is least there, and the error per pixel is the variance itself."""
    covariances, betas = problems(0.5)
    covariance, beta = covariances[:1], float(betas[0])
    spectrum = np.linalg.eigvalsh(covariance[0].numpy())
    learned = linear_optimum(spectrum, beta=beta, decoder_variance=None, latents=LATENTS)
    objectives = []
    for factor in (0.8, 1.0, 1.25):
        config = linear_config(decoder_variance=factor * learned.decoder_variance, steps=6000)
        vae = train_linear(config, covariance, betas[:1])
        objectives.append(population(vae, config, covariance[0], 0, beta)[0])
        if factor == 1.0:
            assert objectives[-1] == pytest.approx(learned.objective, rel=1e-3)
    assert objectives[1] < min(objectives[0], objectives[2])
    assert learned.squared_error / PIXELS == pytest.approx(learned.decoder_variance)


GRID_MU, GRID_BETA = (0.0, 3.0), (0.5, 4.0, 20.0, 60.0)


@pytest.fixture(scope="module")
def grid_stack() -> tuple[SweepConfig, StackedVAE]:
    """Linear VAEs with a latent to spare, on the linear grid at two mu."""
    config = linear_config(
        mu=GRID_MU,
        beta=GRID_BETA,
        grid=2,
        tile=3,
        decoder_variance=0.25,
        generator="linear",
        # More levels than the post's three: a sampled code is then measured on 2,401 images.
        test_levels=tuple(index / 8 for index in range(1, 8)),
        evaluation_draws=65_536,
    )
    betas = torch.tensor(GRID_BETA * 2)
    means = torch.tensor(GRID_MU).repeat_interleave(len(GRID_BETA))
    tiles = render(torch.eye(4, dtype=torch.float64), grid=2, tile=3)
    covariance = tiles.T @ tiles + 0.25 * torch.eye(config.pixels)
    return config, train_linear(config, covariance.expand(8, -1, -1), betas, means)


@pytest.mark.parametrize("code", ["mean", "sample"])
def test_every_probe_reads_what_theory_says(
    grid_stack: tuple[SweepConfig, StackedVAE], code: str
) -> None:
    """Sampling noise: 65,536 draws leave some 0.002 of a correlation, 2,401 images some 0.02."""
    setup, vae = grid_stack
    config = SweepConfig(**{**setup.model_dump(), "code": code})
    found = evaluate_stack(vae, config, mu=GRID_MU, seeds=(0, 0), betas=GRID_BETA)
    cells = [(mu, beta) for mu in GRID_MU for beta in GRID_BETA]
    for index, (mu, beta) in enumerate(cells):
        exact = grid_measures(
            mu,
            config.test_levels,
            beta=beta,
            decoder_variance=config.decoder_variance,
            latents=config.latents,
            grid=config.grid,
            tile=config.tile,
            noise_variance=config.noise_variance,
            code=config.code,
        )

        def near(value: float, absolute: float) -> object:
            return pytest.approx(value, rel=0.01, abs=absolute)

        mse, r2 = found["probe_mse"][index, :, 0], found["probe_r2"][index, :, 0]
        assert found["active_units"][index] == exact.optimum.active_units
        assert found["objective"][index] == near(exact.optimum.objective, 0.1)
        assert found["elbo"][index] == near(exact.optimum.elbo, 0.1)
        assert found["rate"][index] == near(exact.optimum.rate, 0.01)
        assert found["recovery_r2"][index] == near(exact.recovery_r2, 0.003)
        assert found["information"][index] == near(exact.information, 0.01)
        rho = found["canonical_correlation"][index, :4]
        assert rho == near(exact.canonical_correlation, 0.005)
        assert mse[0] == near(exact.truth_to_code_mse, 0.02 if code == "sample" else 1e-4)
        assert found["grid_recovery_r2"][index] == near(exact.code_to_truth_r2, 0.02)
        reach = 0.02 * exact.constant_mse if code == "sample" else 1e-3
        assert found["decode_mse"][index, 0] == near(exact.decode_mse, reach)
        if exact.optimum.active_units:
            assert r2[0] == near(exact.truth_to_code_r2, 0.02)
            assert mse[1] == near(exact.code_to_truth_mse, 2e-3)


def test_mu_has_no_effect_on_the_linear_grid(grid_stack: tuple[SweepConfig, StackedVAE]) -> None:
    """A shift of the data is absorbed by biases: the two mu saw the same noise and end alike."""
    config, vae = grid_stack
    found = evaluate_stack(vae, config, mu=GRID_MU, seeds=(0, 0), betas=GRID_BETA)
    assert found["active_units"][:4].tolist() == found["active_units"][4:].tolist()
    assert np.sort(found["kl"][:4]) == pytest.approx(np.sort(found["kl"][4:]), abs=0.01)
    assert found["recovery_r2"][:4] == pytest.approx(found["recovery_r2"][4:], abs=0.003)
    # The draws are each mu's own: 65,536 of them, each of up to 50 nats' spread when collapsed.
    assert found["objective"][:4] == pytest.approx(found["objective"][4:], abs=4 * 50 / 256)


class Cooling(Keeper):
    """Keeps a training in memory, and hands it back with a tenth of its learning rate."""

    kept: tuple[int, dict[str, Array]] | None = None

    def load(self, stack: Stack, check: Check) -> tuple[int, dict[str, Array]] | None:
        del stack, check
        return self.kept

    def save(self, stack: Stack, step: int, tensors: Callable[[], Mapping[str, Tensor]]) -> None:
        del stack
        arrays = {name: tensor.numpy() for name, tensor in tensors().items()}
        self.kept = step, {**arrays, "learning_rate": 0.1 * arrays["learning_rate"]}


def test_the_trainer_itself_reaches_the_linear_optimum() -> None:
    """End to end, on the grid's own images, which are Gaussian with a known covariance.

    At a constant rate Adam hovers above the optimum, at 3e-3 by 2e-3 of it and at a tenth of the
    rate by a tenth of that: so the training is taken up twice, each time at a tenth.
    """
    config = linear_config(
        beta=GRID_BETA,
        batch=256,
        learning_rate=3e-3,
        grid=2,
        tile=3,
        generator="linear",
        evaluation_draws=8192,
    )
    stack, keeper = Stack(mu=config.mu, seeds=(0,), beta=config.beta), Cooling()
    for steps in (6000, 9000, 10_000):
        stage = SweepConfig(**{**config.model_dump(), "steps": steps})
        vae = train(stage, stack, CPU, Silent(), keeper).vae
    found = evaluate_stack(vae, config, mu=stack.mu, seeds=stack.seeds, betas=stack.beta)
    tiles = render(torch.eye(4, dtype=torch.float64), grid=2, tile=3)
    covariance = tiles.T @ tiles + 0.25 * torch.eye(config.pixels)
    for index, beta in enumerate(config.beta):
        oracle = linear_optimum(
            torch.linalg.eigvalsh(covariance), beta=beta, decoder_variance=0.25, latents=5
        )
        objective, kl, _ = population(vae, config, covariance, index, beta)
        assert found["active_units"][index] == oracle.active_units == (5, 4, 4, 0)[index]
        assert oracle.objective < objective < oracle.objective * (1 + 1e-3)
        assert np.sort(kl)[::-1] == pytest.approx(oracle.kl, abs=0.01)


@pytest.mark.parametrize(
    ("likelihood", "mu"),
    [("gaussian", 0.0), ("gaussian", 2.0), ("bernoulli", 0.0), ("bernoulli", 2.0)],
)
def test_units_live_below_the_critical_beta_and_die_above_it(likelihood: str, mu: float) -> None:
    """On the sigmoid grid, with a linear encoder: the collapsed state is left on one side only."""
    critical = critical_beta(mu, tile=3, likelihood=likelihood)
    config = linear_config(
        mu=(mu,),
        beta=(0.75 * critical, 1.25 * critical),
        steps=6000,
        batch=256,
        learning_rate=3e-3,
        grid=2,
        tile=3,
        latents=4,
        decoder_variance=0.25,
        decoder_output="sigmoid",
        likelihood=likelihood,
        evaluation_draws=8192,
    )
    stack = Stack(mu=config.mu, seeds=(0,), beta=config.beta)
    vae = train(config, stack, CPU, Silent()).vae
    found = evaluate_stack(vae, config, mu=stack.mu, seeds=stack.seeds, betas=stack.beta)
    assert found["active_units"].tolist() == [4, 0]
