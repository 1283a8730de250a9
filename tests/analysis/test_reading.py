"""Which rows of a rollout the head reads, and where their patches lie."""

import pytest
import torch
from torch.testing import assert_close

from vit.analysis.reading import mean_weights, reading, token_weights
from vit.tokens import Grid, Layout, Mask

GRID = Grid(2, 3, ("cls", "reg"))


def test_a_token_is_read_by_name():
    assert token_weights(Layout(GRID), "reg").tolist() == [[0, 1, 0, 0, 0, 0, 0, 0]]
    with pytest.raises(ValueError, match=r"no prefix token 'dist' to read: the net has \['cls', 'reg'\]"):
        token_weights(Layout(GRID), "dist")


def test_the_mean_leaves_out_prefix_and_padding():
    assert_close(mean_weights(Layout(GRID)), torch.tensor([[0, 0, *[1 / 6] * 6]], dtype=torch.float64))
    keys = torch.tensor([[True] * 8, [True] * 4 + [False] * 4])
    padded = mean_weights(Layout(GRID, Mask(keys=keys)))
    assert_close(padded, torch.tensor([[0, 0, *[1 / 6] * 6], [0, 0, 1 / 2, 1 / 2, 0, 0, 0, 0]], dtype=torch.float64))


def test_prefix_columns_go_and_the_grid_keeps_its_order():
    rolled = torch.arange(64.0).view(1, 8, 8)
    assert reading(rolled, Layout(GRID), token_weights(Layout(GRID))).tolist() == [[[2, 3, 4], [5, 6, 7]]]


def test_kept_patches_go_back_to_their_places():
    layout = Layout(GRID, index=torch.tensor([[5, 1], [0, 4]]))
    rolled = torch.tensor([0.1, 0.2, 0.3, 0.4]).expand(2, 4, 4)
    heat = reading(rolled, layout, token_weights(layout))
    assert_close(heat, torch.tensor([[[0, 0.4, 0], [0, 0, 0.3]], [[0.3, 0, 0], [0, 0.4, 0]]]))
