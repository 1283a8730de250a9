"""Statistics of attention matrices with known answers."""

import pytest
import torch

from tests.analysis.nets import share_matrix
from vit.analysis.shares import effective_rank, head_distance, self_first, self_share


def test_rank_of_uniform_attention_is_one_and_of_permutations_all():
    uniform = torch.full((2, 7, 7), 1 / 7)
    order = torch.eye(7)[torch.randperm(7)].expand(2, 7, 7)
    found = effective_rank(torch.stack((uniform, order), dim=1))
    assert found.tolist() == pytest.approx([1, 7])


def test_rank_of_singular_values_in_known_shares():
    matrix = torch.diag(torch.tensor([3.0, 1.0, 0.0]))[None, None]
    assert effective_rank(matrix).item() == pytest.approx(4 / 3**0.75)


def test_what_a_token_keeps():
    matrix = torch.tensor([[0.5, 0.25, 0.25], [0.2, 0.4, 0.4], [0.1, 0.7, 0.2]])[None, None]
    both = torch.cat((matrix, matrix.flip(-1)), dim=1)
    assert self_share(both).tolist() == pytest.approx([1.1 / 3, 0.75 / 3])
    assert self_first(both).tolist() == pytest.approx([1 / 3, 0])  # token 1 is a tie in both


def test_over_samples_and_heads_as_in_a_loop():
    matrix = share_matrix(3, 5)
    for head in range(3):
        own = [matrix[b, head, i, i] for b in range(2) for i in range(5)]
        first = [matrix[b, head, i].argmax() == i for b in range(2) for i in range(5)]
        assert self_share(matrix)[head].item() == pytest.approx(sum(own).item() / 10)
        assert self_first(matrix)[head].item() == pytest.approx(sum(first) / 10)


def test_heads_are_as_far_apart_as_their_rows():
    one, two, both = torch.eye(3), torch.eye(3).roll(1, 1), (torch.eye(3) + torch.eye(3).roll(1, 1)) / 2
    found = head_distance(torch.stack((one, two, both)).expand(2, -1, -1, -1))
    assert found.tolist() == pytest.approx([(1 + 0.5) / 2, (1 + 0.5) / 2, 0.5])
    assert head_distance(torch.stack((one, one))[None]).tolist() == [0, 0]
    assert head_distance(one[None, None]).tolist() == [0]
