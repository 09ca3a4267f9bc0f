"""Every kernel against its definition, in Triton's interpreter: `nox -s interpret`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from unittest import mock

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="there is no Triton for this platform")

import triton
import triton.language as tl

import oracle
import vaekit_kernels as ops
from cases import ALL, BERNOULLI, DEFAULTS, GRID, LATENT, PIXEL, SMALL, Case, labels, name, randn
from checks import assert_matches, assert_same_bits, poisoned, run, same_bits
from training import train
from vaekit_kernels import Draw, Stream, generator, latent, pixel
from vaekit_kernels.launch import Launch
from vaekit_kernels.philox import normals
from words import check_words

pytestmark = pytest.mark.interpret

BLOCKS = {
    "small": {"rows": 2, "cols": 8},
    "wide": {"rows": 1, "cols": 64},
    "tall": {"rows": 16, "cols": 4},
}


@contextmanager
def blocks(rows: int, cols: int) -> Iterator[None]:
    """Run the kernels with other block sizes than the pinned ones."""
    other = Launch(rows, cols, 4)
    with (
        mock.patch.object(generator, "pinned", return_value=other),
        mock.patch.object(latent, "pinned", return_value=other),
        mock.patch.object(pixel, "pinned", return_value=other),
    ):
        yield


@pytest.mark.parametrize("case", ALL, ids=name)
def test_a_kernel_is_as_good_as_its_definition(case: Case) -> None:
    case.check("cpu")


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("case", SMALL, ids=name)
def test_a_kernel_is_right_with_any_block(case: Case, block: str) -> None:
    with blocks(**BLOCKS[block]):
        case.check("cpu")


@pytest.mark.parametrize("case", DEFAULTS, ids=name)
def test_repeated_calls_give_the_same_bits(case: Case) -> None:
    assert_same_bits(case.op("triton"), case.inputs("cpu"))


def test_the_words_are_the_definitions_in_every_bit() -> None:
    check_words("cpu", 2**20)


def test_normals_agree_to_4e_6_in_both_tails_and_near_zero() -> None:
    """Drawn through the op that shows them bare: mean 0, logvar 0."""
    seeds, ids = labels(2, "cpu")
    zero = torch.zeros(2, 2**17, 4)
    with blocks(rows=2**12, cols=4):
        z, _ = ops.reparameterise(zero, zero, Draw(seeds, ids, 3), backend="triton")
    expected = normals(seeds, ids, 3, Stream.LATENT, *zero.shape[1:])
    assert (z - expected).abs().max() <= 4e-6
    exact = oracle.normals(seeds, ids, 3, Stream.LATENT, *zero.shape[1:])
    assert (z - exact).abs().max() <= 2e-6
    assert z.abs().max() > 4.5
    assert z.abs().min() < 1e-5


def test_noise_is_the_same_for_any_block_batch_and_stack() -> None:
    seeds, ids = labels(5, "cpu")
    zero = torch.zeros(5, 19, 9)

    def noise(models: slice, batch: int) -> Tensor:
        part = zero[models, :batch].contiguous()
        draw = Draw(seeds[models].contiguous(), ids[models].contiguous(), 3)
        return ops.reparameterise(part, part, draw, backend="triton")[0]

    whole = noise(slice(None), 19)
    for block in BLOCKS.values():
        with blocks(**block):
            assert same_bits(noise(slice(None), 19), whole)
    assert same_bits(noise(slice(None), 7), whole[:, :7])
    assert same_bits(noise(slice(3, 4), 19), whole[3:4])
    steps = torch.tensor([3, 4, 3, 4, 3])
    mixed, _ = ops.reparameterise(zero, zero, Draw(seeds, ids, steps), backend="triton")
    assert same_bits(mixed[::2].contiguous(), whole[::2].contiguous())
    assert not torch.isclose(mixed[1], whole[1], atol=1e-3).any(-1).all()


def test_images_are_the_same_for_any_block_batch_and_stack() -> None:
    inputs = replace(GRID[0], streams=4).inputs("cpu")
    geometry = {"grid": 2, "tile": 3, "backend": "triton"}

    def images(streams: slice, batch: int) -> tuple[Tensor, Tensor]:
        part = {key: value[streams].contiguous() for key, value in inputs.items()}
        return ops.sigmoid_grid(**part, step=9, batch=batch, **geometry)

    whole = images(slice(None), 20)
    for block in BLOCKS.values():
        with blocks(**block):
            for a, b in zip(images(slice(None), 20), whole, strict=True):
                assert same_bits(a, b)
    for a, b in zip(images(slice(2, 3), 7), whole, strict=True):
        assert same_bits(a, b[2:3, :7])
    steps = torch.tensor([8, 9, 9, 8])
    mixed = ops.sigmoid_grid(**inputs, step=steps, batch=20, **geometry)
    for a, b in zip(mixed, whole, strict=True):
        assert same_bits(a[1:3], b[1:3])
        assert not same_bits(a[:1], b[:1])


def pick(inputs: dict[str, Tensor], models: Tensor) -> dict[str, Tensor]:
    """The same models in another order, or some of them."""
    return {
        key: value.detach()[models].requires_grad_(value.requires_grad)
        for key, value in inputs.items()
    }


STACKED = [*LATENT[:4], *(replace(case, streams=3, betas=1) for case in PIXEL[:3])]


@pytest.mark.parametrize("case", STACKED, ids=name)
def test_a_model_does_not_know_its_place_or_its_neighbours(case: Case) -> None:
    inputs, op = case.inputs("cpu"), case.op("triton")
    outputs, grads = run(op, inputs)
    cotangents = [torch.randn_like(out) for out in outputs]
    outputs, grads = run(op, inputs, cotangents)
    for order in (torch.tensor([2, 0, 1]), torch.tensor([1])):
        moved, moved_grads = run(op, pick(inputs, order), [c[order] for c in cotangents])
        for a, b in zip(moved, outputs, strict=True):
            assert same_bits(a, b[order])
        for key, grad in moved_grads.items():
            assert same_bits(grad, grads[key][order])


@pytest.mark.parametrize("case", STACKED, ids=name)
def test_a_model_that_blew_up_leaves_the_others_their_bits(case: Case) -> None:
    inputs, op = case.inputs("cpu"), case.op("triton")
    outputs, grads = run(op, inputs)
    broken = {key: value.detach().clone() for key, value in inputs.items()}
    first = next(iter(broken))
    broken[first][1, 2] = torch.nan
    for key, value in inputs.items():
        broken[key].requires_grad_(value.requires_grad)
    after, after_grads = run(op, broken)
    for a, b in zip(after, outputs, strict=True):
        assert a[1, 2].isnan().all()
        assert same_bits(a[[0, 2]], b[[0, 2]])
        assert same_bits(a[1, 3:], b[1, 3:])
    for key, grad in after_grads.items():
        assert same_bits(grad[[0, 2]], grads[key][[0, 2]])


def test_images_are_shared_by_the_models_of_their_stream() -> None:
    case = PIXEL[0]
    inputs = case.inputs("cpu")
    own = inputs | {"image": inputs["image"].repeat_interleave(case.betas, dim=0)}
    shared, shared_grads = run(case.op("triton"), inputs)
    separate, separate_grads = run(case.op("triton"), own)
    assert same_bits(shared[0], separate[0])
    assert same_bits(shared_grads["output"], separate_grads["output"])


@pytest.mark.parametrize("case", DEFAULTS, ids=name)
def test_inputs_that_start_anywhere_in_memory_are_handled(case: Case) -> None:
    moved = {}
    for key, value in case.inputs("cpu").items():
        room = torch.zeros(value.numel() + 8, dtype=value.dtype)
        view = room[3 : 3 + value.numel()].view(value.shape).copy_(value.detach())
        moved[key] = view.requires_grad_(value.requires_grad)
        assert view.is_contiguous()
        assert view.data_ptr() % 16
    exact = getattr(case, "exact", None) if getattr(case, "drawn", True) else None
    assert_matches(case.op("triton"), case.op("torch"), moved, oracle=exact)


@pytest.mark.parametrize("case", DEFAULTS, ids=name)
def test_inputs_with_gaps_are_refused_by_name(case: Case) -> None:
    inputs = case.inputs("cpu")
    for key, value in inputs.items():
        room = value.detach().repeat_interleave(2, dim=-1)
        gapped = room[..., ::2].requires_grad_(value.requires_grad)
        assert torch.equal(gapped, value)
        with pytest.raises(ValueError, match=rf"^(noise\.)?{key}: got .* with strides"):
            case.op("triton")(**inputs | {key: gapped})


@pytest.mark.parametrize("case", DEFAULTS, ids=name)
def test_float64_is_refused_by_name(case: Case) -> None:
    inputs = case.inputs("cpu")
    wide = {
        key: value.detach().double() if value.is_floating_point() else value
        for key, value in inputs.items()
    }
    with pytest.raises(ValueError, match=rf"^{next(iter(inputs))}: got .*torch.float64 on cpu"):
        case.op("triton")(**wide)


def test_gradients_that_no_kernel_gives_are_refused_by_name() -> None:
    for case, key in ((LATENT[1], "noise"), (PIXEL[0], "image"), (GRID[0], "mu")):
        inputs = case.inputs("cpu")
        inputs[key].requires_grad_()
        with pytest.raises(ValueError, match=rf"^{key}: got a tensor that requires grad"):
            case.op("triton")(**inputs)


def test_a_second_derivative_is_refused() -> None:
    case = PIXEL[0]
    inputs = case.inputs("cpu")
    weight = torch.ones((), requires_grad=True)
    nll = weight * case.op("triton")(**inputs).sum()
    (grad,) = torch.autograd.grad(nll, inputs["output"], create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        grad.sum().backward()


def test_empty_stacks_and_batches_give_empty_results() -> None:
    for shape in ((0, 4, 9), (2, 0, 9)):
        mean = torch.zeros(shape, requires_grad=True)
        z, kl = ops.reparameterise(mean, mean, torch.zeros(shape), backend="triton")
        nll = ops.pixel_nll(z, torch.zeros(shape), backend="triton")
        (nll + kl).sum().backward()
        assert z.shape == shape
        assert kl.shape == nll.shape == shape[:2]
        assert mean.grad is not None
    assert ops.render(torch.zeros(0, 9), grid=3, tile=7, backend="triton").shape == (0, 441)


@pytest.mark.parametrize("kl", ["analytic", "sample"])
def test_a_posterior_at_its_prior_costs_nothing(kl: ops.Kl) -> None:
    zero = torch.zeros(1, 32, 9)
    _, terms = ops.reparameterise(zero, zero, randn(1, 32, 9, seed=0, device="cpu"), kl=kl,
                                  backend="triton")  # fmt: skip
    assert (terms == 0).all()


def test_the_kl_of_almost_collapsed_latents_is_accurate_and_not_negative() -> None:
    logvar = torch.logspace(-6, 0, 64).mul(torch.tensor([1.0, -1.0]).repeat(32)).view(1, 64, 1)
    mean = torch.zeros_like(logvar)
    _, kl = ops.reparameterise(mean, logvar, mean, backend="triton")
    v = logvar.double()[..., 0]
    assert (kl >= 0).all()
    torch.testing.assert_close(kl.double(), 0.5 * (torch.expm1(v) - v), rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("options", [{}, BERNOULLI], ids=["gaussian", "bernoulli"])
@pytest.mark.parametrize("level", [-100.0, -30.0, -8.0, 0.0, 8.0, 30.0, 85.0])
def test_every_output_keeps_its_relative_accuracy(options: dict, level: float) -> None:
    """The rule for whole tensors does not see a small value beside a large one; this does."""
    output = torch.full((1, 1, 3), level, requires_grad=True)
    image = torch.full((1, 1, 3), 0.0 if level < 0 else 1.0)
    exact = output.detach().double().requires_grad_()
    nll = ops.pixel_nll(output, image, backend="triton", **options)
    expected = ops.pixel_nll(exact, image.double(), backend="torch", **options)
    # In closed form for Bernoulli: the definition cancels at the upper end, in float64 too.
    value = 3 * torch.log1p(torch.exp(-exact[..., 0].abs())) if options else expected
    torch.testing.assert_close(nll.double(), value, rtol=1e-5, atol=1e-37)
    (grad,) = torch.autograd.grad(nll.sum(), output)
    # (y - x) is 1 - y at the upper end, where float32 has no more to give than an ulp of 1.
    (wanted,) = torch.autograd.grad(expected.sum(), exact)
    torch.testing.assert_close(grad.double(), wanted, rtol=1e-5, atol=2e-7)


@triton.jit
def doubled_kernel(out_ptr, x_ptr, n, LIMIT: tl.constexpr, BLOCK: tl.constexpr):
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offs, mask=offs < n, other=0.0)
    tl.store(out_ptr + offs, 2.0 * x, mask=offs < n + LIMIT)


@pytest.mark.parametrize(
    ("limit", "message"),
    [(0, None), (1, "outside of its memory"), (-1, r"output 0: at \(49,\) got nan")],
)
def test_a_planted_kernel_with_a_wrong_mask_is_rejected(limit: int, message: str | None) -> None:
    def doubled(x: Tensor) -> Tensor:
        out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        doubled_kernel[(4,)](out, x, x.numel(), LIMIT=limit, BLOCK=16)
        return out

    inputs = {"x": randn(50, seed=0, device="cpu")}
    if message is None:
        assert_matches(doubled, lambda x: 2 * x, inputs)
        return
    with pytest.raises(AssertionError, match=message):
        assert_matches(doubled, lambda x: 2 * x, inputs)


def test_the_poison_reaches_every_output_of_every_op() -> None:
    for case in DEFAULTS:
        with poisoned() as buffers:
            outputs, grads = run(case.op("triton"), case.inputs("cpu"))
        places = {buffer.untyped_storage().data_ptr() for buffer in buffers}
        # render's gradient is torch's own
        made = outputs if "intensity" in grads else [*outputs, *grads.values()]
        assert {tensor.untyped_storage().data_ptr() for tensor in made} <= places


def test_a_short_training_follows_the_definition() -> None:
    size = {"models": 2, "batch": 16, "grid": 2, "tile": 2, "hidden": (8,)}
    kernel, definition = (
        train(backend, device="cpu", steps=50, **size) for backend in ("triton", "torch")
    )
    assert definition[-1] < definition[0] - 0.5
    assert kernel != definition
    assert abs(kernel[-1] / definition[-1] - 1) <= 1e-4
