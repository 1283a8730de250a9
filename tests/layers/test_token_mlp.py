import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from tests.helpers import B, random, redrawn
from vit.layers import Block, SpatialGating, TokenMlp
from vit.models import Backbone
from vit.tokens import Grid, Layout

C = 5
GRID = Grid(2, 3, prefix=("cls",))


def test_token_mlp_works_on_each_channel_apart() -> None:
    mixer, x = redrawn(TokenMlp(C, GRID, hidden_ratio=2.5)), random(B, 7, C)
    assert mixer.fc1.out_features == 17
    channels = [mixer.fc2(F.gelu(mixer.fc1(x[:, :, c]))) for c in range(C)]
    assert_close(mixer(x, Layout(GRID)), torch.stack(channels, dim=-1))


def test_token_mlp_by_hand() -> None:
    """GELU(10) is 10 and GELU(-10) is 0: the hidden unit is the first token less the second, where positive."""
    mixer = TokenMlp(2, Grid(1, 2), hidden_ratio=0.5)
    with torch.no_grad():
        mixer.fc1.weight.copy_(torch.tensor([[1.0, -1.0]]))
        mixer.fc2.weight.copy_(torch.tensor([[2.0], [3.0]]))
        mixer.fc1.bias.zero_()
        mixer.fc2.bias.copy_(torch.tensor([0.5, 0.0]))
    out = mixer(torch.tensor([[[20.0, 10.0], [10.0, 20.0]]]), Layout(Grid(1, 2)))
    assert_close(out, torch.tensor([[[20.5, 0.5], [30.0, 0.0]]]))


def test_spatial_gating_equation() -> None:
    mixer, x = redrawn(SpatialGating(C, GRID, hidden_ratio=3.0)), random(B, 7, C)
    hidden = F.gelu(mixer.proj1(x))
    assert hidden.shape[-1] == 14
    gates, weight = mixer.norm(hidden[..., 7:]), mixer.spatial.weight[:, :, 0]
    gates = torch.stack([sum(weight[i, j] * gates[:, j] for j in range(7)) for i in range(7)], dim=1)
    assert_close(mixer(x, Layout(GRID)), mixer.proj2(hidden[..., :7] * (gates + mixer.spatial.bias[:, None])))


def test_a_fresh_gate_is_nearly_open_in_a_backbone_too() -> None:
    """The backbone draws every Linear anew: W must not be one, or a fresh net would multiply noise by noise."""
    block = Backbone(8, 3, 2, C, 1, block=lambda d, g, r: Block(d, g, r, mixer=SpatialGating)).encoder.blocks[0]
    mixer, grid = block.mixer, Grid(4, 4, prefix=("cls",))
    x = torch.randn(B, 17, C)
    u, _ = F.gelu(mixer.proj1(x)).chunk(2, dim=-1)
    assert_close(mixer(x, Layout(grid)), mixer.proj2(u), rtol=0, atol=0.01)
    assert mixer.spatial.weight.count_nonzero() == 17**2


@pytest.mark.parametrize("mixer", [TokenMlp, SpatialGating])
def test_another_grid_is_refused_saying_both(mixer: type[nn.Module]) -> None:
    name, built = mixer.__name__, r"7 tokens \(2x3 patches after 1 prefix tokens\)"
    with pytest.raises(ValueError, match=rf"^{name} was built for {built}, got 4 tokens \(2x2 patches\)$"):
        mixer(C, GRID)(torch.randn(1, 4, C), Layout(Grid(2, 2)))


def test_widths_are_at_least_one() -> None:
    with pytest.raises(ValueError, match=r"^hidden width must be at least 1, got 0 of 7 tokens, hidden_ratio=0.1$"):
        TokenMlp(C, GRID, 0.1)
    with pytest.raises(ValueError, match=r"^gate width must be at least 1, got 0 of dim 5 and hidden_ratio=0.2$"):
        SpatialGating(C, GRID, 0.2)
