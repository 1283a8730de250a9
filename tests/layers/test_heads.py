import re

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from tests.helpers import B, random, redrawn
from vit.layers import ClassToken, DistilledHead, Head, MapPool, MaxPool, MeanPool, SeqPool
from vit.tokens import Grid, Layout

C, K = 15, 11
GRID = Grid(2, 3, prefix=("cls", "dist"))


@pytest.mark.parametrize("pool", [ClassToken, MeanPool, MaxPool, SeqPool, MapPool])
def test_head_is_a_linear_map_of_the_pool(pool: type[nn.Module]) -> None:
    head, tokens = redrawn(Head(C, GRID, K, pool)), random(B, GRID.tokens, C)
    assert isinstance(head.pool, pool)
    expected = head.pool(tokens, Layout(GRID)) @ head.fc.weight.T + head.fc.bias
    assert_close(head(tokens, Layout(GRID)), expected)


def test_head_dropout_acts_in_training_only() -> None:
    head, tokens = Head(C, GRID, K, drop=0.5), torch.randn(B, GRID.tokens, C)
    assert not torch.equal(head(tokens, Layout(GRID)), head(tokens, Layout(GRID)))
    head.eval()
    assert_close(head(tokens, Layout(GRID)), head(tokens, Layout(GRID)), rtol=0, atol=0)


def test_distilled_head_averages_two_classifiers() -> None:
    head, tokens = redrawn(DistilledHead(C, GRID, K)), random(B, GRID.tokens, C)
    label, teacher = head.both(tokens, Layout(GRID))
    assert_close(label, tokens[:, 0] @ head.fc.weight.T + head.fc.bias)
    assert_close(teacher, tokens[:, 1] @ head.fc_dist.weight.T + head.fc_dist.bias)
    assert_close(head(tokens, Layout(GRID)), (label + teacher) / 2)


def test_distilled_head_needs_both_tokens() -> None:
    message = "pooling reads the prefix token 'dist', but the backbone has ['cls']"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        DistilledHead(C, Grid(2, 3, prefix=("cls",)), K)
