"""Shapes and values that every op is tried on, as data: the same rows interpreted and on a card.

Sizes are one, odd, prime, and one below, at and one above a block. A default row is varied one
field at a time. Grids are tens of programs, since the interpreter's time is the number of programs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

import oracle
import vaekit_kernels as ops
from checks import Op, assert_matches
from vaekit_kernels import Draw, Stream, float_ids, reference

F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16
STEP = 17


def randn(*shape: int, seed: int, device: str) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).to(device)


def labels(count: int, device: str) -> tuple[Tensor, Tensor]:
    """Seeds with high bits and signs, and the ids of as many betas."""
    seeds = torch.tensor([7, -1, 2**40 + 3, -(2**63), 2**32])
    index = torch.arange(count)
    ids = float_ids(0.5 * index)
    return (seeds[index % len(seeds)] + index).to(device), ids.to(device)


@dataclass(frozen=True)
class Grid:
    """One row for `sigmoid_grid`."""

    id: str
    streams: int = 3
    batch: int = 17
    step: int = STEP
    options: dict[str, Any] = field(default_factory=dict)
    mu: float = 0.0  # of stream 0; the others are 1 apart

    def inputs(self, device: str) -> dict[str, Tensor]:
        mu = self.mu + torch.arange(self.streams, dtype=F32)
        seeds, _ = labels(self.streams, device)
        return {"mu": mu.to(device), "seeds": seeds, "ids": float_ids(mu).to(device)}

    def op(self, backend: ops.Backend) -> Op:
        return partial(
            ops.sigmoid_grid, step=self.step, batch=self.batch, backend=backend, **self.options
        )

    def exact(self, mu: Tensor, seeds: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """The definition in float64, with the tests' own noise."""
        options = {"grid": 3, "tile": 7, "noise_variance": 0.25, "linear": False} | self.options
        grid, tile = options["grid"], options["tile"]
        draw = partial(oracle.normals, seeds, ids, self.step)
        z = mu[:, None, None] + draw(Stream.IMAGE_TRUTH, self.batch, grid * grid)
        clean = reference.render(z if options["linear"] else torch.sigmoid(z), grid=grid, tile=tile)
        noise = draw(Stream.IMAGE_NOISE, self.batch, (grid * tile) ** 2)
        return clean + options["noise_variance"] ** 0.5 * noise, z

    def check(self, device: str) -> None:
        inputs = self.inputs(device)
        assert_matches(self.op("triton"), self.op("torch"), inputs, oracle=self.exact)


@dataclass(frozen=True)
class Render:
    """One row for `render`, whose result is a copy and so is exact."""

    id: str
    lead: tuple[int, ...] = (2, 5)
    grid: int = 3
    tile: int = 7
    dtype: torch.dtype = F32

    def inputs(self, device: str) -> dict[str, Tensor]:
        intensity = randn(*self.lead, self.grid**2, seed=1, device=device).to(self.dtype)
        return {"intensity": intensity.requires_grad_()}

    def op(self, backend: ops.Backend) -> Op:
        return partial(ops.render, grid=self.grid, tile=self.tile, backend=backend)

    def check(self, device: str) -> None:
        inputs = self.inputs(device)
        assert_matches(self.op("triton"), self.op("torch"), inputs)
        assert torch.equal(self.op("triton")(**inputs), self.op("torch")(**inputs))


def ordinary(mean: Tensor, logvar: Tensor) -> tuple[Tensor, Tensor]:
    """What an encoder in training gives."""
    return 1.5 * mean, 0.8 * logvar - 0.5


def collapsed(mean: Tensor, logvar: Tensor) -> tuple[Tensor, Tensor]:
    """A posterior at its prior: the KL is the small difference of large terms."""
    return 1e-4 * mean, 1e-4 * logvar


def constant(value: float) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    return lambda mean, logvar: (mean, torch.full_like(logvar, value))


@dataclass(frozen=True)
class Latent:
    """One row for `reparameterise`."""

    id: str
    models: int = 3
    batch: int = 33
    latents: int = 9
    dtype: torch.dtype = F32
    kl: ops.Kl = "analytic"
    drawn: bool = True
    values: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = ordinary

    def inputs(self, device: str) -> dict[str, Tensor]:
        shape = self.models, self.batch, self.latents
        mean, logvar = self.values(
            randn(*shape, seed=1, device=device), randn(*shape, seed=2, device=device)
        )
        inputs = {
            "mean": mean.to(self.dtype).requires_grad_(),
            "logvar": logvar.to(self.dtype).requires_grad_(),
        }
        if self.drawn:
            seeds, ids = labels(self.models, device)
            return inputs | {"seeds": seeds, "ids": ids}
        return inputs | {"noise": randn(*shape, seed=3, device=device).to(self.dtype)}

    def op(self, backend: ops.Backend) -> Op:
        call = partial(ops.reparameterise, kl=self.kl, backend=backend)
        if not self.drawn:
            return call
        return lambda mean, logvar, seeds, ids: call(mean, logvar, Draw(seeds, ids, STEP))

    def exact(
        self, mean: Tensor, logvar: Tensor, seeds: Tensor, ids: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The definition in float64, with the tests' own noise."""
        noise = oracle.normals(seeds, ids, STEP, Stream.LATENT, self.batch, self.latents)
        return reference.reparameterise(mean, logvar, noise, kl=self.kl)

    def check(self, device: str) -> None:
        assert_matches(
            self.op("triton"),
            self.op("torch"),
            self.inputs(device),
            oracle=self.exact if self.drawn else None,
        )


def ordinary_output(output: Tensor) -> Tensor:
    """What a decoder in training gives."""
    return 2.0 * output


def spread(scale: float) -> Callable[[Tensor], Tensor]:
    return lambda output: scale * output


def saturated(output: Tensor) -> Tensor:
    """100, -100, 100, ..."""
    return torch.where(output > 0, 100.0, -100.0)


@dataclass(frozen=True)
class Pixel:
    """One row for `pixel_nll`."""

    id: str
    streams: int = 2
    betas: int = 3
    batch: int = 5
    pixels: int = 441
    dtype: torch.dtype = F32
    image_dtype: torch.dtype = F32
    values: Callable[[Tensor], Tensor] = ordinary_output
    options: dict[str, Any] = field(default_factory=dict)

    def inputs(self, device: str) -> dict[str, Tensor]:
        models = self.streams * self.betas
        output = self.values(randn(models, self.batch, self.pixels, seed=1, device=device))
        image = 0.5 + 0.5 * randn(self.streams, self.batch, self.pixels, seed=2, device=device)
        if self.options.get("likelihood") == "bernoulli":
            image = image.clamp(0.0, 1.0)
        return {
            "output": output.to(self.dtype).requires_grad_(),
            "image": image.to(self.image_dtype),
        }

    def op(self, backend: ops.Backend) -> Op:
        return partial(ops.pixel_nll, backend=backend, **self.options)

    def check(self, device: str) -> None:
        assert_matches(self.op("triton"), self.op("torch"), self.inputs(device))


BERNOULLI = {"likelihood": "bernoulli"}

GRID = [
    Grid("default"),
    Grid("one-image", streams=1, batch=1),
    Grid("batch-below-block", batch=15),
    Grid("batch-at-block", batch=16),
    Grid("one-pixel", options={"grid": 1, "tile": 1}),
    Grid("one-tile", options={"grid": 1, "tile": 13}),
    Grid("pixels-at-block", options={"grid": 4, "tile": 2}),
    Grid("pixels-above-block", options={"grid": 3, "tile": 3}),
    Grid("tiles-of-a-pixel", options={"grid": 7, "tile": 1}),
    Grid("25-factors", options={"grid": 5, "tile": 3}),
    Grid("linear", options={"linear": True}),
    Grid("noise-free", options={"noise_variance": 0.0}),
    Grid("noisy", options={"noise_variance": 4.0}),
    Grid("first-step", step=0),
    Grid("last-step", step=2**32 - 1),
    Grid("saturated-up", mu=18.0),
    Grid("saturated-down", mu=-100.0),
]

RENDER = [
    Render("default"),
    Render("one-image", lead=()),
    Render("batch-above-block", lead=(17,)),
    Render("one-pixel", grid=1, tile=1),
    Render("prime-side", grid=1, tile=11),
    Render("25-factors", grid=5, tile=2),
    Render("bf16", dtype=BF16),
    Render("fp16", dtype=F16),
]

LATENT = [
    Latent("default"),
    Latent("given", drawn=False),
    Latent("sample", kl="sample"),
    Latent("sample-given", kl="sample", drawn=False),
    Latent("one-model", models=1),
    Latent("one-sample", batch=1),
    Latent("batch-below-block", batch=31),
    Latent("batch-at-block", batch=32),
    Latent("one-latent", latents=1),
    Latent("latents-below-block", latents=15),
    Latent("latents-at-block", latents=16, drawn=False),
    Latent("latents-above-block", latents=17),
    Latent("prime-latents", latents=37, kl="sample"),
    Latent("bf16", dtype=BF16),
    Latent("bf16-sample-given", dtype=BF16, kl="sample", drawn=False),
    Latent("fp16", dtype=F16),
    Latent("collapsed", values=collapsed),
    Latent("collapsed-sample", values=collapsed, kl="sample"),
    Latent("logvar-80", values=constant(80.0)),
    Latent("logvar-80-sample", values=constant(80.0), kl="sample"),
    Latent("logvar--80", values=constant(-80.0)),
    Latent("logvar--80-sample", values=constant(-80.0), kl="sample"),
    Latent("logvar-80-bf16", values=constant(80.0), dtype=BF16),
]

PIXEL = [
    Pixel("default"),
    Pixel("linear", options={"linear": True}),
    Pixel("bernoulli", options=BERNOULLI),
    Pixel("small-variance", options={"decoder_variance": 0.01}),
    Pixel("one-model", streams=1, betas=1),
    Pixel("a-stream-a-model", streams=3, betas=1),
    Pixel("one-sample", batch=1),
    Pixel("batch-below-block", batch=3),
    Pixel("batch-at-block", batch=4),
    Pixel("one-pixel", pixels=1),
    Pixel("prime-pixels", pixels=113, options=BERNOULLI),
    Pixel("pixels-below-block", pixels=511),
    Pixel("pixels-at-block", pixels=512),
    Pixel("pixels-above-block", pixels=513),
    Pixel("three-blocks-of-pixels", pixels=1031),
    Pixel("flat-block-below", streams=1, betas=1, batch=1, pixels=2047),
    Pixel("flat-block-above", streams=1, betas=1, batch=3, pixels=683),
    Pixel("bf16", dtype=BF16),
    Pixel("bf16-image", dtype=BF16, image_dtype=BF16, options=BERNOULLI),
    Pixel("fp16", dtype=F16),
    Pixel("fp16-image", image_dtype=F16),
    Pixel("output-100", values=saturated),
    Pixel("output-100-linear", values=saturated, options={"linear": True}),
    Pixel("output-100-bernoulli", values=saturated, options=BERNOULLI),
    Pixel("output-spread-to-100", values=spread(30.0), options=BERNOULLI),
]

Case = Grid | Render | Latent | Pixel
ALL: list[Case] = [*GRID, *RENDER, *LATENT, *PIXEL]
# One row of each kernel, for the properties that do not depend on the shape.
DEFAULTS: list[Case] = [
    GRID[0], RENDER[0], *LATENT[:4], *PIXEL[:3],
]  # fmt: skip
# The same in small, to be run with blocks that are smaller still.
SMALL: list[Case] = [
    replace(GRID[0], streams=2, batch=5, options={"grid": 2, "tile": 3}),
    replace(RENDER[0], grid=2, tile=3),
    *(replace(case, models=2, batch=5) for case in LATENT[:4]),
    *(replace(case, batch=3, pixels=37) for case in PIXEL[:3]),
]


def name(case: Case) -> str:
    return f"{type(case).__name__.lower()}-{case.id}"
