"""What the benchmarks of single operations time, as data: ops, sizes, implementations, their work.

Bytes are what must be read and written once. Operations are the additions, multiplications and
function calls of the definition, each counted as one; the integer arithmetic of Philox is in them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

import vaekit_kernels as ops
from bench.operation import Implementation, Operation
from vaekit.products import fast_products
from vaekit_kernels import Draw, Stream, float_ids, reference
from vaekit_kernels.philox import normals

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


def labels(count: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Seeds, ids and steps of a number of streams or models.

    A step is a tensor, as in training: a number would be made one in every call that is timed.
    """
    index = torch.arange(count, device=device)
    return index, float_ids(0.25 * index), torch.full_like(index, 5)


def randn(*shape: int, device: torch.device) -> Tensor:
    """Normals; never zeros or constants, which a card multiplies faster."""
    generator = torch.Generator(device).manual_seed(0)
    return torch.randn(*shape, device=device, generator=generator)


def generator(size: Size, device: torch.device, noise: Implementation | None) -> Operation:
    """The sigmoid grid of a number of streams; writes only."""
    streams, batch = size.streams, size.batch
    seeds, ids, step = labels(streams, device)

    def op(mu: Tensor, seeds: Tensor, ids: Tensor, backend: Any) -> Any:
        return ops.sigmoid_grid(mu, seeds, ids, step, batch=batch, backend=backend)

    def definition(mu: Tensor, seeds: Tensor, ids: Tensor) -> Any:
        return reference.sigmoid_grid(mu, seeds, ids, step, batch=batch)

    def oracle(mu: Tensor, seeds: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        assert noise is not None
        z = mu[:, None, None] + noise(seeds, ids, step, Stream.IMAGE_TRUTH, batch, FACTORS)
        clean = reference.render(torch.sigmoid(z), grid=3, tile=7)
        return clean + 0.5 * noise(seeds, ids, step, Stream.IMAGE_NOISE, batch, PIXELS), z

    return Operation(
        name=f"sigmoid_grid S={streams}",
        pinned=("sigmoid_grid",),
        inputs={"mu": 0.1 * seeds.float(), "seeds": seeds, "ids": ids},
        op=op,
        definition=definition,
        forward_bytes=4 * streams * batch * (PIXELS + FACTORS),
        forward_work=streams * batch * ((NORMAL + 2) * PIXELS + (NORMAL + 4) * FACTORS),
        oracle=oracle if noise else None,
    )


def latent(size: Size, device: torch.device, noise: Implementation | None) -> Operation:
    """Reparameterisation and KL with the noise drawn where it is used."""
    models, batch = size.wide, size.batch
    seeds, ids, step = labels(models, device)
    mean, logvar = randn(2, models, batch, LATENTS, device=device)

    def op(mean: Tensor, logvar: Tensor, seeds: Tensor, ids: Tensor, backend: Any) -> Any:
        return ops.reparameterise(mean, logvar, Draw(seeds, ids, step), backend=backend)

    def definition(mean: Tensor, logvar: Tensor, seeds: Tensor, ids: Tensor) -> Any:
        drawn = normals(seeds, ids, step, Stream.LATENT, batch, LATENTS)
        return reference.reparameterise(mean, logvar, drawn)

    def oracle(mean: Tensor, logvar: Tensor, seeds: Tensor, ids: Tensor) -> Any:
        assert noise is not None
        drawn = noise(seeds, ids, step, Stream.LATENT, batch, LATENTS)
        return reference.reparameterise(mean, logvar, drawn)

    rows = models * batch
    return Operation(
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


def pixel(size: Size, device: torch.device, options: Mapping[str, Any]) -> Operation:
    """Pixel NLL of models that share the images of their stream by elevens."""
    models, batch = size.models, size.batch
    streams = models // BETAS
    image = 0.5 + 0.5 * randn(streams, batch, PIXELS, device=device)
    rows = models * batch
    return Operation(
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


def layer(size: Size, device: torch.device) -> Operation:
    """The first layer of a stack; the project's op is the product library that the engine takes."""

    def definition(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.baddbmm(bias[:, None], x, weight)

    def op(x: Tensor, weight: Tensor, bias: Tensor, backend: str) -> Tensor:
        assert backend == "torch"
        with fast_products(x.device):
            return definition(x, weight, bias)

    models, batch = size.models, size.batch
    values = models * (batch * PIXELS + PIXELS * HIDDEN + HIDDEN + batch * HIDDEN)
    return Operation(
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


def kernel_operations(
    device: torch.device, sizes: Sequence[str] = ("a sweep",), noise: Implementation | None = None
) -> list[Operation]:
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
