"""The images are what experiment and seed say, whatever the size of the draw."""

from __future__ import annotations

import math

import pytest
import torch

from vaekit.config import SweepConfig
from vaekit.data import draw, grid_truth, intensity, render_truth


def config(**changes: object) -> SweepConfig:
    return SweepConfig(**{"mu": (0.0,), "beta": (1.0,), "steps": 1, **changes})


MU = torch.tensor([0.0, 3.0])
SEEDS = torch.tensor([0, 1])


def test_a_row_is_the_same_whatever_the_batch_the_streams_and_the_block() -> None:
    """To the last bit or two: a CPU's vector logarithm rounds the end of an array its own way."""
    wide, z = draw(config(), MU, SEEDS, 5, batch=64)
    narrow, _ = draw(config(), MU[1:], SEEDS[1:], 5, batch=7)
    torch.testing.assert_close(wide[1:, :7], narrow, rtol=0, atol=2e-6)
    steps = torch.tensor([4, 5])
    block, _ = draw(config(), MU[:1].repeat(2), SEEDS[:1].repeat(2), steps, batch=64)
    torch.testing.assert_close(block[1], wide[0], rtol=0, atol=2e-6)
    assert z.shape == (2, 64, 9)


def test_streams_steps_and_purposes_differ() -> None:
    base, _ = draw(config(), MU[:1], SEEDS[:1], 1, batch=4)
    others = [
        draw(config(), MU[:1], SEEDS[1:], 1, batch=4)[0],
        draw(config(), MU[:1], SEEDS[:1], 2, batch=4)[0],
        draw(config(), MU[:1], SEEDS[:1], 1, batch=4, purpose="evaluate")[0],
        draw(config(), MU[1:], SEEDS[:1], 1, batch=4)[0],
    ]
    for other in others:
        assert not torch.isclose(base, other, atol=1e-3).float().mean() > 0.05


@pytest.mark.parametrize("generator", ["sigmoid", "linear"])
def test_images_are_the_rendered_truth_and_white_noise(generator: str) -> None:
    setup = config(generator=generator)
    images, z = draw(setup, MU, SEEDS, 0, batch=4000)
    residual = images - render_truth(setup, intensity(setup, z))
    count = residual.numel()
    assert residual.mean().abs() < 4 * 0.5 / math.sqrt(count)
    assert abs(residual.var() - 0.25) < 4 * 0.25 * math.sqrt(2 / count)
    neighbours = (residual[..., 1:] * residual[..., :-1]).mean() / 0.25
    assert abs(neighbours) < 5.5 / math.sqrt(count)
    assert (z - MU[:, None, None]).mean().abs() < 4 / math.sqrt(z.numel())


def test_no_noise_means_flat_tiles() -> None:
    setup = config(noise_variance=0.0)
    images, z = draw(setup, MU, SEEDS, 0, batch=3)
    assert torch.equal(images, render_truth(setup, torch.sigmoid(z)))
    tiles = images.view(2, 3, 3, 7, 3, 7)
    assert torch.equal(tiles.amax((3, 5)), tiles.amin((3, 5)))
    assert torch.equal(tiles[:, :, :, 0, :, 0].reshape(2, 3, 9), torch.sigmoid(z))


def test_the_grid_enumerates_every_combination_once() -> None:
    truth = grid_truth(config())
    assert truth.shape == (19_683, 9)
    assert len(torch.unique(truth, dim=0)) == 19_683
    assert truth.var(dim=0, unbiased=False) == pytest.approx([0.32 / 3] * 9, abs=1e-5)
    assert truth[1].tolist() == pytest.approx([0.1] * 8 + [0.5])
