"""The kernels on a card: the interpreter's rows, and what only a card can show: `nox -s gpu`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="there is no Triton for this platform")

import vaekit_kernels as ops
from bench.bench_kernels import measure_kernels
from bench.ceilings import BELIEVED, measure_ceilings, memory_rate, product_rate
from cases import ALL, DEFAULTS, SMALL, Case, labels, name, randn
from checks import assert_same_bits, same_bits
from training import train
from vaekit_kernels import Draw
from words import check_words

pytestmark = pytest.mark.gpu

CUDA = "cuda"


@pytest.mark.parametrize("case", ALL, ids=name)
def test_a_kernel_is_as_good_as_its_definition(case: Case) -> None:
    case.check(CUDA)


@pytest.mark.parametrize("case", DEFAULTS, ids=name)
def test_twenty_calls_give_the_same_bits(case: Case) -> None:
    assert_same_bits(case.op("triton"), case.inputs(CUDA), calls=20)


def test_twenty_calls_of_a_full_sweep_give_the_same_bits() -> None:
    """Enough programs to keep every multiprocessor busy: races show here or nowhere."""
    output = randn(121, 128, 441, seed=0, device=CUDA).requires_grad_()
    image = randn(11, 128, 441, seed=1, device=CUDA)
    inputs = {"output": output, "image": image}
    assert_same_bits(
        lambda output, image: ops.pixel_nll(output, image, backend="triton"), inputs, calls=20
    )
    seeds, ids = labels(121, CUDA)
    mean = randn(121, 128, 9, seed=2, device=CUDA).requires_grad_()
    assert_same_bits(
        lambda mean: ops.reparameterise(mean, mean, Draw(seeds, ids, 3), backend="triton"),
        {"mean": mean},
        calls=20,
    )


def test_the_words_are_the_definitions_in_every_bit() -> None:
    check_words(CUDA, 2**12)


def test_auto_is_triton_here() -> None:
    assert ops.runs_triton("auto", torch.zeros(1, device=CUDA))
    case = DEFAULTS[0]
    inputs = case.inputs(CUDA)
    for a, b in zip(case.op("auto")(**inputs), case.op("triton")(**inputs), strict=True):
        assert same_bits(a, b)


def test_noise_is_the_same_for_any_batch_and_stack() -> None:
    seeds, ids = labels(5, CUDA)
    zero = torch.zeros(5, 200, 9, device=CUDA)
    whole, _ = ops.reparameterise(zero, zero, Draw(seeds, ids, 3))
    part = zero[:1, :7].contiguous()
    for model in range(5):
        one = slice(model, model + 1)
        alone, _ = ops.reparameterise(part, part, Draw(seeds[one], ids[one], 3))
        assert same_bits(alone, whole[one, :7])


def test_stacks_beyond_two_to_the_31_values_are_addressed_right() -> None:
    models = 40_000
    needed = 16 * 1024**3
    free, _ = torch.cuda.mem_get_info()
    if free < needed:
        pytest.skip(f"needs {needed >> 30} GiB of free memory on the card, there are {free >> 30}")
    output = torch.zeros(models, 128, 441, dtype=torch.bfloat16, device=CUDA)
    assert output.numel() > 2**31
    last = randn(1, 128, 441, seed=0, device=CUDA).bfloat16()
    output[-1:] = last
    image = randn(1, 128, 441, seed=1, device=CUDA)
    output.requires_grad_()
    nll = ops.pixel_nll(output, image, backend="triton")
    (grad,) = torch.autograd.grad(nll.sum(), output)
    alone = last.clone().requires_grad_()
    nll_alone = ops.pixel_nll(alone, image, backend="triton")
    (grad_alone,) = torch.autograd.grad(nll_alone.sum(), alone)
    assert same_bits(nll[-1:], nll_alone)
    assert same_bits(grad[-1:], grad_alone)


def test_a_training_of_full_size_follows_the_definition() -> None:
    size = {"models": 11, "batch": 128, "grid": 3, "tile": 7, "hidden": (256, 128)}
    kernel, definition = (
        train(backend, device=CUDA, steps=200, **size) for backend in ("triton", "torch")
    )
    assert definition[-1] < definition[0]
    assert abs(kernel[49] / definition[49] - 1) <= 1e-4
    assert abs(kernel[199] / definition[199] - 1) <= 5e-3


@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "initcheck", "synccheck"])
def test_the_sanitizer_finds_nothing(tool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        pytest.skip("compute-sanitizer is not installed (it comes with the CUDA toolkit)")
    tests = str(Path(__file__).parent)
    code = "from cases import SMALL\nfor case in SMALL:\n    case.check('cuda')"
    command = [sanitizer, "--tool", tool, "--error-exitcode", "1"]
    monkeypatch.setenv("PYTHONPATH", ":".join([tests, *sys.path]))
    # Without its pool torch asks the driver for each tensor, so every end of one is seen.
    monkeypatch.setenv("PYTORCH_NO_CUDA_MEMORY_CACHING", "1")
    found = subprocess.run(
        [*command, sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout[-4000:] + found.stderr[-4000:]
    assert SMALL


def test_the_ceilings_of_a_card_are_of_every_precision() -> None:
    """Tensor cores are faster than the others, and no copy is quicker than what it moves."""
    found = measure_ceilings(torch.device(CUDA), rounds=3)
    rates = {name: product_rate(found, name) for name in ("float32", "tf32", "bf16")}
    assert rates["float32"] < rates["tf32"] < rates["bf16"]
    assert 1e11 < memory_rate(found) < 1e14
    assert 0 < found["seconds_per_call"] < 1e-3


def test_the_benchmark_of_kernels_times_each_of_them_and_believes_it() -> None:
    found = measure_kernels(quick=True)
    names = {(row["operation"], row["direction"]) for row in found["rows"]}
    assert len(names) == 7
    assert all(row["error"] < 1e-3 for row in found["rows"])
    assert all(0 < row["share_of_roof"] < BELIEVED for row in found["rows"])
