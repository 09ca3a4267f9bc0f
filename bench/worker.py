"""One tree's side of a comparison: times what it is told to, and prints the seconds.

    python worker.py TREE [BENCHMARK ...]

It is run by its path (`fork` does), not as a module, and uses the tree's public names only, so that
one copy of it times any two commits. A line on stdin is the name of a benchmark and how often to
run it; the answer is a line with the mean seconds of a run. What a benchmark computes is held to a
plain definition before it is first timed, and again after every time, outside of it.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

TREE = Path(sys.argv[1]).resolve()
# Before an installed vaekit, which the names below would otherwise be those of.
sys.path[:0] = [str(TREE), str(TREE / "kernels")]

import vaekit  # noqa: E402
import vaekit_kernels as ops  # noqa: E402

CPU = torch.device("cpu")
MODELS, BATCH, PIXELS, LATENTS = 11, 128, 441, 9
BETAS = tuple(0.5 * (index + 1) for index in range(MODELS))


class Benchmark(NamedTuple):
    """What is timed, and whether what it returned is right."""

    run: Callable[[], Any]
    is_right: Callable[[Any], bool]


def close(found: Tensor, expected: Tensor) -> bool:
    """Whether two tensors are the same to float32's rounding."""
    return torch.allclose(found, expected, rtol=1e-3, atol=1e-3)


def losses(layers: list[tuple[Tensor, Tensor]], images: Tensor, noise: Tensor) -> Tensor:
    """Loss [M], but for a constant, for images [1, B, P] and noise [M, B, L]."""

    def mlp(part: list[tuple[Tensor, Tensor]], x: Tensor) -> Tensor:
        for index, (weight, bias) in enumerate(part):
            x = torch.baddbmm(bias[:, None], x if index == 0 else x.relu(), weight)
        return x

    half = len(layers) // 2
    mean, logvar = mlp(layers[:half], images.expand(MODELS, -1, -1)).chunk(2, dim=-1)
    output = mlp(layers[half:], mean + (0.5 * logvar).exp() * noise)
    nll = 2.0 * (output.sigmoid() - images).square().sum(-1)
    kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum(-1)
    return (nll + torch.tensor(BETAS)[:, None] * kl).mean(1)


def training() -> Benchmark:
    """Ten steps of eleven default models, from the images to the weights."""
    # The other benchmarks start sooner without these.
    from vaekit.config import SweepConfig
    from vaekit.data import draw
    from vaekit.model import StackedVAE
    from vaekit.objective import latent_noise
    from vaekit.progress import Silent
    from vaekit.stack import Stack
    from vaekit.train import Training, train

    config = SweepConfig(mu=(0.0,), beta=BETAS, steps=10, device="cpu")
    seeds, beta = torch.zeros(MODELS, dtype=torch.int64), torch.tensor(BETAS)

    def given(step: int) -> tuple[Tensor, Tensor]:
        images, _ = draw(config, torch.zeros(1), seeds[:1], step, batch=BATCH)
        return images, latent_noise(config, seeds, beta, step)

    layers = StackedVAE.initial(config, seeds).layers
    plain = [(w.clone().requires_grad_(), b.clone().requires_grad_()) for w, b in layers]
    adam = torch.optim.Adam([piece for layer in plain for piece in layer], config.learning_rate)
    for step in range(1, config.steps + 1):
        adam.zero_grad()
        losses(plain, *given(step)).sum().backward()
        adam.step()
    fresh = given(config.steps + 1)
    with torch.no_grad():
        before, after = losses(layers, *fresh), losses(plain, *fresh)

    def is_right(found: Training) -> bool:
        # Rounding turns single weights of so short a training about; what it gained is steady.
        gain = (before - losses(found.vae.layers, *fresh)) / (before - after)
        return bool(((gain - 1).abs() < 0.02).all())

    return Benchmark(
        lambda: train(config, Stack((0.0,), (0,), BETAS), CPU, Silent()), torch.no_grad()(is_right)
    )


def generator() -> Benchmark:
    """Batches of images of eleven streams."""
    index = torch.arange(MODELS)
    mu = 0.5 * index

    def run() -> tuple[Tensor, Tensor]:
        for _ in range(4):
            found = ops.sigmoid_grid(
                mu, index, ops.float_ids(0.25 * index), step=5, batch=BATCH, backend="torch"
            )
        return found

    def is_right(found: tuple[Tensor, Tensor]) -> bool:
        images, truth = found
        tiles = truth.sigmoid().unflatten(-1, (3, 3))
        noise = images - tiles.repeat_interleave(7, -1).repeat_interleave(7, -2).flatten(-2)
        drawn = torch.cat([2.0 * noise, truth - mu[:, None, None]], dim=-1)
        # Of each stream: normals, 57,600 of them, and no two alike.
        return bool(
            (drawn.mean((1, 2)).abs() < 0.03).all()
            and ((drawn.square().mean((1, 2)) - 1).abs() < 0.04).all()
            and drawn[:, 0].unique().numel() > 0.99 * drawn[:, 0].numel()
        )

    return Benchmark(run, is_right)


def pixel_side() -> Benchmark:
    """NLL of eleven models' images, and its gradient."""
    random = torch.Generator().manual_seed(0)
    output = torch.randn(MODELS, BATCH, PIXELS, generator=random).requires_grad_()
    image = torch.rand(1, BATCH, PIXELS, generator=random)

    def run() -> tuple[Tensor, Tensor]:
        for _ in range(8):
            nll = ops.pixel_nll(output, image, backend="torch")
            (gradient,) = torch.autograd.grad(nll.sum(), output)
        return nll, gradient

    expected = 2.0 * (output.sigmoid() - image).square().sum(-1)
    (slope,) = torch.autograd.grad(expected.sum(), output)
    # A variance of 0.25; the constant is that of its definition, 441 / 2 log(pi / 2).
    expected = expected.detach() + 0.5 * PIXELS * torch.tensor(torch.pi / 2).log()
    return Benchmark(run, lambda found: close(found[0], expected) and close(found[1], slope))


def latent_side() -> Benchmark:
    """Reparameterisation and KL of eleven models, and their gradients."""
    random = torch.Generator().manual_seed(0)
    mean, logvar, noise = torch.randn(3, MODELS, BATCH, LATENTS, generator=random)
    mean.requires_grad_()
    logvar.requires_grad_()

    def run() -> tuple[Tensor, ...]:
        for _ in range(16):
            z, kl = ops.reparameterise(mean, logvar, noise, backend="torch")
            gradients = torch.autograd.grad(z.sum() + kl.sum(), (mean, logvar))
        return z, kl, *gradients

    z = mean + (0.5 * logvar).exp() * noise
    kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum(-1)
    expected = (z, kl, *torch.autograd.grad(z.sum() + kl.sum(), (mean, logvar)))
    return Benchmark(run, lambda found: all(map(close, found, expected)))


BENCHMARKS = {
    "training": training,
    "generator": generator,
    "pixel side": pixel_side,
    "latent side": latent_side,
}


def seconds(name: str, benchmark: Benchmark, repeats: int) -> float:
    """Mean seconds of a run among some, the last of which is checked."""
    start = time.perf_counter()
    for _ in range(repeats):
        found = benchmark.run()
    mean = (time.perf_counter() - start) / repeats
    if not benchmark.is_right(found):
        raise SystemExit(f"{name}: it does not compute what it is defined to")
    return mean


def main() -> None:
    """Answer every line with the seconds of the benchmark that it names."""
    for module in (vaekit, ops):
        if not Path(str(module.__file__)).is_relative_to(TREE):
            raise SystemExit(f"{module.__file__} is not of {TREE}")
    ready = {name: BENCHMARKS[name]() for name in sys.argv[2:] or BENCHMARKS}
    for name, benchmark in ready.items():
        seconds(name, benchmark, 2)
    print("ready", *ready, sep=",", flush=True)
    for line in sys.stdin:
        name, repeats = line.rsplit(maxsplit=1)
        print(seconds(name, ready[name], int(repeats)), flush=True)


if __name__ == "__main__":
    main()
