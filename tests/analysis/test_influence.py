"""What depends on what, against Jacobians and known receptive fields."""

from functools import partial

import pytest
import torch
from torch.testing import assert_close

from tests.helpers import influence as whole
from tests.helpers import random, redrawn
from vit.analysis.influence import fading, influence, reach, told_apart
from vit.attention import Local, Neighborhood, Softmax, Sparse
from vit.layers import BiLstm, Block, DepthwiseConv2d, Identity, LearnedPositions, NoPositions, SelfAttention
from vit.tokens import Grid, Layout


def _attention(mechanism):
    return partial(Block, mixer=partial(SelfAttention, num_heads=1, mechanism=mechanism))


def test_equals_the_norms_of_the_jacobian():
    mixer, tokens = redrawn(SelfAttention(6, Grid(1, 5), num_heads=2)), random(5, 6)
    mix = partial(mixer, layout=Layout(Grid(1, 5)))
    assert_close(influence(mix, tokens), whole(mix, tokens[None])[0, :, 0])
    assert_close(influence(mix, tokens, [3, 1]), whole(mix, tokens[None])[0, [3, 1], 0])


@pytest.mark.parametrize("width", [1, 2])
def test_each_layer_of_a_band_sees_one_width_further(width):
    block = _attention(partial(Sparse, pattern=partial(Local, width=width)))
    seen = reach(block, 6, Grid(1, 17), 3, query=8)[:, 0]
    places = torch.arange(17)
    for depth, row in enumerate(seen, start=1):
        assert ((row > 0) == ((places - 8).abs() <= depth * width)).all()


def test_a_neighbourhood_grows_by_a_ring_and_full_attention_sees_all_at_once():
    local = reach(_attention(partial(Sparse, pattern=partial(Neighborhood, kernel_size=3))), 4, Grid(7, 7), 2, query=24)
    assert [int((layer > 0).sum()) for layer in local] == [9, 25]
    assert (reach(_attention(Softmax), 4, Grid(7, 7), 1, query=24) > 0).all()


def test_a_grid_with_a_prefix_is_asked_at_its_patches():
    seen = reach(partial(Block, mixer=DepthwiseConv2d), 4, Grid(5, 3, ("cls",)), 1, query=7)
    assert seen.shape == (1, 5, 3)
    assert (seen[0] > 0).tolist() == [[False] * 3, [True] * 3, [True] * 3, [True] * 3, [False] * 3]


def test_without_mixing_no_token_depends_on_another():
    seen = reach(partial(Block, mixer=Identity), 4, Grid(3, 5), 2, query=7).flatten(1)
    assert (seen[:, 7] > 0).all()
    assert int((seen > 0).sum()) == 2


def test_equal_tokens_stay_equal_until_positions_and_attention_meet():
    identity = partial(Block, mixer=Identity)
    for block in (identity, _attention(Softmax)):
        assert told_apart(block, NoPositions, 6, Grid(3, 5)) < 1e-12
    assert told_apart(_attention(Softmax), LearnedPositions, 6, Grid(3, 5)) > 1e-3


def test_gradients_fade_with_distance_in_a_recurrent_net_only():
    lstm = fading(partial(BiLstm, hidden_dim=6), 6, 11, draws=3)
    assert len(lstm) == 10
    assert lstm[0] > 30 * lstm[-1] > 0
    attention = fading(partial(SelfAttention, num_heads=1), 6, 11, draws=8)
    assert max(attention) < 10 * min(attention)
