"""Memory of the fused step: parameters, moments and activations, padded, and how to get there.

Everything is allocated once. What products read lies in rows padded with zeros (see `product`);
`load` and `store` translate from and to plain layers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from vaekit_kernels.reference import Kl, Likelihood

from .product import Precision, padded, storage

# Weight [M, in, out] and bias [M, out].
Layer = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Network:
    """Sizes of the models and the objective that they are trained on.

    Attributes:
        encoder, decoder: (in, out) of every layer; the encoder ends in 2 L, mean then logvar.
        linear: the decoder's output passes through nothing instead of a sigmoid.
    """

    encoder: tuple[tuple[int, int], ...]
    decoder: tuple[tuple[int, int], ...]
    likelihood: Likelihood = "gaussian"
    decoder_variance: float = 0.25
    linear: bool = False
    kl: Kl = "analytic"

    @property
    def latents(self) -> int:
        """L."""
        return self.decoder[0][0]

    @property
    def pixels(self) -> int:
        """P."""
        return self.decoder[-1][1]


class Memory:
    """What a stack of M models on S streams trains in.

    Attributes:
        sizes: padded (in, out) of every layer, the encoder's first.
        half: number of the encoder's layers.
        states: parameters, exp_avg and exp_avg_sq of all weights, each in one piece of memory, so
            that one launch updates them; `weights` are their pieces [M, in, out] by layer.
        operands: what products read, by layer: the weights, or their copy in bfloat16, `rounded`.
        biases: the same of all biases of a model, [M, T]; `bias_starts` is where a layer's begin.
        inputs: what each layer reads; the first layer's are the images, [S, B, in], the decoder's
            first are the latents, the others [M, B, in].
        grads: gradient of what each layer gives, [M, B, out]; with `inputs` in one piece of memory,
            `activations`.
        transposed: of layers whose gradient is multiplied back to a hidden one without tensor
            cores, that gradient once more, [M, out, stride] (see `product`); None of the others.
            Neighbours alone are there at once, so that every second one has the same memory.
        stats: mean, then logvar [M, B, 2 LP]; noise: [M, B, LP].
        count: updates made, of each model [M].
    """

    def __init__(
        self,
        network: Network,
        *,
        streams: int,
        models: int,
        batch: int,
        precision: Precision,
        device: torch.device,
    ) -> None:
        self.network = network
        self.sizes = _padded_sizes(network)
        self.half = len(network.encoder)
        outs = [out for _, out in self.sizes]
        self.bias_starts = [0, *accumulate(outs)][:-1]
        self.bias_total = sum(outs)

        def new(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(*shape, dtype=dtype, device=device)

        shapes = [(models, *size) for size in self.sizes]
        self.states = [new(sum(map(math.prod, shapes))) for _ in range(3)]
        self.weights = [_cut(flat, shapes) for flat in self.states]
        dtype = storage(precision)
        # A copy takes 2 bytes a parameter to write and saves 2 in each of two products, which it
        # also reaches without passing through registers.
        self.rounded = self.states[0].to(dtype) if dtype != torch.float32 else None
        self.operands = self.weights[0] if self.rounded is None else _cut(self.rounded, shapes)
        self.biases = [new(models, self.bias_total) for _ in range(3)]
        self.count = new(models, dtype=torch.int64)

        inputs = [(models, batch, size) for size, _ in self.sizes]
        inputs[0] = (streams, batch, self.sizes[0][0])
        outputs = [(models, batch, out) for out in outs]
        self.activations = new(sum(map(math.prod, inputs + outputs)), dtype=dtype)
        pieces = _cut(self.activations, inputs + outputs)
        self.inputs, self.grads = pieces[: len(inputs)], pieces[len(inputs) :]
        self.stride = padded(batch)
        self.transposed: list[Tensor | None] = [None] * len(outs)
        for first in (0, 1) if precision == "ieee" else ():
            read = [i for i in range(first, len(outs), 2) if i not in (0, self.half)]
            room = new(models * max((outs[i] for i in read), default=0) * self.stride)
            for i in read:
                piece = room[: models * outs[i] * self.stride]
                self.transposed[i] = piece.view(models, outs[i], self.stride)
        self.images = self.inputs[0]
        self.stats = new(models, batch, 2 * padded(network.latents))
        self.noise = new(models, batch, padded(network.latents))

    def bias(self, kind: int, index: int) -> Tensor:
        """Biases of a layer, and what comes after: [M, ...] with the stride of all of them."""
        return self.biases[kind][:, self.bias_starts[index] :]

    def share(self, index: int) -> int:
        """Count the models that share what a layer reads."""
        return len(self.grads[index]) // len(self.inputs[index])

    def _pairs(self, layers: Sequence[Layer], kind: int) -> list[tuple[Tensor, Tensor]]:
        """Pair every part of plain layers with its place in the padded memory.

        Args:
            layers: of parameters (kind 0), exp_avg (1) or exp_avg_sq (2).
            kind: which of them.
        """
        pairs = []
        for index, (weight, bias) in enumerate(layers):
            start = self.bias_starts[index]
            own_weight = self.weights[kind][index]
            own_bias = self.biases[kind][:, start : start + own_weight.shape[2]]
            width = weight.shape[2]
            step = self.network.latents if index == self.half - 1 else width
            for number, first in enumerate(range(0, width, step)):
                plain = slice(first, first + step)
                own = slice(number * padded(step), number * padded(step) + step)
                rows = weight.shape[1]
                pairs.append((own_weight[:, :rows, own], weight[:, :, plain]))
                pairs.append((own_bias[:, own], bias[:, plain]))
        return pairs

    def load(self, kinds: Sequence[Sequence[Layer]], steps: Tensor) -> None:
        """Take a state over.

        Args:
            kinds: plain layers of the parameters, of exp_avg and of exp_avg_sq: weights
                [M, in, out] and biases [M, out]. Without the moments, those stay as they are: 0 in
                new memory.
            steps: number of updates made, int64 [].
        """
        for kind, layers in enumerate(kinds):
            for own, plain in self._pairs(layers, kind):
                own.copy_(plain)
        if self.rounded is not None:
            self.rounded.copy_(self.states[0])
        self.count.copy_(steps.expand(len(self.count)))

    def store(self, kinds: Sequence[Sequence[Layer]], steps: Tensor) -> None:
        """Write the state back, or the parameters alone; arguments as `load`."""
        for kind, layers in enumerate(kinds):
            for own, plain in self._pairs(layers, kind):
                plain.copy_(own)
        steps.copy_(self.count[0])


def _padded_sizes(network: Network) -> list[tuple[int, int]]:
    sizes = [(padded(i), padded(o)) for i, o in (*network.encoder, *network.decoder)]
    last = len(network.encoder) - 1
    # Mean and logvar are padded each by itself.
    sizes[last] = (sizes[last][0], 2 * padded(network.latents))
    return sizes


def _cut(flat: Tensor, shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """Cut flat memory into tensors, one after the other."""
    pieces = flat.split([math.prod(shape) for shape in shapes])
    return [piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True)]
