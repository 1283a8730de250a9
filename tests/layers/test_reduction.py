import math

import pytest
import torch
from einops import rearrange
from torch.testing import assert_close

from tests.helpers import PREFIXES, B, random, redrawn
from vit.layers import CrossAttention, SpatialReduction
from vit.tokens import Grid, Layout, Mask

C, H = 6, 2


def module(reduction: int) -> SpatialReduction:
    return redrawn(SpatialReduction(C, Grid(2, 2), H, reduction))


@pytest.mark.parametrize("reduction", [1, 2, 3])
@pytest.mark.parametrize("prefix", PREFIXES, ids=len)
@pytest.mark.parametrize("size", [(4, 6), (5, 7)], ids=str)
def test_is_attention_to_squares(size: tuple[int, int], prefix: tuple[str, ...], reduction: int) -> None:
    """One square after the other, the last ones continued with zeros; prefix tokens are keys of their own."""
    grid, front, mixer = Grid(*size, prefix=prefix), len(prefix), module(reduction)
    x = random(B, grid.tokens, C)
    attention = CrossAttention(C, grid, H).double()
    weights = {name: value for name, value in mixer.state_dict().items() if not name.startswith(("reduce", "norm"))}
    attention.load_state_dict(weights)
    image, squares = x[:, front:].unflatten(1, size), []
    for top in range(0, size[0], reduction):
        for left in range(0, size[1], reduction):
            square = image.new_zeros(B, reduction, reduction, C)
            inside = image[:, top : top + reduction, left : left + reduction]
            square[:, : inside.shape[1], : inside.shape[2]] = inside
            squares.append(torch.einsum("byxc,dcyx->bd", square, mixer.reduce.weight) + mixer.reduce.bias)
    coarse = mixer.norm(torch.cat((x[:, :front], torch.stack(squares, dim=1)), dim=1))
    expected = attention(x, coarse, Layout(Grid(1, coarse.shape[1])))
    assert_close(mixer(x, Layout(grid)), expected)


@pytest.mark.parametrize("prefix", PREFIXES, ids=len)
def test_without_reduction_it_is_full_attention_to_normed_tokens(prefix: tuple[str, ...]) -> None:
    grid, mixer, attention = Grid(3, 5, prefix=prefix), module(1), CrossAttention(C, Grid(3, 5), H).double()
    weights = {name: value for name, value in mixer.state_dict().items() if not name.startswith(("reduce", "norm"))}
    attention.load_state_dict(weights)
    with torch.no_grad():
        mixer.reduce.weight.copy_(torch.eye(C)[..., None, None])
        mixer.reduce.bias.zero_()
    x = random(B, grid.tokens, C)
    assert_close(mixer(x, Layout(grid)), attention(x, mixer.norm(x), Layout(grid)))
    v = mixer.kv(mixer.norm(x))[..., C:]
    mixed = mixer.matrix(x, Layout(grid)) @ rearrange(v, "b n (h d) -> b h n d", h=H)
    assert_close(mixer.proj(rearrange(mixed, "b h n d -> b n (h d)")), mixer(x, Layout(grid)))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("reduction", [1, 2, 3])
def test_its_matrix_shares_out_the_weights_of_squares(reduction: int, masked: bool) -> None:
    grid, mixer = Grid(5, 7, prefix=("cls",)), module(reduction)
    x, keys = random(B, 36, C), torch.ones(B, 5, 7, dtype=torch.bool)
    keys[1, 3:], keys[1, :, 4:] = not masked, not masked
    keys = torch.cat((torch.ones(B, 1, dtype=torch.bool), keys.flatten(1)), dim=1)
    layout = Layout(grid, Mask(keys=keys) if masked else None)
    matrix = mixer.matrix(x, layout)
    assert matrix.shape == (B, H, 36, 36)
    assert_close(matrix.sum(dim=-1), torch.ones(B, H, 36).double())
    assert matrix.min() >= 0 and not matrix.movedim(-1, 1)[~keys].any()
    assert (matrix.movedim(-1, 1)[keys] > 0).all()
    taps = mixer.reduce.weight.norm(dim=(0, 1))  # within a square patches are to each other as the taps on them
    if reduction > 1:
        assert_close(matrix[..., 2] / matrix[..., 1], (taps[0, 1] / taps[0, 0]).expand(B, H, 36))


def test_by_hand() -> None:
    """One channel: the norm leaves its bias only, 3, so each token reads 3 times the value weight, whatever it asks."""
    mixer, grid = SpatialReduction(1, Grid(2, 2), 1, 2), Grid(2, 2)
    with torch.no_grad():
        mixer.norm.bias.fill_(3)
        mixer.kv.weight.copy_(torch.tensor([[1.0], [5.0]]))
        mixer.kv.bias.copy_(torch.tensor([0.0, 0.25]))
        mixer.proj.weight.fill_(2)
        mixer.proj.bias.fill_(-1)
    assert_close(mixer(torch.randn(1, 4, 1), Layout(grid)), torch.full((1, 4, 1), 2 * 15.25 - 1))


def test_memory_is_that_of_the_squares() -> None:
    mixer, x = module(4), random(1, 256, C)
    _, keys, values, seen = mixer._project(x, Layout(Grid(16, 16)))
    assert keys.shape[2] == values.shape[2] == 16 and seen is None


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match=r"^embed_dim 6 is not divisible by num_heads 4$"):
        SpatialReduction(6, Grid(2, 2), 4)
    for name in ("num_heads", "reduction"):
        with pytest.raises(ValueError, match=f"^{name} must be at least 1, got 0$"):
            SpatialReduction(6, Grid(2, 2), **{name: 0})


def test_scores_are_scaled() -> None:
    """By the square root of a head's width, 4 here."""
    mixer, grid = redrawn(SpatialReduction(4, Grid(1, 2), 1, 1)), Grid(1, 2)
    x = random(1, 2, 4)
    q, k, _, _ = mixer._project(x, Layout(grid))
    difference = (q[0, 0, 0] @ (k[0, 0, 1] - k[0, 0, 0])).item()
    weight = 1 / (1 + math.exp(difference / 2))
    assert mixer.matrix(x, Layout(grid))[0, 0, 0, 0].item() == pytest.approx(weight)
