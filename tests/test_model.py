"""The stack is M plain networks side by side."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vaekit.config import SweepConfig
from vaekit.model import Architecture, StackedVAE


def config(**changes: object) -> SweepConfig:
    small = {"mu": (0.0,), "beta": (1.0,), "steps": 10, "hidden": (16, 8), "tile": 2, "batch": 8}
    return SweepConfig(**{**small, **changes})


def plain(layers: list, last: nn.Module | None) -> nn.Sequential:
    """Build the torch.nn network that model 0 of a stack must equal."""
    modules: list[nn.Module] = []
    for index, (weight, bias) in enumerate(layers):
        linear = nn.Linear(*weight.shape[1:])
        linear.weight.data.copy_(weight[0].T)
        linear.bias.data.copy_(bias[0])
        modules += [linear, nn.ReLU()] if index < len(layers) - 1 else [linear]
    return nn.Sequential(*modules, *([last] if last else []))


@pytest.mark.parametrize("hidden", [(), (5,), (16, 8), (7, 6, 5)], ids=str)
@pytest.mark.parametrize("output", ["sigmoid", "linear"])
def test_a_stack_of_one_is_a_plain_module(hidden: tuple[int, ...], output: str) -> None:
    setup = config(hidden=hidden, decoder_output=output)
    vae = StackedVAE.initial(setup, torch.tensor([3]))
    x, z = torch.rand(11, setup.pixels), torch.randn(1, 11, setup.latents)

    mean, logvar = vae.encode(x)
    expected = plain(vae.encoder, None)(x)
    torch.testing.assert_close(torch.cat([mean, logvar], -1)[0], expected)
    last = nn.Sigmoid() if output == "sigmoid" else None
    torch.testing.assert_close(vae.decode(z)[0], plain(vae.decoder, last)(z[0]))


def test_default_network_has_the_published_size() -> None:
    default = SweepConfig(mu=(0.0,), beta=(1.0,), steps=1)
    assert Architecture.of(default).parameters == 296_011


def test_the_flat_buffer_holds_every_parameter_once() -> None:
    vae = StackedVAE.initial(config(), torch.arange(3))
    for number, (weight, bias) in enumerate(vae.layers):
        weight.fill_(2 * number + 1)
        bias.fill_(2 * number + 2)
    counts = torch.bincount(vae.flat.long())
    sizes = [n for i, o in vae.architecture.sizes for n in (3 * i * o, 3 * o)]
    assert counts.tolist() == [0, *sizes]


def test_initial_weights_are_those_of_torch_linear() -> None:
    setup = config(hidden=(256, 128), tile=7)
    vae = StackedVAE.initial(setup, torch.arange(4))
    for weight, bias in vae.layers:
        bound = weight.shape[1] ** -0.5
        for values in (weight, bias):
            assert values.abs().max() <= bound
            spread = values.var().item() / (bound**2 / 3)
            assert spread == pytest.approx(1.0, abs=6 / values.numel() ** 0.5)


def test_initial_weights_depend_on_the_seed_alone() -> None:
    alone = StackedVAE.initial(config(), torch.tensor([7]))
    among = StackedVAE.initial(config(beta=(0.5, 2.0, 4.0)), torch.tensor([5, 7, 7, 2**40]))
    for index in (1, 2):
        assert torch.equal(among.slot(index).flat, alone.flat)
    assert not torch.equal(among.slot(0).flat, alone.flat)
    assert not torch.equal(among.slot(3).flat, alone.flat)


def test_slots_round_trip_and_leave_their_neighbours() -> None:
    vae = StackedVAE.initial(config(), torch.arange(3))
    other = StackedVAE.initial(config(), torch.tensor([9]))
    before = [vae.slot(index).flat.clone() for index in range(3)]
    vae.load_slot(1, other)
    assert torch.equal(vae.slot(1).flat, other.flat)
    assert torch.equal(vae.slot(0).flat, before[0])
    assert torch.equal(vae.slot(2).flat, before[2])
