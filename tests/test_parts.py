"""How a stack is cut into parts; that parts train to the same bits is `test_training_step`'s."""

from __future__ import annotations

import itertools

import pytest
import torch

from vaekit.parts import MOST_PARTS, PART_MODELS, cut, part_count


@pytest.mark.parametrize("streams", [1, 2, 3, 11])
@pytest.mark.parametrize("count", [1, 2, 4, 50])
def test_every_stream_and_model_is_in_one_part_with_its_own(streams: int, count: int) -> None:
    models = 4 * streams
    parts = cut(streams, models, count)
    assert len(parts) == min(count, streams if streams > 1 else models)
    for those, own in parts:
        of_streams = sorted({model // 4 for model in range(models)[own]})
        assert of_streams == list(range(streams)[those])
    assert [model for _, own in parts for model in range(models)[own]] == list(range(models))
    sizes = [len(range(models)[own]) for _, own in parts]
    assert max(sizes) - min(sizes) <= (4 if streams > 1 else 1)


def test_only_a_large_stack_on_a_card_is_cut() -> None:
    card = torch.device("cuda")
    assert part_count(1, 1000, torch.device("cpu")) == 1
    assert [part_count(1, models, card) for models in (1, 2 * PART_MODELS - 1)] == [1, 1]
    assert part_count(1, 2 * PART_MODELS, card) == 2
    assert part_count(1, 1000, card) == MOST_PARTS
    assert part_count(11, 121, card) == part_count(33, 363, card) == MOST_PARTS


def test_no_part_is_left_small() -> None:
    """Streams are not cut, so four of 17 models are two parts and not three of 17, 17 and 34."""
    for streams, betas in itertools.product(range(1, 12), range(1, 30)):
        models = streams * betas
        count = part_count(streams, models, torch.device("cuda"))
        sizes = [part.stop - part.start for _, part in cut(streams, models, count)]
        assert count == 1 or min(sizes) >= PART_MODELS
    assert part_count(4, 68, torch.device("cuda")) == 2
