"""The recall task has the answer it says, where it says, and no shortcut to it."""

from functools import partial

import pytest
import torch

from vit.analysis.recall import Recall, Sequences, by_copies, by_distance, draw, trained
from vit.layers import Identity, SelfAttention

TASK = Recall(tokens=13, keys=5, values=3)


def _read(sequences: Sequences) -> tuple[torch.Tensor, torch.Tensor]:
    keys = sequences.tokens[..., :5].argmax(dim=-1)
    return keys, sequences.tokens[:, :-1, 5:8].argmax(dim=-1)


@pytest.mark.parametrize("distance", [1, 5, 12])
def test_the_asked_key_stands_once_at_its_distance_beside_the_answer(distance):
    sequences = draw(TASK, 200, torch.Generator().manual_seed(1), distance=distance)
    assert sequences.tokens.shape == (200, 13, TASK.width)
    keys, values = _read(sequences)
    asked = keys[:, :-1] == keys[:, -1:]
    assert (asked.sum(dim=1) == 1).all()
    assert asked[:, 12 - distance].all()
    assert torch.equal(values[:, 12 - distance], sequences.answers)
    assert (sequences.tokens[:, -1, 5:8] == 0).all()
    assert (sequences.tokens[..., -1] == torch.eye(13)[-1]).all()


def test_so_many_of_the_others_are_alike_and_the_answer_is_independent_of_them():
    sequences = draw(TASK, 3000, torch.Generator().manual_seed(1), distance=4, copies=9)
    keys, values = _read(sequences)
    tokens = keys[:, :-1] * 3 + values
    most = torch.tensor([row.bincount().max() for row in tokens])
    assert (most >= 9).all()
    assert most.float().mean() < 10.5
    common = torch.tensor([row.bincount().argmax() for row in tokens]) % 3
    assert (common == sequences.answers).double().mean().item() == pytest.approx(1 / 3, abs=0.04)
    assert sequences.answers.bincount().min() > 900


def test_distance_and_copies_have_to_fit():
    for wrong in ({"distance": 13}, {"distance": 0}, {"copies": 12}, {"copies": -1}):
        with pytest.raises(ValueError, match="12 tokens stand before the question"):
            draw(TASK, 2, torch.Generator(), **wrong)
    with pytest.raises(ValueError, match="at least 2"):
        Recall(values=1)


def test_attention_learns_it_and_a_reader_that_mixes_nothing_stays_at_chance():
    attention = trained(TASK, partial(SelfAttention, num_heads=1), steps=100, batch_size=32)
    assert min(by_distance(attention, TASK, [1, 12])) > 0.9
    assert min(by_copies(attention, TASK, [0, 11])) > 0.9
    assert max(by_distance(trained(TASK, Identity, steps=50), TASK, [1, 12])) < 0.45


def test_training_is_repeatable_and_leaves_the_generator_alone():
    before = torch.get_rng_state()
    first, same = (trained(TASK, Identity, steps=2, seed=3) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.head.weight, same.head.weight)
    assert not first.training
