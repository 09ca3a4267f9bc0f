"""The door of the kernels: which form of an op runs, and what is refused and how."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

import pytest
import torch
from torch import Tensor

import vaekit_kernels as ops
from vaekit_kernels import Draw, reference, runs_triton

ZERO = torch.zeros(2, 3, 4)
LABELS = torch.zeros(2, dtype=torch.int64)
MU = torch.zeros(2)
IMAGE = torch.zeros(1, 3, 4)


def test_importing_the_package_does_not_import_triton() -> None:
    code = "import sys, vaekit_kernels; sys.exit('triton' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})


def test_auto_is_torch_on_the_cpu_and_triton_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not runs_triton("auto", ZERO)
    assert not runs_triton("torch", ZERO)
    on_cuda = type("OnCuda", (), {"is_cuda": True})()
    monkeypatch.setattr(ops, "_installed", lambda: True)
    assert runs_triton("auto", on_cuda)
    assert not runs_triton("torch", on_cuda)
    monkeypatch.setattr(ops, "_installed", lambda: False)
    assert not runs_triton("auto", on_cuda)


def test_asking_for_triton_where_it_cannot_run_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ops, "_installed", lambda: False)
    with pytest.raises(ValueError, match="backend: got 'triton'; .* not installed"):
        ops.render(torch.zeros(9), grid=3, tile=7, backend="triton")
    monkeypatch.undo()
    pytest.importorskip("triton", reason="there is no Triton for this platform")
    calls = (
        partial(ops.render, torch.zeros(9), grid=3, tile=7),
        partial(ops.sigmoid_grid, MU, LABELS, LABELS, 1, batch=2),
        partial(ops.reparameterise, ZERO, ZERO, ZERO),
        partial(ops.pixel_nll, ZERO, IMAGE),
    )
    for call in calls:
        with pytest.raises(ValueError, match="backend: got 'triton' for a tensor on cpu"):
            call(backend="triton")
        with pytest.raises(ValueError, match="backend: got 'cuda'; allowed: auto, triton, torch"):
            call(backend="cuda")
        call(backend="auto")


def test_the_torch_form_is_the_definition() -> None:
    mean, logvar, noise = torch.randn(3, 2, 3, 4)
    for a, b in zip(
        ops.reparameterise(mean, logvar, noise, kl="sample"),
        reference.reparameterise(mean, logvar, noise, kl="sample"),
        strict=True,
    ):
        assert torch.equal(a, b)


def refused(call: partial, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_wrong_arguments_are_refused_by_name() -> None:
    latent, pixel = ops.reparameterise, ops.pixel_nll
    bad: list[tuple[partial, str]] = [
        (partial(latent, ZERO[0], ZERO[0], ZERO[0]), r"^mean: got \[3, 4\] torch.float32 on cpu"),
        (partial(latent, ZERO.long(), ZERO, ZERO), r"^mean: got \[2, 3, 4\] torch.int64"),
        (partial(latent, ZERO, ZERO[:1], ZERO), r"^logvar: got \[1, 3, 4\] .* same as mean"),
        (partial(latent, ZERO, ZERO.double(), ZERO), r"^logvar: got .*float64 .* same as mean"),
        (partial(latent, ZERO, ZERO, ZERO[..., :1]), r"^noise: got \[2, 3, 1\]"),
        (partial(latent, ZERO, ZERO, ZERO.to("meta")), r"^noise: got .* on meta; .* on cpu"),
        (partial(latent, ZERO, ZERO, Draw(LABELS[:1], LABELS, 0)), r"^noise.seeds: got \[1\]"),
        (partial(latent, ZERO, ZERO, Draw(LABELS, LABELS.int(), 0)), r"^noise.ids: .*int32"),
        (partial(latent, ZERO, ZERO, Draw(LABELS, LABELS, -1)), r"^step: got -1"),
        (partial(latent, ZERO, ZERO, ZERO, kl="exact"), r"^kl: got 'exact'; allowed: analytic"),
        (partial(pixel, ZERO[0], IMAGE), r"^output: got \[3, 4\]"),
        (partial(pixel, ZERO, IMAGE[..., :3]), r"^image: got \[1, 3, 3\] .*allowed: \[S, 3, 4\]"),
        (partial(pixel, ZERO, ZERO.repeat(2, 1, 1)), r"^image: got \[4, 3, 4\] .* 2 models"),
        (partial(pixel, ZERO, IMAGE, likelihood="laplace"), r"^likelihood: got 'laplace'"),
        (partial(pixel, ZERO, IMAGE, decoder_variance=0.0), r"^decoder_variance: got 0.0"),
        (partial(ops.render, ZERO, grid=3, tile=1), r"^intensity: got \[2, 3, 4\] .* 9\]"),
        (partial(ops.render, ZERO, grid=2, tile=0), r"^tile: got 0"),
        (partial(ops.sigmoid_grid, MU[None], LABELS, LABELS, 1, batch=2), r"^mu: got \[1, 2\]"),
        (partial(ops.sigmoid_grid, MU, LABELS, MU, 1, batch=2), r"^ids: got \[2\] torch.float32"),
        (partial(ops.sigmoid_grid, MU, LABELS, LABELS, 2**32, batch=2), r"^step: got 4294967296"),
        (partial(ops.sigmoid_grid, MU, LABELS, LABELS, 1, batch=2**23), r"^batch: got 8388608"),
        (
            partial(ops.sigmoid_grid, MU, LABELS, LABELS, 1, batch=2, noise_variance=-1.0),
            r"^noise_variance: got -1.0",
        ),
    ]
    for call, message in bad:
        refused(call, message)


def test_labels_of_a_draw_are_one_for_each_model() -> None:
    labels: Tensor = torch.tensor([1, 2])
    one, _ = ops.reparameterise(ZERO, ZERO, Draw(labels, labels, torch.tensor([3, 4])))
    two, _ = ops.reparameterise(ZERO, ZERO, Draw(labels, labels, 3))
    assert torch.equal(one[0], two[0])
    assert not torch.equal(one[1], two[1])
