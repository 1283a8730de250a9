import torch
from torch.testing import assert_close

from tests.helpers import B, N, random, redrawn
from vit.layers import LayerNorm

C = 13


def test_layer_norm_formula_with_the_epsilon_of_published_weights() -> None:
    norm, x = redrawn(LayerNorm(C)), 1e-3 * random(B, N, C)  # small enough for the epsilon to show
    centred = x - x.sum(-1, keepdim=True) / C
    expected = centred / ((centred**2).sum(-1, keepdim=True) / C + 1e-6).sqrt() * norm.weight + norm.bias
    assert_close(norm(x), expected)


def test_epsilon_is_an_option() -> None:
    assert LayerNorm(C, eps=1e-5).eps == 1e-5
    assert torch.equal(LayerNorm(C).weight, torch.ones(C))
