"""One training step of a stack of VAEs in fused kernels, without autograd and without a host sync.

    images -> hidden layers -> latents, KL -> hidden layers -> output, NLL, its gradient
           -> gradients of the hidden layers and of the latents, back to the first layer
           -> Adam on the biases, and decides which models go on -> weights' gradient and Adam

The definition is autograd on the objective with Adam (`vaekit.step.ReferenceStep`); the algebra is
written out there. Bytes that must move in a step, a parameter: 24 for w and Adam's moments, 4 for
the product forward, 4 for the one backward (which the first layer does not have). Products of
bfloat16 read a copy of w: 2 for each of the two, and 2 to write it.

A step is a fixed list of launches on memory that is allocated once, so that it can be captured in a
CUDA graph. What changes from step to step (images, noise or its labels, beta) is read from tensors.
"""

from __future__ import annotations

import math

import torch
import triton
from torch import Tensor

from vaekit_kernels.arguments import each_step
from vaekit_kernels.launch import on_device, pinned
from vaekit_kernels.philox import Draw

from .backward import hidden_gradient_kernel, latent_gradient_kernel
from .forward import hidden_kernel, latent_kernel, output_kernel
from .memory import Memory, Network
from .product import Precision
from .update import finish_kernel, weights_kernel

__all__ = ["FusedStep", "Network", "Precision"]


def _block(pinned: int, size: int) -> int:
    """Take no more of an axis at once than there is, up to a power of two."""
    return min(pinned, triton.next_power_of_2(size))


class FusedStep:
    """The step's memory and launches.

    `memory.load` and `memory.store` translate from and to plain layers.
    """

    def __init__(
        self,
        network: Network,
        *,
        streams: int,
        learning_rate: Tensor,
        stopped: Tensor,
        batch: int,
        precision: Precision,
        aside: torch.cuda.Stream | None = None,
    ) -> None:
        """Allocate everything.

        Args:
            network: of every model.
            streams: S; the models of a stream are neighbours and share its images.
            learning_rate: [M] float64 on the device to train on.
            stopped: [M] int64, read and written by every step: 0 for a model that trains, else
                the step that stopped it, negative where its weights' gradient did and no step came
                after.
            batch: B.
            precision: of the products.
            aside: stream on which weights are updated, if not on the one at hand.

        Raises:
            ValueError: the models do not divide among the streams.
        """
        models, device = len(learning_rate), learning_rate.device
        if streams < 1 or models % streams:
            raise ValueError(f"streams: got {streams}; allowed: a divisor of {models} models")
        self.network, self.batch, self.precision = network, batch, precision
        self.models, self.streams, self.device = models, streams, device
        self.learning_rate = learning_rate
        self.stopped = stopped
        self.aside = aside
        self.memory = Memory(
            network,
            streams=streams,
            models=models,
            batch=batch,
            precision=precision,
            device=device,
        )
        self.row = pinned(f"step_forward_{precision}", device)
        self.output_row = pinned(f"step_output_{precision}", device)
        self.backward_row = pinned(f"step_backward_{precision}", device)
        self.weights_row = pinned(f"step_weights_{precision}", device)
        self.finish_row = pinned("step_finish", device)
        # Kernels that take more samples a program leave fewer partial sums; the rest stay zero.
        rows = min(self.output_row.rows, self.backward_row.rows)
        self.tiles = triton.cdiv(batch, rows)
        self.nll_tiles = triton.cdiv(self.memory.sizes[-1][1], self.output_row.cols)
        self.columns = torch.zeros(models, self.tiles, self.memory.bias_total, device=device)
        self.nll_parts = torch.zeros(models, self.nll_tiles, batch, device=device)
        self.layers, self.programs = self._layers()

    def _layers(self) -> tuple[Tensor, int]:
        """Make the table that `weights_kernel` finds its layer in, and count its programs."""
        row, memory = self.weights_row, self.memory
        programs, table = 0, []
        for index, (k, n) in enumerate(memory.sizes):
            places = (memory.inputs[index], memory.grads[index], memory.weights[0][index])
            starts = [tensor.storage_offset() for tensor in places]
            table.append([programs, k, n, memory.share(index), *starts])
            programs += self.models * triton.cdiv(k, row.rows) * triton.cdiv(n, row.cols)
        return torch.tensor(table, dtype=torch.int64, device=self.device), programs

    def __call__(self, images: Tensor, noise: Tensor | Draw, beta: Tensor) -> tuple[Tensor, Tensor]:
        """Train one step.

        Args:
            images: [S, B, P] float32.
            noise: [M, B, L] float32, or the labels to draw it from.
            beta: [M] float32.

        Returns:
            nll and kl [M, B] in nats, before the update.
        """
        self.memory.images[:, :, : self.network.pixels].copy_(images)
        nll, kl = (
            torch.empty(self.models, self.batch, dtype=torch.float32, device=self.device)
            for _ in range(2)
        )
        with on_device(images):
            self._forward(noise, kl)
            self._backward(beta)
            self._finish(nll, kl)
            if self.aside is None:
                self._weights()
                return nll, kl
            here = torch.cuda.current_stream(self.device)
            self.aside.wait_stream(here)
            try:
                with torch.cuda.stream(self.aside):
                    self._weights()
            finally:
                here.wait_stream(self.aside)
        return nll, kl

    def _forward(self, noise: Tensor | Draw, kl: Tensor) -> None:
        row, last = self.row, len(self.memory.sizes) - 1
        for index, (k, n) in enumerate(self.memory.sizes[:last]):
            tiles = triton.cdiv(self.batch, row.rows)
            if index == self.memory.half - 1:
                self._latents(noise, kl)
                continue
            hidden_kernel[(self.models * tiles * triton.cdiv(n, row.cols),)](
                self.memory.inputs[index + 1],
                self.memory.inputs[index],
                self.memory.operands[index],
                self.memory.bias(0, index),
                self.batch,
                self.memory.share(index),
                self.memory.bias_total,
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
        row, index = self.row, self.memory.half - 1
        given = seeds = ids = steps = None
        stream = 0
        if isinstance(noise, Draw):
            seeds, ids, stream = noise.seeds, noise.ids, int(noise.stream)
            steps = each_step(noise.step, self.models, self.device)
        else:
            given = noise.contiguous()
        k, width = self.memory.sizes[index]
        latent_kernel[(self.models * triton.cdiv(self.batch, row.rows),)](
            self.memory.stats,
            self.memory.noise,
            self.memory.inputs[index + 1],
            kl,
            self.memory.inputs[index],
            self.memory.operands[index],
            self.memory.bias(0, index),
            given,
            seeds,
            ids,
            steps,
            self.batch,
            self.memory.share(index),
            self.memory.bias_total,
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
        row, network, index = self.output_row, self.network, len(self.memory.sizes) - 1
        k, n = self.memory.sizes[index]
        bernoulli = network.likelihood == "bernoulli"
        tiles = triton.cdiv(self.batch, row.rows)
        output_kernel[(self.models * tiles * self.nll_tiles,)](
            self.memory.grads[index],
            self.memory.transposed[index],
            self.columns[:, :, self.memory.bias_starts[index] :],
            self.nll_parts,
            self.memory.inputs[index],
            self.memory.operands[index],
            self.memory.bias(0, index),
            self.memory.images,
            self.batch,
            self.memory.stride,
            self.models // self.streams,
            self.memory.bias_total,
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
        for index in reversed(range(1, len(self.memory.sizes))):
            k, n = self.memory.sizes[index]
            grad, weight = self.memory.grads[index], self.memory.operands[index]
            columns = self.columns[:, :, self.memory.bias_starts[index - 1] :]
            if index == self.memory.half:
                latent_gradient_kernel[(self.models * tiles,)](
                    self.memory.grads[index - 1],
                    self.memory.transposed[index - 1],
                    columns,
                    grad,
                    weight,
                    self.memory.stats,
                    self.memory.noise,
                    beta,
                    self.batch,
                    self.memory.stride,
                    self.memory.bias_total,
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
                self.memory.grads[index - 1],
                self.memory.transposed[index - 1],
                columns,
                grad,
                self.memory.transposed[index],
                weight,
                self.memory.inputs[index],
                self.batch,
                self.memory.stride,
                self.memory.bias_total,
                self.tiles,
                K=k,
                N=n,
                PRECISION=self.precision,
                BLOCK_B=row.rows,
                BLOCK_K=row.cols,
                BLOCK_N=_block(row.depth, n),
                **row.options,
            )

    def _finish(self, nll: Tensor, kl: Tensor) -> None:
        network, row = self.network, self.finish_row
        constant = 0.5 * network.pixels * math.log(2.0 * math.pi * network.decoder_variance)
        finish_kernel[(self.models,)](
            nll,
            self.stopped,
            self.memory.count,
            *self.memory.biases,
            self.nll_parts,
            kl,
            self.columns,
            self.learning_rate,
            self.batch,
            self.memory.bias_total,
            0.0 if network.likelihood == "bernoulli" else constant,
            NLL_TILES=self.nll_tiles,
            TILES=self.tiles,
            BLOCK=row.cols,
            **row.options,
        )

    def _weights(self) -> None:
        row = self.weights_row
        weights_kernel[(self.programs,)](
            *self.memory.states,
            self.memory.rounded,
            self.stopped,
            self.memory.activations,
            self.memory.count,
            self.learning_rate,
            self.layers,
            self.batch,
            LAYERS=len(self.memory.sizes),
            PRECISION=self.precision,
            BLOCK_K=row.rows,
            BLOCK_N=row.cols,
            BLOCK_B=row.depth,
            PARTS=row.parts,
            **row.options,
        )
