"""The parts of efficient attention multiply to its output."""

import pytest
import torch
from torch.testing import assert_close

from tests.analysis.nets import recorded_softmax
from vit.analysis.same_inputs import built, given
from vit.analysis.templates import most_chosen, templates
from vit.attention import Efficient, RandomSynthesizer
from vit.tokens import Grid


def test_choice_times_templates_is_efficient_attention():
    call = recorded_softmax(Grid(3, 5), dtype=torch.float64)
    found = templates(call)
    assert found.vectors.shape == (2, 3, 5, 11)
    assert_close(found.choice @ found.vectors, given(call, built(call, Efficient)).out)
    assert_close(found.gathered.sum(-1), torch.ones(2, 3, 5).double())


def test_the_most_chosen_come_first():
    found = templates(recorded_softmax(Grid(3, 5)))
    shares = found.choice[1, 2].mean(dim=0)
    first = most_chosen(found, 2, sample=1, head=2)
    assert first.shape == (2, 15)
    assert torch.equal(first[0], found.gathered[1, 2, shares.argmax()])
    shares[shares.argmax()] = 0
    assert torch.equal(first[1], found.gathered[1, 2, shares.argmax()])


def test_without_keys_there_are_none():
    call = recorded_softmax(Grid(3, 5))
    with pytest.raises(ValueError, match="takes none"):
        templates(given(call, built(call, RandomSynthesizer)))
