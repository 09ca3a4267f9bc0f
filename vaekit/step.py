"""One training step of a stack, as engines with one algebra and one interface.

`ReferenceStep` differentiates the objective with autograd: it is the definition. `TorchStep` has
the backward pass written out, with every buffer allocated once, `compiled_step.CompiledStep` as one
program, and `TritonStep` in kernels. All take images and noise, update the state in place with
Adam, and return the two terms of the objective for every model and sample.

With y = decoder(z), z = m + e^{v/2} eps, samples averaged and models summed (g is a gradient):

    output      g_a = (y - x) y (1 - y) / (s^2 B)   Gaussian; a linear output has no y (1 - y)
                g_a = (y - x) / B                   Bernoulli
    layer       g_W = h^T g,  g_b = sum_B g,  g_h = g W^T where h > 0
    analytic KL g_m = g_z + beta m / B,  g_v = g_z eps e^{v/2} / 2 + beta (e^v - 1) / (2 B)
    sampled KL  g_z' = g_z + beta z / B, g_m = g_z',  g_v = g_z' eps e^{v/2} / 2 - beta / (2 B)
    Adam        a <- b1 a + (1 - b1) g,  q <- b2 q + (1 - b2) g^2
                w <- w - lr a / (1 - b1^t) / (sqrt(q / (1 - b2^t)) + eps)

Nothing in any engine mixes models, so a model that blows up leaves its neighbours' bits alone.

Source of Adam: Kingma and Ba 2015, arXiv:1412.6980, algorithm 1.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from vaekit.adam import Adam, healthy
from vaekit.config import SweepConfig
from vaekit.model import Layer
from vaekit.objective import loss, terms
from vaekit.state import State
from vaekit_kernels import Draw

if TYPE_CHECKING:
    from vaekit_kernels.training_step import Precision


class Step(Protocol):
    """An engine: one Adam step of all models of a stack."""

    name: str
    state: State

    def __call__(self, images: Tensor, noise: Tensor | Draw, beta: Tensor) -> tuple[Tensor, Tensor]:
        """Train one step in place.

        Args:
            images: [S, B, P], each stream shared by M / S models.
            noise: [M, B, L], or the labels to draw it from.
            beta: [M], the betas in force at this step.

        Returns:
            nll [M, B] and kl [M, B] before the update.
        """
        ...

    def save(self, *, moments: bool = True) -> State:
        """Bring the state up to date, where the engine has worked on a copy, and return it.

        Args:
            moments: Adam's too; they may be left as they were where nobody goes on training.
        """
        ...


class ReferenceStep:
    """The definition: autograd through `objective.terms` on the stacked tensors."""

    name = "reference"

    def __init__(self, config: SweepConfig, state: State) -> None:
        self.config = config
        self.state = state
        self.update = Adam(state)

    def __call__(self, images: Tensor, noise: Tensor | Draw, beta: Tensor) -> tuple[Tensor, Tensor]:
        """See `Step`."""
        split = self.state.vae.architecture.split
        with torch.enable_grad():
            flat = self.state.vae.flat.detach().requires_grad_()
            nll, kl = terms(self.config, split(flat), images, noise)
            (gradient,) = torch.autograd.grad(loss(nll, kl, beta), flat)
        nll, kl, gradients = nll.detach(), kl.detach(), split(gradient)
        self.update(healthy(nll, kl, gradients), gradients)
        return nll, kl

    def save(self, *, moments: bool = True) -> State:
        """See `Step`."""
        del moments
        return self.state


class TorchStep:
    """The same step with its backward pass written out and its buffers allocated once.

    With bf16 products the weights are rounded once a step and activations and their gradients are
    stored rounded, as are the gradients of weights and biases before Adam reads them; what products
    sum, the terms, Adam and the parameters stay float32.
    """

    name = "torch"

    def __init__(self, config: SweepConfig, state: State, streams: int) -> None:
        vae = state.vae
        self.config = config
        self.state = state
        self.streams = streams
        self.half = len(vae.architecture.encoder)
        self.gradient = torch.zeros_like(vae.flat)
        self.gradients = vae.architecture.split(self.gradient)
        self.update = Adam(state)

        shape = (vae.models, config.batch)
        self.images = vae.flat.new_empty(*shape, config.pixels)
        # What the products read and write: the tensors above, or their like in bfloat16.
        dtype = torch.bfloat16 if config.precision == "bf16" else vae.flat.dtype
        self.parameters_in = vae.flat.to(dtype)
        self.gradient_out = self.gradient.to(dtype)
        self.images_in = self.images.to(dtype)
        self.layers = vae.architecture.split(self.parameters_in)
        self.products = vae.architecture.split(self.gradient_out)
        # outputs[i] is layer i's output after its ReLU; grads[i] is the gradient of the same.
        self.outputs = [self.images_in.new_empty(*shape, out) for _, out in vae.architecture.sizes]
        self.grads = [torch.empty_like(output) for output in self.outputs]
        self.grad_z = self.images_in.new_empty(*shape, config.latents)
        self.output_grad = self.grads[-1].to(vae.flat.dtype)
        self.latent_grad = self.grads[self.half - 1].to(vae.flat.dtype)

    def __call__(self, images: Tensor, noise: Tensor | Draw, beta: Tensor) -> tuple[Tensor, Tensor]:
        """See `Step`."""
        models, batch, pixels = self.images.shape
        if isinstance(noise, Draw):
            noise = noise.normals(batch, self.config.latents)
        # One copy for every model: the batched product would copy a broadcast image twice a step.
        shared = self.images.view(self.streams, models // self.streams, batch, pixels)
        shared.copy_(images[:, None].expand_as(shared))
        _copy(self.images_in, self.images)
        _copy(self.parameters_in, self.state.vae.flat)
        wide = self.images.dtype

        mean, logvar = self._forward(slice(0, self.half), self.images_in).to(wide).chunk(2, dim=-1)
        std = torch.exp(0.5 * logvar)
        z = torch.addcmul(mean, std, noise)
        z_in = z.to(self.images_in.dtype)
        output = self._forward(slice(self.half, None), z_in)

        nll = self._output_gradient(output.to(wide), images)
        self._backward(slice(self.half, None), z_in, self.grad_z)
        kl = self._latent_gradient(mean, logvar, std, z, noise, beta)
        self._backward(slice(0, self.half), self.images_in, None)
        _copy(self.gradient, self.gradient_out)
        self.update(healthy(nll, kl, self.gradients), self.gradients)
        return nll, kl

    def save(self, *, moments: bool = True) -> State:
        """See `Step`."""
        del moments
        return self.state

    def _forward(self, part: slice, x: Tensor) -> Tensor:
        layers, outputs = self.layers[part], self.outputs[part]
        for index, ((weight, bias), output) in enumerate(zip(layers, outputs, strict=True)):
            torch.baddbmm(bias[:, None], x, weight, out=output)
            x = output.clamp_min_(0.0) if index < len(layers) - 1 else output
        return x

    def _output_gradient(self, output: Tensor, images: Tensor) -> Tensor:
        """Write the gradient of the decoder's output; return the NLL of every model and sample."""
        config, grad = self.config, self.output_grad
        batch, pixels = output.shape[1:]
        variance = 1.0 if config.likelihood == "bernoulli" else config.decoder_variance
        scale = 1.0 / (variance * batch)
        if config.likelihood == "bernoulli":
            terms = output.clamp(min=0.0) + torch.log1p(torch.exp(-output.abs()))
            nll = terms.sub_(output * self.images).sum(-1)
        y = output if config.decoder_output == "linear" else output.sigmoid_()
        # scale (y - x) in one pass, which reads a stream's images once for all of its models.
        by_stream = (self.streams, -1, batch, pixels)
        torch.add(
            (images * -scale)[:, None], y.view(by_stream), alpha=scale, out=grad.view(by_stream)
        )
        if config.likelihood == "gaussian":
            nll = torch.linalg.vector_norm(grad, dim=-1).square_().div_(2.0 * variance * scale**2)
            nll.add_(0.5 * pixels * math.log(2.0 * math.pi * variance))
            if config.decoder_output == "sigmoid":
                torch.ops.aten.sigmoid_backward.grad_input(grad, y, grad_input=grad)
        _copy(self.grads[-1], grad)
        return nll

    def _latent_gradient(
        self, mean: Tensor, logvar: Tensor, std: Tensor, z: Tensor, noise: Tensor, beta: Tensor
    ) -> Tensor:
        """Write the gradient of mean and logvar; return the KL of every model and sample."""
        grad_mean, grad_logvar = self.latent_grad.chunk(2, dim=-1)
        grad_z = self.grad_z.to(mean.dtype)
        weight = (beta / mean.shape[1])[:, None, None]
        if self.config.kl == "analytic":
            excess = torch.expm1(logvar)
            kl = 0.5 * (mean.square() + excess - logvar).sum(-1)
            torch.addcmul(grad_z, weight, mean, out=grad_mean)
            torch.mul(grad_z, noise, out=grad_logvar).mul_(std)
            grad_logvar.addcmul_(weight, excess).mul_(0.5)
        else:
            kl = 0.5 * (z.square() - noise.square() - logvar).sum(-1)
            torch.addcmul(grad_z, weight, z, out=grad_mean)
            torch.mul(grad_mean, noise, out=grad_logvar).mul_(std).sub_(weight).mul_(0.5)
        _copy(self.grads[self.half - 1], self.latent_grad)
        return kl

    def _backward(self, part: slice, x: Tensor, grad_x: Tensor | None) -> None:
        """Write the parameters' gradients of one network, and its input's unless it is an image."""
        layers: list[Layer] = self.layers[part]
        outputs, grads, products = self.outputs[part], self.grads[part], self.products[part]
        inputs = [x, *outputs[:-1]]
        for index in reversed(range(len(layers))):
            grad_weight, grad_bias = products[index]
            torch.bmm(inputs[index].transpose(1, 2), grads[index], out=grad_weight)
            torch.sum(grads[index], dim=1, out=grad_bias)
            target = grads[index - 1] if index else grad_x
            if target is None:
                continue
            torch.bmm(grads[index], layers[index][0].transpose(1, 2), out=target)
            if index:
                torch.ops.aten.threshold_backward.grad_input(
                    target, inputs[index], 0.0, grad_input=target
                )


def _copy(target: Tensor, source: Tensor) -> None:
    """Round into another dtype; nothing to do where both are one tensor."""
    if target.data_ptr() != source.data_ptr():
        target.copy_(source)


# What a kernel's products call the configuration's precisions.
PRODUCTS: dict[str, Precision] = {
    "float32": "ieee",
    "tf32x3": "tf32x3",
    "tf32": "tf32",
    "bf16": "bf16",
}


class TritonStep:
    """The same step in fused kernels, which keep the parameters and moments in their own layout."""

    name = "triton"

    def __init__(
        self,
        config: SweepConfig,
        state: State,
        streams: int,
        *,
        models: slice = slice(None),
        aside: torch.cuda.Stream | None = None,
    ) -> None:
        """Take a state over, or a part of it.

        Args:
            config: of the models.
            state: of M models.
            streams: S, a divisor of the models taken.
            models: which of them.
            aside: stream of the card on which weights are updated, if not on the one at hand.
        """
        # Not before it is asked for: there is no Triton on most platforms.
        from vaekit_kernels.training_step import FusedStep, Network

        self.state = state
        # The kernels keep moments of their own, so the state's wait on the host until they are
        # saved. Before the first step there are none to move.
        begun = bool(state.steps)
        for moment in (state.exp_avg, state.exp_avg_sq):
            if moment.is_cuda:
                moment.data = moment.cpu() if begun else torch.zeros(moment.shape)
        architecture = state.vae.architecture
        network = Network(
            encoder=architecture.encoder,
            decoder=architecture.decoder,
            likelihood=config.likelihood,
            decoder_variance=config.decoder_variance,
            linear=architecture.linear_output,
            kl=config.kl,
        )
        self.fused = FusedStep(
            network,
            streams=streams,
            learning_rate=state.learning_rate[models],
            stopped=state.stopped[models],
            batch=config.batch,
            precision=PRODUCTS[config.precision],
            aside=aside,
        )
        self.kinds = [
            [(weight[models], bias[models]) for weight, bias in architecture.split(flat)]
            for flat in (state.vae.flat, state.exp_avg, state.exp_avg_sq)
        ]
        self.fused.memory.load(self.kinds if begun else self.kinds[:1], state.steps)

    def __call__(self, images: Tensor, noise: Tensor | Draw, beta: Tensor) -> tuple[Tensor, Tensor]:
        """See `Step`."""
        return self.fused(images, noise, beta)

    def save(self, *, moments: bool = True) -> State:
        """See `Step`."""
        self.fused.memory.store(self.kinds if moments else self.kinds[:1], self.state.steps)
        # Negative where the last step's weight gradients stopped a model.
        self.fused.stopped.abs_()
        return self.state
