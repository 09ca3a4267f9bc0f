"""M VAEs of one architecture as stacked tensors: encoder P-H1-..-2L, decoder L-..-H1-P, ReLUs.

Every parameter of every model lies in one flat buffer, layer after layer, each layer as
[M, in, out] followed by its bias [M, out]: one fused optimiser call updates them all, and a layer
is a contiguous operand of one batched product.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from vaekit.config import SweepConfig
from vaekit.host import LARGEST_KEPT
from vaekit_kernels import Stream
from vaekit_kernels.philox import uniforms

Layer = tuple[Tensor, Tensor]
# What one activation of all models may take where rows are cut into chunks. The C library gives
# larger blocks than it keeps back at once, and the pages of the next are cleared anew: 20 models of
# the preset `laptop` took 14.5 to 16.4 s to measure by 64 MiB and 8.8 by 16, on two threads of an
# AMD EPYC. Half, as squares of errors are summed in float64.
CHUNK_BYTES = {"cpu": LARGEST_KEPT // 2, "cuda": 64 * 1024**2}


@dataclass(frozen=True)
class Architecture:
    """Layer sizes of one model, (in, out) each; the decoder mirrors the encoder."""

    encoder: tuple[tuple[int, int], ...]
    decoder: tuple[tuple[int, int], ...]
    linear_output: bool

    @classmethod
    def of(cls, config: SweepConfig) -> Architecture:
        """Return the architecture that a configuration asks for."""
        linear = config.decoder_output == "linear"
        return cls.between(config.pixels, config.hidden, config.latents, linear_output=linear)

    @classmethod
    def between(
        cls, pixels: int, hidden: Sequence[int], latents: int, *, linear_output: bool = False
    ) -> Architecture:
        """Return the one with some hidden widths between the pixels and the latents."""
        down, up = (pixels, *hidden), (latents, *reversed(hidden), pixels)
        encoder = (*pairwise(down), (down[-1], 2 * latents))
        return cls(encoder, tuple(pairwise(up)), linear_output)

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """All layers in the order of the flat buffer."""
        return self.encoder + self.decoder

    @property
    def parameters(self) -> int:
        """Number of parameters of one model."""
        return sum(i * o + o for i, o in self.sizes)

    def split(self, flat: Tensor) -> list[Layer]:
        """View a flat buffer [M * parameters] as layers (weight [M, in, out], bias [M, out])."""
        models = flat.numel() // self.parameters
        sizes = [models * n for i, o in self.sizes for n in (i * o, o)]
        pieces = flat.split(sizes)
        return [
            (weight.view(models, i, o), bias.view(models, o))
            for (i, o), weight, bias in zip(self.sizes, pieces[::2], pieces[1::2], strict=True)
        ]


def mlp(layers: Sequence[Layer], x: Tensor) -> Tensor:
    """Apply stacked layers with ReLU between them: [M, N, in] -> [M, N, out]."""
    for index, (weight, bias) in enumerate(layers):
        x = torch.baddbmm(bias[:, None], x, weight)
        if index < len(layers) - 1:
            x = torch.relu(x)
    return x


class StackedVAE:
    """M VAEs side by side. `flat` holds the parameters, `layers` its views."""

    def __init__(self, architecture: Architecture, flat: Tensor) -> None:
        self.architecture = architecture
        self.flat = flat
        self.layers = architecture.split(flat)
        self.models = self.layers[0][0].shape[0]

    @classmethod
    def initial(cls, config: SweepConfig, seeds: Tensor) -> StackedVAE:
        """Draw untrained models as torch.nn.Linear does: U(-b, b) with b = 1 / sqrt(in).

        The draw depends on the seed alone, so all mu and beta of a seed start from one network and
        differ by nothing else.

        Args:
            config: gives the architecture.
            seeds: [M] int64.
        """
        architecture = Architecture.of(config)
        flat = torch.empty(len(seeds) * architecture.parameters, device=seeds.device)
        vae = cls(architecture, flat)
        drawn, which = seeds.unique(return_inverse=True)
        for index, (weight, bias) in enumerate(vae.layers):
            fan_in, fan_out = weight.shape[1:]
            ids = torch.full_like(drawn, index)
            draw = uniforms(drawn, ids, 0, Stream.WEIGHT, fan_in + 1, fan_out)
            draw = draw.mul_(2.0).sub_(1.0).div_(math.sqrt(fan_in))
            weight.copy_(draw[which, :-1])
            bias.copy_(draw[which, -1])
        return vae

    @property
    def encoder(self) -> list[Layer]:
        """The encoder's layers."""
        return self.layers[: len(self.architecture.encoder)]

    @property
    def decoder(self) -> list[Layer]:
        """The decoder's layers."""
        return self.layers[len(self.architecture.encoder) :]

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Encode images.

        Args:
            x: [N, P], shared by all models, or [M, N, P].

        Returns:
            mean and logvar of q(z|x), each [M, N, L].
        """
        stacked = x.expand(self.models, *x.shape[-2:])
        mean, logvar = mlp(self.encoder, stacked).chunk(2, dim=-1)
        return mean, logvar

    def decode(self, z: Tensor) -> Tensor:
        """Decode latents [M, N, L] to mean images [M, N, P], after the output's sigmoid if any."""
        output = mlp(self.decoder, z)
        return output if self.architecture.linear_output else torch.sigmoid(output)

    def slot(self, index: int) -> StackedVAE:
        """Copy one model out as a stack of one."""
        return self.part(slice(index, index + 1))

    def part(self, models: slice) -> StackedVAE:
        """Copy some of the models out as a stack of their own."""
        pieces = [piece[models].reshape(-1) for layer in self.layers for piece in layer]
        return StackedVAE(self.architecture, torch.cat(pieces))

    def load_slot(self, index: int, single: StackedVAE) -> None:
        """Copy a stack of one into place `index`."""
        for ours, theirs in zip(self.layers, single.layers, strict=True):
            for mine, other in zip(ours, theirs, strict=True):
                mine[index].copy_(other[0])


def chunks(count: int, vae: StackedVAE, config: SweepConfig) -> Iterator[slice]:
    """Cut rows so that one activation of all models takes no more than its device's share."""
    width = max(config.pixels, *config.hidden, 1) if config.hidden else config.pixels
    size = max(1, CHUNK_BYTES["cuda" if vae.flat.is_cuda else "cpu"] // (4 * vae.models * width))
    for first in range(0, count, size):
        yield slice(first, min(first + size, count))
