"""The training step of `step` as pure functions, which torch.compile makes into one program.

The same algebra as `TorchStep` without its buffers: the compiler fuses what lies between the
products, and the host calls one program where it called seventy operations. The forward pass is the
definition's; the backward pass is written out, as the program that autograd leads to is slower.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vaekit.adam import Adam, healthy
from vaekit.compiler import program
from vaekit.config import SweepConfig
from vaekit.host import keep_freed_memory
from vaekit.model import Layer
from vaekit.products import fast_products, product_library
from vaekit.state import State
from vaekit_kernels import Draw, reference


class CompiledStep:
    """An engine (see `step.Step`) whose terms and gradients are one program, built with it."""

    name = "compiled"

    def __init__(self, config: SweepConfig, state: State, streams: int) -> None:
        self.config = config
        self.state = state
        self.half = len(state.vae.architecture.encoder)
        self.update = Adam(state)
        flat = state.vae.flat
        # oneDNN would copy a broadcast image in each of its two products.
        self.copied = product_library(flat.device) == "onednn"
        keep_freed_memory()  # a program allocates what it returns
        with torch.no_grad(), fast_products(flat.device):
            self.gradients = program(
                self._gradients,
                state.vae.layers,
                flat.new_zeros(streams, config.batch, config.pixels),
                flat.new_zeros(state.vae.models, config.batch, config.latents),
                flat.new_zeros(state.vae.models),
            )

    def __call__(self, images: Tensor, noise: Tensor | Draw, beta: Tensor) -> tuple[Tensor, Tensor]:
        """See `Step`."""
        if isinstance(noise, Draw):
            noise = noise.normals(self.config.batch, self.config.latents)
        nll, kl, gradients = self.gradients(self.state.vae.layers, images, noise, beta)
        self.update(healthy(nll, kl, gradients), gradients)
        return nll, kl

    def save(self, *, moments: bool = True) -> State:
        """See `Step`."""
        del moments
        return self.state

    def _gradients(
        self, layers: list[Layer], images: Tensor, noise: Tensor, beta: Tensor
    ) -> tuple[Tensor, Tensor, list[Layer]]:
        """Compute nll [M, B], kl [M, B] and the gradient of every layer."""
        config, half = self.config, self.half
        streams, batch, pixels = images.shape
        x = images[:, None].expand(streams, len(beta) // streams, batch, pixels)
        x = x.reshape(len(beta), batch, pixels)
        encoder, encoded = _forward(layers[:half], x.contiguous() if self.copied else x)
        mean, logvar = encoded.chunk(2, dim=-1)
        z, kl = reference.reparameterise(mean, logvar, noise, kl=config.kl)
        decoder, output = _forward(layers[half:], z)
        nll = reference.pixel_nll(
            output,
            images,
            likelihood=config.likelihood,
            decoder_variance=config.decoder_variance,
            linear=config.decoder_output == "linear",
        )

        inputs = encoder + decoder
        grad = self._output_gradient(output, images)
        gradients: list[Layer] = []
        for index in reversed(range(len(layers))):
            given = inputs[index]
            gradients.append((torch.bmm(given.transpose(1, 2), grad), grad.sum(dim=1)))
            if index == 0:
                break
            grad = torch.bmm(grad, layers[index][0].transpose(1, 2))
            if index == half:
                grad = self._latent_gradient(grad, mean, logvar, z, noise, beta)
            else:
                grad = torch.where(given <= 0.0, 0.0, grad)
        return nll, kl, gradients[::-1]

    def _output_gradient(self, output: Tensor, images: Tensor) -> Tensor:
        """Differentiate the NLL by the decoder's output [M, B, P]."""
        config = self.config
        variance = 1.0 if config.likelihood == "bernoulli" else config.decoder_variance
        y = output if config.decoder_output == "linear" else torch.sigmoid(output)
        error = y.unflatten(0, (len(images), -1)) - images[:, None]
        grad = error.flatten(0, 1) / (variance * images.shape[1])
        squashed = config.likelihood == "gaussian" and config.decoder_output == "sigmoid"
        return grad * y * (1.0 - y) if squashed else grad

    def _latent_gradient(
        self, grad_z: Tensor, mean: Tensor, logvar: Tensor, z: Tensor, noise: Tensor, beta: Tensor
    ) -> Tensor:
        """Differentiate the loss by mean and logvar, side by side [M, B, 2L]."""
        weight = (beta / mean.shape[1])[:, None, None]
        std = torch.exp(0.5 * logvar)
        if self.config.kl == "analytic":
            grad_mean = grad_z + weight * mean
            grad_logvar = 0.5 * (grad_z * noise * std + weight * torch.expm1(logvar))
        else:
            grad_mean = grad_z + weight * z
            grad_logvar = 0.5 * (grad_mean * noise * std - weight)
        return torch.cat((grad_mean, grad_logvar), dim=-1)


def _forward(layers: list[Layer], x: Tensor) -> tuple[list[Tensor], Tensor]:
    """Apply stacked layers with ReLU between them; return every layer's input, and the output."""
    inputs = []
    for index, (weight, bias) in enumerate(layers):
        inputs.append(x)
        x = torch.baddbmm(bias[:, None], x, weight)
        x = torch.relu(x) if index < len(layers) - 1 else x
    return inputs, x
