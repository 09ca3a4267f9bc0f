"""One training step of a stack of VAEs in fused kernels, without autograd and without a host sync.

    images -> hidden layers -> latents, KL -> hidden layers -> output, NLL, its gradient
           -> gradients of the hidden layers and of the latents, back to the first layer
           -> Adam on the biases, and decides which models go on -> weights' gradient and Adam

The definition is autograd on the objective with Adam (`vaekit.step.ReferenceStep`); the algebra is
written out there. Bytes that must move in a step, a parameter: 24 for w and Adam's moments, 4 for
the product forward, 4 for the one backward (which the first layer does not have).

A step is a fixed list of launches on memory that is allocated once, so that it can be captured in a
CUDA graph. What changes from step to step (images, noise or its labels, beta) is read from tensors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
import triton
from torch import Tensor

from vaekit_kernels.arguments import each_step
from vaekit_kernels.launch import on_device, pinned
from vaekit_kernels.philox import Draw
from vaekit_kernels.reference import Kl, Likelihood

from .backward import hidden_gradient_kernel, latent_gradient_kernel
from .forward import hidden_kernel, latent_kernel, output_kernel
from .product import PAD, Precision, padded, storage
from .update import finish_kernel, weights_kernel

__all__ = ["PAD", "FusedStep", "Network", "Precision"]

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


def _block(pinned: int, size: int) -> int:
    """Take no more of an axis at once than there is, up to a power of two."""
    return min(pinned, triton.next_power_of_2(size))


class FusedStep:
    """The step's memory and launches.

    Parameters and moments lie padded to `PAD` columns and rows, each layer by itself; `load` and
    `store` translate from and to plain layers.
    """

    def __init__(
        self,
        network: Network,
        *,
        streams: int,
        learning_rate: Tensor,
        alive: Tensor,
        batch: int,
        precision: Precision,
    ) -> None:
        """Allocate everything.

        Args:
            network: of every model.
            streams: S; the models of a stream are neighbours and share its images.
            learning_rate: [M] float64 on the device to train on.
            alive: [M] bool, read and cleared by every step: models that train.
            batch: B.
            precision: of the products.

        Raises:
            ValueError: the models do not divide among the streams.
        """
        models, device = len(learning_rate), learning_rate.device
        if streams < 1 or models % streams:
            raise ValueError(f"streams: got {streams}; allowed: a divisor of {models} models")
        self.network, self.batch, self.precision = network, batch, precision
        self.models, self.streams, self.device = models, streams, device
        self.learning_rate = learning_rate
        self.sizes = self._padded_sizes()
        self.half = len(network.encoder)
        outs = [out for _, out in self.sizes]
        self.bias_starts = [0, *accumulate(outs)][:-1]
        self.bias_total = sum(outs)

        def new(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(*shape, dtype=dtype, device=device)

        # Parameters, exp_avg and exp_avg_sq: the weights of all layers in one piece of memory, so
        # that one launch updates them, and all biases of a model.
        shapes = [(models, *size) for size in self.sizes]
        self.states = [new(sum(map(math.prod, shapes))) for _ in range(3)]
        self.weights = [_cut(flat, shapes) for flat in self.states]
        self.biases = [new(models, self.bias_total) for _ in range(3)]
        self.alive = alive.view(torch.uint8)
        self.count = new(models, dtype=torch.int64)

        # What each layer reads, and the gradient of what it gives: in one piece of memory as well.
        lp = padded(network.latents)
        inputs = [(models, batch, size) for size, _ in self.sizes]
        inputs[0] = (streams, batch, self.sizes[0][0])
        outputs = [(models, batch, out) for out in outs]
        kept = storage(precision)
        self.activations = new(sum(map(math.prod, inputs + outputs)), dtype=kept)
        pieces = _cut(self.activations, inputs + outputs)
        self.inputs, self.grads = pieces[: len(inputs)], pieces[len(inputs) :]
        self.images, self.z = self.inputs[0], self.inputs[self.half]
        self.stats = new(models, batch, 2 * lp)
        self.noise = new(models, batch, lp)
        self.row = pinned(f"step_forward_{precision}", device)
        self.output_row = pinned(f"step_output_{precision}", device)
        self.backward_row = pinned(f"step_backward_{precision}", device)
        self.weights_row = pinned(f"step_weights_{precision}", device)
        self.finish_row = pinned("step_finish", device)
        # Kernels that take more samples a program leave fewer partial sums; the rest stay zero.
        rows = min(self.output_row.rows, self.backward_row.rows)
        self.tiles = triton.cdiv(batch, rows)
        self.nll_tiles = triton.cdiv(outs[-1], self.output_row.cols)
        self.columns = new(models, self.tiles, self.bias_total)
        self.nll_parts = new(models, self.nll_tiles, batch)
        self.layers, self.programs = self._layers()

    def _layers(self) -> tuple[Tensor, int]:
        """Make the table that `weights_kernel` finds its layer in, and count its programs."""
        row, models = self.weights_row, self.models
        programs, table = 0, []
        for index, (k, n) in enumerate(self.sizes):
            share = models // len(self.inputs[index])
            starts = [
                tensor.storage_offset()
                for tensor in (self.inputs[index], self.grads[index], self.weights[0][index])
            ]
            table.append([programs, k, n, share, *starts])
            programs += models * triton.cdiv(k, row.rows) * triton.cdiv(n, row.cols)
        return torch.tensor(table, dtype=torch.int64, device=self.device), programs

    def _padded_sizes(self) -> list[tuple[int, int]]:
        sizes = [(padded(i), padded(o)) for i, o in (*self.network.encoder, *self.network.decoder)]
        last = len(self.network.encoder) - 1
        # Mean and logvar are padded each by itself.
        sizes[last] = (sizes[last][0], 2 * padded(self.network.latents))
        return sizes

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
                [M, in, out] and biases [M, out].
            steps: number of updates made, int64 [].
        """
        for kind, layers in enumerate(kinds):
            for own, plain in self._pairs(layers, kind):
                own.copy_(plain)
        self.count.copy_(steps.expand(self.models))

    def store(self, kinds: Sequence[Sequence[Layer]], steps: Tensor) -> None:
        """Write the state back; arguments as `load`."""
        for kind, layers in enumerate(kinds):
            for own, plain in self._pairs(layers, kind):
                plain.copy_(own)
        steps.copy_(self.count[0])

    def __call__(self, images: Tensor, noise: Tensor | Draw, beta: Tensor) -> tuple[Tensor, Tensor]:
        """Train one step.

        Args:
            images: [S, B, P] float32.
            noise: [M, B, L] float32, or the labels to draw it from.
            beta: [M] float32.

        Returns:
            nll and kl [M, B] in nats, before the update.
        """
        self.images[:, :, : self.network.pixels].copy_(images)
        nll, kl = (
            torch.empty(self.models, self.batch, dtype=torch.float32, device=self.device)
            for _ in range(2)
        )
        with on_device(images):
            self._forward(noise, kl)
            self._backward(beta)
            self._update(nll, kl)
        return nll, kl

    def _share(self, index: int) -> int:
        """Count the models that share what a layer reads."""
        return self.models // len(self.inputs[index])

    def _bias(self, kind: int, index: int) -> Tensor:
        return self.biases[kind][:, self.bias_starts[index] :]

    def _forward(self, noise: Tensor | Draw, kl: Tensor) -> None:
        row, last = self.row, len(self.sizes) - 1
        for index, (k, n) in enumerate(self.sizes[:last]):
            tiles = triton.cdiv(self.batch, row.rows)
            if index == self.half - 1:
                self._latents(noise, kl)
                continue
            hidden_kernel[(self.models * tiles * triton.cdiv(n, row.cols),)](
                self.inputs[index + 1],
                self.inputs[index],
                self.weights[0][index],
                self._bias(0, index),
                self.batch,
                self._share(index),
                self.bias_total,
                K=k,
                N=n,
                PRECISION=self.precision,
                BLOCK_B=row.rows,
                BLOCK_N=row.cols,
                BLOCK_K=_block(row.depth, k),
                **row.options,
            )
        self._output()

    def _latents(self, noise: Tensor | Draw, kl: Tensor) -> None:
        row, index = self.row, self.half - 1
        given = seeds = ids = steps = None
        stream = 0
        if isinstance(noise, Draw):
            seeds, ids, stream = noise.seeds, noise.ids, int(noise.stream)
            steps = each_step(noise.step, self.models, self.device)
        else:
            given = noise.contiguous()
        k, width = self.sizes[index]
        latent_kernel[(self.models * triton.cdiv(self.batch, row.rows),)](
            self.stats,
            self.noise,
            self.z,
            kl,
            self.inputs[index],
            self.weights[0][index],
            self._bias(0, index),
            given,
            seeds,
            ids,
            steps,
            self.batch,
            self._share(index),
            self.bias_total,
            STREAM=stream,
            SAMPLE=self.network.kl == "sample",
            L=self.network.latents,
            LP=width // 2,
            K=k,
            PRECISION=self.precision,
            BLOCK_B=row.rows,
            BLOCK_L=triton.next_power_of_2(width // 2),
            BLOCK_K=_block(row.depth, k),
            **row.options,
        )

    def _output(self) -> None:
        row, network, index = self.output_row, self.network, len(self.sizes) - 1
        k, n = self.sizes[index]
        bernoulli = network.likelihood == "bernoulli"
        tiles = triton.cdiv(self.batch, row.rows)
        output_kernel[(self.models * tiles * self.nll_tiles,)](
            self.grads[index],
            self.columns[:, :, self.bias_starts[index] :],
            self.nll_parts,
            self.inputs[index],
            self.weights[0][index],
            self._bias(0, index),
            self.images,
            self.batch,
            self.models // self.streams,
            self.bias_total,
            self.tiles,
            1.0 if bernoulli else 0.5 / network.decoder_variance,
            (1.0 if bernoulli else 1.0 / network.decoder_variance) / self.batch,
            P=network.pixels,
            K=k,
            N=n,
            BERNOULLI=bernoulli,
            LINEAR=network.linear,
            PRECISION=self.precision,
            BLOCK_B=row.rows,
            BLOCK_N=row.cols,
            BLOCK_K=_block(row.depth, k),
            **row.options,
        )

    def _backward(self, beta: Tensor) -> None:
        row, network = self.backward_row, self.network
        tiles = triton.cdiv(self.batch, row.rows)
        for index in reversed(range(1, len(self.sizes))):
            k, n = self.sizes[index]
            grad, weight = self.grads[index], self.weights[0][index]
            columns = self.columns[:, :, self.bias_starts[index - 1] :]
            if index == self.half:
                latent_gradient_kernel[(self.models * tiles,)](
                    self.grads[index - 1],
                    columns,
                    grad,
                    weight,
                    self.stats,
                    self.noise,
                    beta,
                    self.batch,
                    self.bias_total,
                    self.tiles,
                    1.0 / self.batch,
                    SAMPLE=network.kl == "sample",
                    L=network.latents,
                    LP=k,
                    N=n,
                    PRECISION=self.precision,
                    BLOCK_B=row.rows,
                    BLOCK_L=triton.next_power_of_2(k),
                    BLOCK_N=_block(row.depth, n),
                    **row.options,
                )
                continue
            hidden_gradient_kernel[(self.models * tiles * triton.cdiv(k, row.cols),)](
                self.grads[index - 1],
                columns,
                grad,
                weight,
                self.inputs[index],
                self.batch,
                self.bias_total,
                self.tiles,
                K=k,
                N=n,
                PRECISION=self.precision,
                BLOCK_B=row.rows,
                BLOCK_K=row.cols,
                BLOCK_N=_block(row.depth, n),
                **row.options,
            )

    def _update(self, nll: Tensor, kl: Tensor) -> None:
        network, row = self.network, self.finish_row
        constant = 0.5 * network.pixels * math.log(2.0 * math.pi * network.decoder_variance)
        finish_kernel[(self.models,)](
            nll,
            self.alive,
            self.count,
            *self.biases,
            self.nll_parts,
            kl,
            self.columns,
            self.learning_rate,
            self.batch,
            self.nll_tiles,
            self.tiles,
            self.bias_total,
            0.0 if network.likelihood == "bernoulli" else constant,
            BLOCK=row.cols,
            **row.options,
        )
        row = self.weights_row
        weights_kernel[(self.programs,)](
            *self.states,
            self.activations,
            self.alive,
            self.count,
            self.learning_rate,
            self.layers,
            self.batch,
            LAYERS=len(self.sizes),
            PRECISION=self.precision,
            BLOCK_K=row.rows,
            BLOCK_N=row.cols,
            BLOCK_B=row.depth,
            **row.options,
        )


def _cut(flat: Tensor, shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """Cut flat memory into tensors, one after the other."""
    pieces = flat.split([math.prod(shape) for shape in shapes])
    return [piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True)]
