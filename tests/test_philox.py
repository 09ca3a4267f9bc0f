"""The noise: published words, and normals that pass every gate at fixed seeds.

Limits are those of a sample of N under the null hypothesis: 4 standard errors for moments, 5.5 for
the many correlations, 1e-3 for a p-value. With fixed seeds each test is a fact, not a gamble.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

import oracle
from vaekit_kernels import philox
from vaekit_kernels.philox import WORD, Stream, float_ids, normals, philox4x32, uniforms

# Random123, tests/kat_vectors: counter, key, words.
KNOWN = {
    "zeros": (
        (0, 0, 0, 0),
        (0, 0),
        (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8),
    ),
    "ones": (
        (WORD, WORD, WORD, WORD),
        (WORD, WORD),
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ),
    "pi": (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
}
ONE = torch.tensor([5])


def signed(key: tuple[int, int]) -> int:
    """The 64 bits of a key as an int64."""
    word = key[0] | key[1] << 32
    return word - 2**64 if word >= 2**63 else word


@pytest.mark.parametrize("name", KNOWN)
def test_words_are_the_published_ones(name: str) -> None:
    counter, key, expected = KNOWN[name]
    seed = torch.tensor(signed(key))
    found = philox4x32(seed, *(torch.tensor(c) for c in counter))
    assert tuple(word.item() for word in found) == expected
    independent = oracle.words(np.array(signed(key)), *(np.array(c) for c in counter))
    assert tuple(int(word) for word in independent) == expected


def test_words_agree_with_an_independent_implementation() -> None:
    element = torch.arange(2**16)
    for seed in (0, -1, 2**32, WORD, -(2**63), 2**63 - 1, 1234567890123456789):
        found = philox4x32(torch.tensor(seed), element, 3, WORD, 7)
        counters = (np.array(c) for c in (3, WORD, 7))
        expected = oracle.words(np.array(seed), element.numpy(), *counters)
        for a, b in zip(found, expected, strict=True):
            assert np.array_equal(a.numpy().astype(np.uint64), b)


def test_normals_agree_with_float64_to_4e_6() -> None:
    seeds = torch.tensor([0, -7])
    ids = float_ids(torch.tensor([1.0, -1.0]))
    args = (seeds, ids, 9, Stream.PROBE, 2**16, 7)
    assert (normals(*args) - oracle.normals(*args)).abs().max() <= 4e-6


def test_what_is_drawn_in_pieces_is_what_is_drawn_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two streams a piece, and one that is left."""
    seeds, rows, cols = torch.arange(5), 3, 7
    steps = torch.tensor([4, 0, 4, 9, 4])
    args = (seeds, float_ids(0.5 * seeds), steps, Stream.LATENT, rows, cols)
    whole = normals(*args)
    assert len(whole.unique()) == whole.numel()
    monkeypatch.setattr(philox, "CPU_COUNTERS", 2 * rows * 2)
    assert torch.equal(normals(*args), whole)


def test_a_counter_is_used_for_one_thing_only() -> None:
    """Every (key, counter) of a small sweep, as the drawing functions lay them out."""
    fields = itertools.product(
        (0, 1, -1),  # seeds
        range(3),  # steps
        float_ids(torch.tensor([0.0, 1.0, -1.0])).tolist(),
        Stream,
        range(8),  # elements
    )
    drawn: list[tuple[int, ...]] = []
    for seed, step, label, stream, element in fields:
        words = philox4x32(torch.tensor(seed), torch.tensor(element), step, label, int(stream))
        drawn.append(tuple(word.item() for word in words))
    assert len(set(drawn)) == len(drawn) == 3 * 3 * 3 * len(Stream) * 8


def test_what_does_not_fit_its_counter_field_is_refused() -> None:
    for step in (-1, 2**32):
        with pytest.raises(ValueError, match=f"step: got {step}"):
            normals(ONE, ONE, step, 0, 1, 1)
    with pytest.raises(ValueError, match="rows x cols: got 4294967296 x 4"):
        normals(ONE, ONE, 0, 0, 2**32, 4)


def test_ids_tell_floats_apart_by_their_bits() -> None:
    values = torch.tensor([0.0, -0.0, 1.0, -1.0, 1.0000001])
    ids = float_ids(values).tolist()
    assert ids == [0, 0, 0x3F800000, 0xBF800000, 0x3F800001]


def test_a_row_does_not_depend_on_the_rows_after_it() -> None:
    long, short = (uniforms(ONE, ONE, 1, 2, rows, 7) for rows in (50, 3))
    assert torch.equal(long[:, :3], short)


LONG = 10_000_000


@pytest.fixture(scope="module")
def normal() -> Tensor:
    """10**7 normals of one draw."""
    return normals(torch.tensor([42]), ONE, 1, Stream.IMAGE_NOISE, LONG // 500, 500).flatten()


@pytest.fixture(scope="module")
def uniform() -> Tensor:
    """10**7 uniforms of one draw."""
    return uniforms(torch.tensor([42]), ONE, 1, Stream.IMAGE_NOISE, LONG // 500, 500).flatten()


def test_moments(normal: Tensor) -> None:
    x = normal.double()
    centred = x - x.mean()
    variance = centred.square().mean()
    assert abs(x.mean()) <= 1.3e-3
    assert abs(variance - 1) <= 1.8e-3
    assert abs(centred.pow(3).mean() / variance**1.5) <= 3.1e-3
    assert abs(centred.pow(4).mean() / variance**2 - 3) <= 6.2e-3


def test_tails(normal: Tensor) -> None:
    assert abs((normal.abs() > 4).sum().item() - 633) <= 101
    assert normal.abs().max() <= math.sqrt(48 * math.log(2))


def distance(sorted_cdf: Tensor) -> float:
    """Kolmogorov-Smirnov distance of sorted values of a distribution function."""
    steps = torch.arange(len(sorted_cdf), dtype=torch.float64) / len(sorted_cdf)
    gap = sorted_cdf - steps
    return max(gap.max().item(), 1 / len(sorted_cdf) - gap.min().item())


def test_distribution_functions(normal: Tensor, uniform: Tensor) -> None:
    limit = 1.95 / math.sqrt(LONG)
    assert distance(torch.special.ndtr(normal.sort().values.double())) <= limit
    assert distance(uniform.sort().values.double()) <= limit


def p_value(counts: Tensor) -> float:
    return float(stats.chisquare(counts.double().numpy()).pvalue)


def test_bins_fill_evenly(normal: Tensor, uniform: Tensor) -> None:
    cells = (256 * uniform).long()
    assert 1e-4 < p_value(torch.bincount(cells, minlength=256)) < 1 - 1e-4
    cells = (256 * torch.special.ndtr(normal.double())).long().clamp(max=255)
    assert 1e-4 < p_value(torch.bincount(cells, minlength=256)) < 1 - 1e-4
    pairs = (16 * uniform).long().view(-1, 2)
    counts = torch.bincount(16 * pairs[:, 0] + pairs[:, 1], minlength=256)
    assert 1e-4 < p_value(counts) < 1 - 1e-4


def test_the_low_bits_of_every_word_fill_evenly() -> None:
    for word in philox4x32(torch.tensor(42), torch.arange(10**6), 1, 2, 3):
        assert 1e-4 < p_value(torch.bincount(word & 0xFF, minlength=256)) < 1 - 1e-4


def test_p_values_of_many_cells_are_uniform() -> None:
    """200 cells (seed, id, step), each drawn and tested by itself."""
    seeds = torch.arange(200) % 10
    ids = float_ids(torch.arange(200) // 10 % 4 * 0.5)
    steps = torch.arange(200) // 40
    cells = normals(seeds, ids, steps, Stream.LATENT, 250, 4).flatten(1).double()
    found = [stats.kstest(cell.numpy(), "norm").pvalue for cell in cells]
    assert stats.kstest(found, "uniform").pvalue > 1e-3


def test_draws_are_uncorrelated_across_every_label_and_lag() -> None:
    rows, cols = 2000, 100
    limit = 5.5 / math.sqrt(rows * cols)

    def draw(seed: int = 3, label: float = 1.0, step: int = 5, stream: int = 1) -> Tensor:
        ids = float_ids(torch.tensor([label]))
        return normals(torch.tensor([seed]), ids, step, stream, rows, cols)[0]

    base = draw()
    others = [
        draw(seed=4),
        draw(seed=3 + 2**32),
        draw(label=-1.0),
        draw(label=1.0000001),
        draw(step=6),
        draw(stream=2),
        base.roll(1, 0),
    ]
    for other in others:
        assert abs((base * other).mean()) <= limit
        assert abs((base.square() * other.square()).mean() - 1) <= 2 * limit
    flat = base.flatten()
    for lag in range(1, 9):
        assert abs((flat[lag:] * flat[:-lag]).mean()) <= limit
    lanes = base.view(-1, 4)
    for first, second in itertools.combinations(range(4), 2):
        assert abs((lanes[:, first] * lanes[:, second]).mean()) <= 2 * limit
