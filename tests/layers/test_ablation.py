"""Blocks with a part left out are the formula with that part left out."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from tests.helpers import H, N, random, redrawn, row
from vit.layers import Block, Identity, Mlp, NoMlp, NoResidualBlock, SelfAttention
from vit.tokens import Grid

C = 4 * H


def mixer(dim: int, grid: Grid) -> SelfAttention:
    return SelfAttention(dim, grid, num_heads=H)


def test_without_an_mlp_the_mixer_is_left():
    block = redrawn(Block(C, Grid(1, N), mixer=mixer, mlp=NoMlp))
    x = random(2, N, C)
    assert_close(block(x, row()), x + block.mixer(block.norm1(x), row()), rtol=0, atol=0)
    assert not list(block.mlp.parameters())


def test_without_residuals_nothing_of_the_input_is_added():
    block = redrawn(NoResidualBlock(C, Grid(1, N), mixer=mixer))
    x = random(2, N, C)
    assert_close(block(x, row()), block.mlp(block.norm2(block.mixer(block.norm1(x), row()))), rtol=0, atol=0)
    nn.init.zeros_(block.mlp.fc2.weight)
    nn.init.zeros_(block.mlp.fc2.bias)
    assert not block(x, row()).any()


def test_without_residuals_there_is_nothing_to_drop():
    with pytest.raises(ValueError, match=r"has no branch to drop: expected drop_path 0, got 0\.25"):
        NoResidualBlock(C, Grid(1, N), drop_path=0.25)


def test_blocks_without_a_part_keep_the_other_arguments():
    block = NoResidualBlock(C, Grid(1, N), mixer=Identity, mlp=lambda dim: Mlp(dim, 2.0), norm=nn.Identity)
    assert block.mlp.fc1.out_features == 2 * C and isinstance(block.norm1, nn.Identity)
    tokens = torch.ones(1, N, C)
    assert_close(block(tokens, row()), block.mlp(tokens))
