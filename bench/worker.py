"""One tree's side of a comparison: times what it is told to, and prints the seconds.

    python worker.py TREE [SECONDS [BENCHMARK ...]]

It is run by its path, not as a module, and uses the tree's public names only, so that one copy of
it times any two commits. A line on stdin is the name of a benchmark; the answer is a line with its
seconds. What each benchmark must compute is checked once, before the first time. A time is taken
over SECONDS at least.
"""

import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

TREE = Path(sys.argv[1]).resolve()
# Before an installed vaekit, which the names below would otherwise be those of.
sys.path[:0] = [str(TREE), str(TREE / "kernels")]

import vaekit_kernels as ops  # noqa: E402
from vaekit.config import SweepConfig  # noqa: E402
from vaekit.progress import Silent  # noqa: E402
from vaekit.stack import Stack  # noqa: E402
from vaekit.train import train  # noqa: E402

CPU = torch.device("cpu")
MODELS, BATCH, PIXELS, LATENTS = 11, 128, 441, 9
BETAS = tuple(0.5 * (index + 1) for index in range(MODELS))


def training() -> None:
    """Ten steps of eleven default models, from the images to the weights."""
    config = SweepConfig(mu=(0.0,), beta=BETAS, steps=10, device="cpu")
    train(config, Stack((0.0,), (0,), BETAS), CPU, Silent())


def generator() -> Tensor:
    """A batch of images of eleven streams."""
    index = torch.arange(MODELS)
    labels = (0.5 * index, index, ops.float_ids(0.25 * index))
    for _ in range(4):
        images = ops.sigmoid_grid(*labels, step=5, batch=BATCH, backend="torch")
    return images


def pixel_side() -> Tensor:
    """NLL of eleven models' images, and its gradient."""
    generator = torch.Generator().manual_seed(0)
    output = torch.randn(MODELS, BATCH, PIXELS, generator=generator).requires_grad_()
    image = torch.rand(1, BATCH, PIXELS, generator=generator)
    for _ in range(8):
        nll = ops.pixel_nll(output, image, backend="torch")
        (gradient,) = torch.autograd.grad(nll.sum(), output)
    expected = (output.sigmoid() - image).square().sum(-1) / 0.5
    constant = nll - expected
    if not torch.allclose(constant, constant.mean().expand_as(constant), atol=1e-2):
        raise SystemExit("pixel side: not a Gaussian NLL of variance 0.25")
    return gradient


def latent_side() -> tuple[Tensor, ...]:
    """Reparameterisation and KL of eleven models, and their gradients."""
    generator = torch.Generator().manual_seed(0)
    mean, logvar, noise = torch.randn(3, MODELS, BATCH, LATENTS, generator=generator)
    mean.requires_grad_()
    logvar.requires_grad_()
    for _ in range(16):
        z, kl = ops.reparameterise(mean, logvar, noise, backend="torch")
        gradient = torch.autograd.grad(z.sum() + kl.sum(), (mean, logvar))
    expected = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum(-1)
    if not torch.allclose(kl, expected, rtol=1e-4, atol=1e-4):
        raise SystemExit("latent side: not the KL of a Gaussian")
    return gradient


BENCHMARKS = {
    "training": training,
    "generator": generator,
    "pixel side": pixel_side,
    "latent side": latent_side,
}


# A shorter time is mostly the scheduler's.
SHORTEST_SECONDS = float(sys.argv[2]) if len(sys.argv) > 2 else 0.2
NAMES = sys.argv[3:] or list(BENCHMARKS)


def seconds(run: Callable[[], object], repeats: int) -> float:
    """Mean seconds of a run among some."""
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - start) / repeats


def main() -> None:
    """Answer every line with the seconds of the benchmark that it names."""
    for module in (sys.modules["vaekit"], ops):
        if not Path(str(module.__file__)).is_relative_to(TREE):
            raise SystemExit(f"{module.__file__} is not of {TREE}")
    repeats = {}
    for name in NAMES:
        run = BENCHMARKS[name]
        run()
        repeats[name] = math.ceil(SHORTEST_SECONDS / seconds(run, 3))
    print("ready", *NAMES, sep=",", flush=True)
    for line in sys.stdin:
        name = line.strip()
        print(seconds(BENCHMARKS[name], repeats[name]), flush=True)


if __name__ == "__main__":
    main()
