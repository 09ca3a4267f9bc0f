"""Which engine trains where, and blocks of steps that any engine trains alike."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

import vaekit
from equivalence import assert_equivalent
from vaekit.block import Replay, make_block
from vaekit.config import ConfigError, SweepConfig
from vaekit.data import draw
from vaekit.engine import DESCRIPTIONS, PRECISIONS, engine_name, make_step
from vaekit.evaluate import evaluate_stack
from vaekit.machine import threads
from vaekit.objective import beta_at, latent_noise
from vaekit.progress import Silent
from vaekit.stack import Stack
from vaekit.state import initial_state
from vaekit.train import train

CPU = torch.device("cpu")
STACK = Stack(mu=(0.0, 2.0), seeds=(0, 0), beta=(0.5, 4.0))


def config(**changes: object) -> SweepConfig:
    small = {"mu": STACK.mu, "beta": STACK.beta, "steps": 20, "hidden": (16,), "batch": 8}
    return SweepConfig(**{**small, **changes})


def test_auto_is_torch_on_a_cpu_whether_or_not_triton_is_there() -> None:
    assert engine_name(config(), CPU) == "torch"
    assert engine_name(config(engine="reference"), CPU) == "reference"


def test_every_engine_is_described() -> None:
    assert DESCRIPTIONS.keys() == PRECISIONS.keys()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"engine": "triton"}, r"engine: got 'triton'; allowed: auto, reference, torch \("),
        ({"precision": "tf32"}, "precision: got 'tf32'; allowed: float32, bf16 with the engine"),
        ({"engine": "reference", "precision": "bf16"}, "precision: got 'bf16'; allowed: float32 w"),
    ],
)
def test_what_cannot_run_here_is_refused_before_anything_is_written(
    changes: dict, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        vaekit.run_sweep(config(**changes, device="cpu"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_amd_has_no_product_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("meta")
    monkeypatch.setattr("vaekit.engine.runs_triton", lambda backend, tensor: True)
    asked = config(engine="triton", precision="tf32x3")
    assert engine_name(asked, cuda) == "triton"
    monkeypatch.setattr(torch.version, "hip", "6")
    with pytest.raises(ConfigError, match="allowed: float32, tf32, bf16 with the engine triton"):
        engine_name(asked, cuda)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden": (65_536, 32_768)}, r"hidden: got \(65536, 32768\); allowed: layers of less"),
        ({"hidden": (65_536,), "batch": 32_768}, "batch: got 32768; allowed: at most 32,752 with"),
        ({"hidden": (65_000,), "batch": 33_021}, "batch: got 33021; allowed: at most 33,008 with"),
        ({"hidden": (65_536,), "batch": 32_752}, ""),
        ({"hidden": (65_504, 32_735)}, ""),
    ],
    ids=["weights", "batch", "padded batch", "a batch that fits", "weights that fit"],
)
def test_what_kernels_cannot_address_is_refused(
    changes: dict, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offsets in a model's tensor are 32-bit: beyond them a kernel would read elsewhere."""
    monkeypatch.setattr("vaekit.engine.runs_triton", lambda backend, tensor: True)
    cuda = torch.device("meta")
    if not message:
        assert engine_name(config(engine="triton", **changes), cuda) == "triton"
        return
    with pytest.raises(ConfigError, match=message):
        engine_name(config(engine="triton", **changes), cuda)
    assert engine_name(config(engine="torch", **changes), cuda) == "torch"


def test_a_block_is_captured_on_the_device_that_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's own stream for captures is the first card's, where nothing would be recorded."""
    second, done = torch.device("cuda", 1), list[object]()

    @contextmanager
    def entered(what: str, *about: object) -> Iterator[None]:
        done.append((what, *about))
        yield
        done.append(f"{what} left")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: "graph")
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: f"stream of {device}")
    monkeypatch.setattr(torch.cuda, "device", lambda device: entered("device", device))
    monkeypatch.setattr(
        torch.cuda, "graph", lambda graph, stream, capture_error_mode: entered(graph, stream)
    )
    replay = Replay(lambda t: done.append("trained") or t, CPU)
    replay.device = second
    graph, _ = replay._capture()
    assert graph == "graph"
    assert done == [
        ("device", second),
        ("graph", "stream of cuda:1"),
        "trained",
        "graph left",
        "device left",
    ]


@pytest.mark.parametrize("engine", ["reference", "torch"])
def test_a_block_is_its_steps_one_by_one(engine: str) -> None:
    setup = config(engine=engine, beta_warmup=6)
    labels = STACK.labels(CPU)
    whole = make_step(setup, initial_state(setup, labels.seeds), streams=2)
    single = make_step(setup, initial_state(setup, labels.seeds), streams=2)
    with torch.no_grad():
        terms = make_block(setup, labels, whole)(range(3, 9))
        for t, (nll, kl, loss) in zip(range(3, 9), terms, strict=True):
            images, _ = draw(setup, labels.mu, labels.stream_seeds, t, batch=setup.batch)
            noise = latent_noise(setup, labels.seeds, labels.beta, t)
            beta = beta_at(labels.beta, torch.tensor([t]), 6)[0]
            found = [term.mean(1) for term in single(images, noise, beta)]
            torch.testing.assert_close(nll, found[0], rtol=1e-5, atol=0.0)
            torch.testing.assert_close(kl, found[1], rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(loss, nll + beta * kl)


def test_bfloat16_products_train_to_almost_the_same_loss() -> None:
    """The price of the option: up to 2e-3 of the loss over three seeds, held to twice that."""
    losses = {}
    for precision in ("float32", "bf16"):
        setup = config(precision=precision, hidden=(64, 32), batch=64)
        labels = STACK.labels(CPU)
        block = make_block(
            setup, labels, make_step(setup, initial_state(setup, labels.seeds), streams=2)
        )
        with torch.no_grad():
            losses[precision] = block(range(1, 201))[-1, 2]
    assert not torch.equal(losses["bf16"], losses["float32"])
    torch.testing.assert_close(losses["bf16"], losses["float32"], rtol=4e-3, atol=0.0)
    assert (losses["float32"] < 600).all()


def test_bfloat16_products_give_the_same_metrics_over_thirty_seeds() -> None:
    found = {}
    stack = Stack(mu=(0.5,) * 30, seeds=tuple(range(30)), beta=(0.5,))
    for precision in ("float32", "bf16"):
        setup = SweepConfig(
            mu=(0.5,),
            beta=stack.beta,
            seeds=30,
            steps=400,
            hidden=(64, 32),
            batch=64,
            grid=2,
            tile=4,
            latents=4,
            evaluation_draws=2048,
            precision=precision,
        )
        with threads(1):  # products this small only lose by being shared out
            vae = train(setup, stack, CPU, Silent()).vae
            found[precision] = evaluate_stack(
                vae, setup, mu=stack.mu, seeds=stack.seeds, betas=stack.beta
            )
    for name in ("recovery_r2", "rate", "distortion", "objective"):
        plain, rounded = (np.asarray(found[precision][name]) for precision in ("float32", "bf16"))
        assert not (plain == rounded).all()
        assert_equivalent(name, plain, rounded)


def test_a_small_shift_of_every_seed_and_a_spread_that_hides_one_are_not_equivalent() -> None:
    draw = np.random.default_rng(0)
    plain = draw.normal(size=30)
    assert_equivalent("same", plain, plain + 0.1 * draw.normal(size=30))
    for other in (plain + 0.3, plain + draw.normal(size=30)):
        with pytest.raises(AssertionError, match=r"loss: the mean difference lies in .* allowed"):
            assert_equivalent("loss", plain, other)
