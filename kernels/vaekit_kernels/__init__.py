"""The ops of the sigmoid-grid experiment, each with a torch definition and Triton kernels.

Every op takes `backend`: "torch" is its definition in `reference`; "triton" is its kernel, and an
error where that cannot run; "auto" is the kernel for tensors on CUDA where Triton is installed, and
the definition everywhere else. Importing this package does not import Triton.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from typing import Literal, get_args

from torch import Tensor

from . import arguments, reference
from .philox import Draw, Stream, float_ids
from .reference import Kl, Likelihood

__all__ = [
    "Backend",
    "Draw",
    "Kl",
    "Likelihood",
    "Stream",
    "float_ids",
    "pixel_nll",
    "render",
    "reparameterise",
    "runs_triton",
    "sigmoid_grid",
]

Backend = Literal["auto", "triton", "torch"]


@cache
def _installed() -> bool:
    return importlib.util.find_spec("triton") is not None


def runs_triton(backend: Backend, tensor: Tensor) -> bool:
    """Decide which of an op's two forms runs: the one dispatch of this package.

    Args:
        backend: see the module.
        tensor: the op's first argument; its device decides.

    Raises:
        ValueError: "triton" is asked for where it cannot run, or the backend is unknown.
    """
    if backend not in get_args(Backend):
        raise ValueError(f"backend: got {backend!r}; allowed: {', '.join(get_args(Backend))}")
    if backend == "torch":
        return False
    if backend == "auto":
        return tensor.is_cuda and _installed()
    if not _installed():
        raise ValueError("backend: got 'triton'; allowed: auto or torch, Triton is not installed")
    from triton import knobs

    if not tensor.is_cuda and not (tensor.device.type == "cpu" and knobs.runtime.interpret):
        raise ValueError(
            f"backend: got 'triton' for a tensor on {tensor.device}; allowed: auto or torch, or a "
            "tensor on CUDA (on the CPU only in Triton's interpreter, TRITON_INTERPRET=1)"
        )
    return True


def render(intensity: Tensor, *, grid: int, tile: int, backend: Backend = "auto") -> Tensor:
    """Draw tile images; defined by `reference.render`, arguments and result as there.

    Raises:
        ValueError: an argument has a wrong shape, dtype or device, or Triton cannot take it.
    """
    arguments.check_render(intensity, grid, tile)
    if runs_triton(backend, intensity):
        from . import generator

        return generator.render(intensity, grid=grid, tile=tile)
    return reference.render(intensity, grid=grid, tile=tile)


def sigmoid_grid(
    mu: Tensor,
    seeds: Tensor,
    ids: Tensor,
    step: int | Tensor,
    *,
    batch: int,
    grid: int = 3,
    tile: int = 7,
    noise_variance: float = 0.25,
    linear: bool = False,
    truth_stream: int = Stream.IMAGE_TRUTH,
    noise_stream: int = Stream.IMAGE_NOISE,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]:
    """Draw noisy images and their truths; defined by `reference.sigmoid_grid`, as there.

    Raises:
        ValueError: an argument has a wrong shape, dtype or device, or Triton cannot take it.
    """
    arguments.check_sigmoid_grid(mu, seeds, ids, step, batch, grid, tile, noise_variance)
    draw = reference.sigmoid_grid
    if runs_triton(backend, mu):
        from . import generator

        draw = generator.sigmoid_grid
    return draw(
        mu,
        seeds,
        ids,
        step,
        batch=batch,
        grid=grid,
        tile=tile,
        noise_variance=noise_variance,
        linear=linear,
        truth_stream=truth_stream,
        noise_stream=noise_stream,
    )


def reparameterise(
    mean: Tensor,
    logvar: Tensor,
    noise: Tensor | Draw,
    *,
    kl: Kl = "analytic",
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]:
    """Draw latents and charge each sample its KL; defined by `reference.reparameterise`, as there.

    Gradients flow to mean and logvar, and by the definition to noise that is given.

    Raises:
        ValueError: an argument has a wrong shape, dtype or device, or Triton cannot take it.
    """
    arguments.check_reparameterise(mean, logvar, noise, kl)
    if runs_triton(backend, mean):
        from . import latent

        return latent.reparameterise(mean, logvar, noise, kl=kl)
    return reference.reparameterise(mean, logvar, noise, kl=kl)


def pixel_nll(
    output: Tensor,
    image: Tensor,
    *,
    likelihood: Likelihood = "gaussian",
    decoder_variance: float = 0.25,
    linear: bool = False,
    backend: Backend = "auto",
) -> Tensor:
    """Charge each sample its -log p(x|z); defined by `reference.pixel_nll`, as there.

    Gradients flow to output, and by the definition to image.

    Raises:
        ValueError: an argument has a wrong shape, dtype or device, or Triton cannot take it.
    """
    arguments.check_pixel_nll(output, image, likelihood, decoder_variance)
    charge = reference.pixel_nll
    if runs_triton(backend, output):
        from . import pixel

        charge = pixel.pixel_nll
    return charge(
        output, image, likelihood=likelihood, decoder_variance=decoder_variance, linear=linear
    )
