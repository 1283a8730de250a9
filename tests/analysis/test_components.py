import pytest
import torch
from torch.testing import assert_close

from tests.helpers import redrawn
from vit.analysis.components import class_vectors, patch_colours
from vit.layers import DistilledHead, Head, MeanPool
from vit.tokens import Grid, Layout


def test_colours_are_the_three_directions_of_most_variance() -> None:
    """Tokens spread along known directions: each colour is one of them, up to its sign, cut at the outermost 2 %."""
    torch.manual_seed(0)
    where = torch.rand(4, 25, 3).double() * torch.tensor([9.0, 3.0, 1.0])
    directions = torch.linalg.qr(torch.randn(10, 10).double()).Q[:3]
    colours = patch_colours(where @ directions + 5).double()
    assert colours.shape == (4, 25, 3) and colours.min() == 0 and colours.max() == 1
    for colour, place in zip(colours.flatten(0, 1).T, where.flatten(0, 1).T, strict=True):
        assert torch.corrcoef(torch.stack((colour, place)))[0, 1].abs() > 0.98
    assert 1 < (colours[..., 0] == 0).sum() < 5


def test_fewer_directions_leave_colours_dark() -> None:
    colours = patch_colours(torch.rand(2, 5, 1))
    assert colours[..., 0].std() > 0 and not colours[..., 1:].any()
    rank_one = patch_colours(torch.outer(torch.rand(100), torch.rand(64))[None])
    assert rank_one[..., 0].std() > 0 and not rank_one[..., 1:].any()  # not the rounding, stretched
    with pytest.raises(ValueError, match="expected two tokens or more, got 1"):
        patch_colours(torch.rand(1, 1, 8))


def test_class_vectors_are_the_rows_of_the_linear_map() -> None:
    head = redrawn(Head(6, Grid(1, 4), 5, pool=MeanPool, drop=0.5))
    assert_close(class_vectors(head, 6), head.fc.weight.detach())


def test_of_two_classifiers_it_is_the_direction_of_their_answer() -> None:
    grid = Grid(1, 4, prefix=("cls", "dist"))
    head = redrawn(DistilledHead(6, grid, 5)).float().eval()
    tokens = torch.randn(1, 6, 6)
    features = head.features(tokens, Layout(grid))
    vectors = class_vectors(head, features.shape[1])
    step = 0.1 * torch.randn_like(features)
    assert_close(head.classify(features + step) - head.classify(features), step @ vectors.T)
