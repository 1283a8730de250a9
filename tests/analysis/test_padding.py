"""A padded batch is each sequence alone."""

import pytest
import torch
from torch.testing import assert_close

from vit.analysis.padding import padded
from vit.attention import Linear, Mechanism, Softmax


@pytest.mark.parametrize("mechanism", [Softmax, Linear])
def test_lengths_5_8_and_3(mechanism):
    found = padded(mechanism, [5, 8, 3])
    assert found.keys.sum(dim=1).tolist() == [5, 8, 3]
    assert found.matrices.shape == (3, 8, 8)
    assert found.error < 1e-12
    assert (found.matrices.masked_select(~found.keys[:, None].expand(-1, 8, -1)) == 0).all()
    assert_close(found.matrices.sum(-1), torch.ones(3, 8).double())


def test_a_mechanism_that_looks_at_padding_is_found_out():
    assert padded(Ignoring, [5, 8, 3]).error > 0.01


class Ignoring(Mechanism):
    """The mean of all tokens, padding included."""

    def __init__(self, heads, head_dim, grid):
        super().__init__()

    def forward(self, q, k, v, layout):
        return v.mean(dim=2, keepdim=True).expand_as(v)
