"""What the benchmarks of single operations time, as data: ops, sizes, implementations, their work.

Bytes are what must be read and written once. Operations are the additions, multiplications and
function calls of the definition, each counted as one; the integer arithmetic of Philox is in them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor
from torch._functorch import config as functorch

import vaekit_kernels as ops
from vaekit.products import fast_products
from vaekit_kernels import Draw, Stream, float_ids, reference
from vaekit_kernels.philox import normals

Implementation = Callable[..., Any]
Timed = Callable[[], object]
PIXELS, FACTORS, LATENTS, BETAS, HIDDEN = 441, 9, 9, 11, 256


class Size(NamedTuple):
    """Streams of the generator, models of the latent side, models of the pixel side, and B."""

    streams: int
    wide: int
    models: int
    batch: int = 128


SIZES = {
    "small": Size(1, 11, 11, batch=8),
    "a sweep": Size(11, 121, 121),
    "beyond L2": Size(704, 30976, 1936),
}
# Ten rounds of Philox (4 half-products, 4 XORs, 2 additions) give four words; Box and Muller's 12
# operations make two of them two normals.
NORMAL = 31


@dataclass(frozen=True)
class Problem:
    """One op at one size.

    Attributes:
        name: op and size.
        pinned: names of its forward and backward rows in `launch.PINNED`.
        inputs: by name; those that require grad make it a problem with a backward pass.
        op: the project's own, which takes `backend`.
        definition: what defines it.
        forward_bytes, backward_bytes: what must be read and written once, in bytes.
        forward_work, backward_work: operations.
        oracle: the definition in float64 where the plain one draws float32 noise.
    """

    name: str
    pinned: tuple[str, ...]
    inputs: Mapping[str, Tensor]
    op: Implementation
    definition: Implementation
    forward_bytes: int
    backward_bytes: int = 0
    forward_work: int = 0
    backward_work: int = 0
    oracle: Implementation | None = None

    def implementation(self, name: str, compiler: str = "inductor") -> Implementation:
        """Give what a row times.

        Args:
            name: "reference", the definition; "compile", the definition through torch.compile;
                "torch" or "triton", the project's op.
            compiler: torch.compile's backend.
        """
        if name == "reference":
            return self.definition
        if name == "compile":
            # The graph of a backward pass that is timed again and again must keep its buffers.
            functorch.donated_buffer = False
            return torch.compile(self.definition, backend=compiler, dynamic=False)
        return partial(self.op, backend=name)

    def work(self, direction: str) -> tuple[int, int]:
        """Bytes and operations of the forward or the backward pass."""
        if direction == "forward":
            return self.forward_bytes, self.forward_work
        return self.backward_bytes, self.backward_work

    def rotated(self, count: int) -> list[Problem]:
        """Give the problem with several sets of inputs: the same values in other places.

        Results that are remembered from another call, and memory that still holds its inputs, are
        then of no use.
        """

        def turned(tensor: Tensor, by: int) -> Tensor:
            rolled = tensor.detach().roll(by, dims=-1 if tensor.ndim == 1 else 1)
            return rolled.requires_grad_(tensor.requires_grad)

        return [
            replace(self, inputs={name: turned(value, by) for name, value in self.inputs.items()})
            for by in range(count)
        ]


def module_of_tests(name: str) -> ModuleType:
    """Import one of the tests' own modules; tests are no package, so by their folder."""
    folder = str(Path(__file__).parents[1] / "tests")
    if folder not in sys.path:
        sys.path.append(folder)
    return __import__(name)


def checked(problem: Problem, implementations: Mapping[str, Implementation]) -> None:
    """Hold implementations to the definition by the tests' own rule; raises AssertionError."""
    checks = module_of_tests("checks")
    for name, run in implementations.items():
        # A program is compiled once, and would be again where the checker replaces `torch.empty`.
        compiled = name == "compile"
        with mock.patch.object(checks, "poisoned", nullcontext) if compiled else nullcontext():
            checks.assert_matches(run, problem.definition, problem.inputs, oracle=problem.oracle)


def directions(problem: Problem, run: Implementation) -> dict[str, Timed]:
    """The calls to time: forward without a graph, backward through one that is kept."""
    plain = {name: tensor.detach() for name, tensor in problem.inputs.items()}
    calls: dict[str, Timed] = {"forward": partial(run, **plain)}
    if problem.backward_bytes:
        wanted = [tensor for tensor in problem.inputs.values() if tensor.requires_grad]
        result = run(**problem.inputs)
        outputs = [result] if isinstance(result, Tensor) else list(result)
        cotangents = [torch.randn_like(out) for out in outputs]
        calls["backward"] = lambda: torch.autograd.grad(
            outputs, wanted, cotangents, retain_graph=True
        )
    return calls


def labels(count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Seeds and ids of a number of streams or models."""
    index = torch.arange(count, device=device)
    return index, float_ids(0.25 * index)


def randn(*shape: int, device: torch.device) -> Tensor:
    """Normals; never zeros or constants, which a card multiplies faster."""
    generator = torch.Generator(device).manual_seed(0)
    return torch.randn(*shape, device=device, generator=generator)


def generator(size: Size, device: torch.device, noise: Implementation | None) -> Problem:
    """The sigmoid grid of a number of streams; writes only."""
    streams, batch = size.streams, size.batch
    seeds, ids = labels(streams, device)
    call = {"step": 5, "batch": batch}

    def oracle(mu: Tensor, seeds: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        assert noise is not None
        z = mu[:, None, None] + noise(seeds, ids, 5, Stream.IMAGE_TRUTH, batch, FACTORS)
        clean = reference.render(torch.sigmoid(z), grid=3, tile=7)
        return clean + 0.5 * noise(seeds, ids, 5, Stream.IMAGE_NOISE, batch, PIXELS), z

    return Problem(
        name=f"sigmoid_grid S={streams}",
        pinned=("sigmoid_grid",),
        inputs={"mu": 0.1 * seeds.float(), "seeds": seeds, "ids": ids},
        op=partial(ops.sigmoid_grid, **call),
        definition=partial(reference.sigmoid_grid, **call),
        forward_bytes=4 * streams * batch * (PIXELS + FACTORS),
        forward_work=streams * batch * ((NORMAL + 2) * PIXELS + (NORMAL + 4) * FACTORS),
        oracle=oracle if noise else None,
    )


def latent(size: Size, device: torch.device, noise: Implementation | None) -> Problem:
    """Reparameterisation and KL with the noise drawn where it is used."""
    models, batch = size.wide, size.batch
    seeds, ids = labels(models, device)
    mean, logvar = randn(2, models, batch, LATENTS, device=device)

    def op(mean: Tensor, logvar: Tensor, seeds: Tensor, ids: Tensor, backend: Any) -> Any:
        return ops.reparameterise(mean, logvar, Draw(seeds, ids, 5), backend=backend)

    def definition(mean: Tensor, logvar: Tensor, seeds: Tensor, ids: Tensor) -> Any:
        drawn = normals(seeds, ids, 5, Stream.LATENT, batch, LATENTS)
        return reference.reparameterise(mean, logvar, drawn)

    def oracle(mean: Tensor, logvar: Tensor, seeds: Tensor, ids: Tensor) -> Any:
        assert noise is not None
        drawn = noise(seeds, ids, 5, Stream.LATENT, batch, LATENTS)
        return reference.reparameterise(mean, logvar, drawn)

    rows = models * batch
    return Problem(
        name=f"reparameterise M={models}",
        pinned=("reparameterise", "reparameterise_backward"),
        inputs={
            "mean": mean.clone().requires_grad_(),
            "logvar": logvar.clone().requires_grad_(),
            "seeds": seeds,
            "ids": ids,
        },
        op=op,
        definition=definition,
        forward_bytes=4 * rows * (3 * LATENTS + 1),
        backward_bytes=4 * rows * (5 * LATENTS + 1),
        # z: 4 an element; KL: 5. Backward: 2 for the mean, 10 for the log variance.
        forward_work=rows * LATENTS * (NORMAL + 9),
        backward_work=rows * LATENTS * 12,
        oracle=oracle if noise else None,
    )


def pixel(size: Size, device: torch.device, options: Mapping[str, Any]) -> Problem:
    """Pixel NLL of models that share the images of their stream by elevens."""
    models, batch = size.models, size.batch
    streams = models // BETAS
    image = 0.5 + 0.5 * randn(streams, batch, PIXELS, device=device)
    rows = models * batch
    return Problem(
        name=f"pixel_nll {options.get('likelihood', 'gaussian')} M={models}",
        pinned=("pixel_nll", "pixel_nll_backward"),
        inputs={
            "output": (2.0 * randn(models, batch, PIXELS, device=device)).requires_grad_(),
            "image": image,
        },
        op=partial(ops.pixel_nll, **options),
        definition=partial(reference.pixel_nll, **options),
        forward_bytes=4 * (PIXELS * batch * (models + streams) + rows),
        backward_bytes=4 * (PIXELS * batch * (2 * models + streams) + rows),
        # The sigmoid takes 4 (negate, exp, add, divide), softplus 5, the terms and their sum 3.
        forward_work=(8 if options else 7) * rows * PIXELS,
        backward_work=(6 if options else 9) * rows * PIXELS,
    )


def layer(size: Size, device: torch.device) -> Problem:
    """The first layer of a stack; the project's op is the product library that the engine takes."""

    def definition(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.baddbmm(bias[:, None], x, weight)

    def op(x: Tensor, weight: Tensor, bias: Tensor, backend: str) -> Tensor:
        assert backend == "torch"
        with fast_products(x.device):
            return definition(x, weight, bias)

    models, batch = size.models, size.batch
    values = models * (batch * PIXELS + PIXELS * HIDDEN + HIDDEN + batch * HIDDEN)
    return Problem(
        name=f"layer {PIXELS}x{HIDDEN} M={models}",
        pinned=(),
        inputs={
            "x": randn(models, batch, PIXELS, device=device),
            "weight": randn(models, PIXELS, HIDDEN, device=device) / PIXELS**0.5,
            "bias": randn(models, HIDDEN, device=device),
        },
        op=op,
        definition=definition,
        forward_bytes=4 * values,
        forward_work=2 * models * batch * PIXELS * HIDDEN,
    )


def problems(
    device: torch.device, sizes: Sequence[str] = ("a sweep",), noise: Implementation | None = None
) -> list[Problem]:
    """Give every op that has a kernel, at some sizes.

    Args:
        device: where the inputs lie.
        sizes: of `SIZES`; the last one is well beyond any card's L2.
        noise: `normals` in float64, for the check of the ops that draw.
    """
    found = []
    for size in (SIZES[name] for name in sizes):
        found += [
            generator(size, device, noise),
            latent(size, device, noise),
            pixel(size, device, {}),
            pixel(size, device, {"likelihood": "bernoulli"}),
        ]
    return found
