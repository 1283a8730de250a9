import re

import pytest
import torch
from einops import rearrange
from timm.models import adapt_input_conv
from torch.nn import functional as F
from torch.testing import assert_close

from tests.helpers import B, random, redrawn
from vit.layers import (
    ConvStem,
    PatchDropout,
    PatchEmbed,
    adapt_channels,
    default_patch_size,
    pair,
    patch_grid,
    resize_patches,
)
from vit.tokens import Grid, Layout, Mask

WIDTH = 13


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("patch", [(1, 1), (2, 2), (4, 4), (2, 3), (5, 1)], ids=str)
def test_patch_embed_is_a_linear_map_of_each_patch(patch: tuple[int, int], channels: int) -> None:
    embed, images = redrawn(PatchEmbed(channels, WIDTH, patch)), random(B, channels, 3 * patch[0], 7 * patch[1])
    patches = rearrange(images, "b c (y p) (x q) -> b (y x) (c p q)", p=patch[0], q=patch[1])
    assert_close(embed(images), patches @ embed.proj.weight.flatten(1).T + embed.proj.bias)


@pytest.mark.parametrize("patch", [(1, 1), (2, 2), (4, 4), (16, 16), (4, 2), (1, 8)], ids=str)
@pytest.mark.parametrize("width", [WIDTH, 192])
def test_conv_stem_ends_on_the_patch_grid(patch: tuple[int, int], width: int) -> None:
    stem = ConvStem(3, width, patch)
    tokens = stem(torch.randn(B, 3, 2 * patch[0], 3 * patch[1]))
    assert tokens.shape == (B, 6, width)
    tokens.pow(2).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in stem.parameters())
    strides = torch.tensor([c.stride for c in stem.convolutions if isinstance(c, torch.nn.Conv2d)])
    assert tuple(strides.prod(dim=0).tolist()) == patch
    assert all(c.kernel_size == (3, 3) for c in stem.convolutions if isinstance(c, torch.nn.Conv2d))


def test_conv_stem_keeps_raster_order() -> None:
    stem = redrawn(ConvStem(3, WIDTH, (4, 4)))
    images = random(1, 3, 8, 40).requires_grad_()
    stem(images)[0, 12].sum().backward()  # second row, third of ten columns
    rows, columns = images.grad[0].abs().sum(dim=0).nonzero().unbind(dim=1)
    assert rows.min() >= 1
    assert 5 <= columns.min() <= 8
    assert 11 <= columns.max() <= 14


@pytest.mark.parametrize("patch", [(3, 3), (4, 6), (0, 4)], ids=str)
def test_conv_stem_needs_powers_of_two(patch: tuple[int, int]) -> None:
    message = f"a conv stem halves the sides: patch sides must be powers of two, got {patch}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ConvStem(3, WIDTH, patch)


@pytest.mark.parametrize(
    ("size", "patch"),
    [((8, 8), 1), ((28, 28), 4), ((32, 32), 4), ((64, 64), 8), ((224, 224), 16), ((512, 512), 16), ((32, 48), 4)],
)
def test_default_patch_size(size: tuple[int, int], patch: int) -> None:
    assert default_patch_size(size) == (patch, patch)


@pytest.mark.parametrize("size", [(5, 7), (6, 9), (97, 97), (1, 1), (30, 45)], ids=str)
def test_default_patch_size_always_divides(size: tuple[int, int]) -> None:
    patch = default_patch_size(size)
    rows, columns = patch_grid(*size, patch)
    assert (rows * patch[0], columns * patch[1]) == size


def test_pair_and_patch_grid() -> None:
    assert pair(5) == (5, 5)
    assert pair((5, 7)) == (5, 7)
    assert patch_grid(20, 21, (4, 7)) == (5, 3)


@pytest.mark.parametrize(("height", "width", "patch"), [(10, 12, (4, 4)), (12, 10, (4, 4)), (2, 4, (4, 4))])
def test_images_must_divide_into_patches(height: int, width: int, patch: tuple[int, int]) -> None:
    message = f"image {height}x{width} is not divisible by patch size {patch[0]}x{patch[1]}"
    with pytest.raises(ValueError, match=f"^{message}$"):
        patch_grid(height, width, patch)


@pytest.mark.parametrize("patch", [(0, 4), (4, -2)], ids=str)
def test_patches_have_at_least_one_pixel(patch: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"^patch sides must be at least 1, got {patch[0]}x{patch[1]}$"):
        patch_grid(8, 8, patch)


@pytest.mark.parametrize(("rate", "kept"), [(0.5, 5), (0.25, 8), (0.9, 1), (0.99, 1)])
def test_patch_dropout_keeps_a_share_and_says_which(rate: float, kept: int) -> None:
    grid = Grid(2, 5, prefix=("cls", "reg"))
    tokens = random(B, grid.tokens, WIDTH)
    chosen, layout = PatchDropout(rate)(tokens, Layout(grid))
    assert chosen.shape == (B, 2 + kept, WIDTH)
    assert layout.tokens == 2 + kept
    assert_close(chosen[:, :2], tokens[:, :2], rtol=0, atol=0)
    assert (layout.index.diff(dim=1) > 0).all()
    for b in range(B):
        assert_close(chosen[b, 2:], tokens[b, 2:][layout.index[b]], rtol=0, atol=0)


def test_patch_dropout_chooses_evenly_and_per_sample() -> None:
    samples = 2000
    _, layout = PatchDropout(0.6)(torch.zeros(samples, 10, 1), Layout(Grid(2, 5)))
    counts = torch.bincount(layout.index.flatten(), minlength=10) / samples
    assert (counts - 0.4).abs().max() < 5 * (0.4 * 0.6 / samples) ** 0.5
    assert len(layout.index.unique(dim=0)) > 100


def test_patch_dropout_takes_the_mask_along() -> None:
    keys = torch.arange(10) < torch.tensor([[10], [4]])
    _, layout = PatchDropout(0.5)(random(B, 10, WIDTH), Layout(Grid(2, 5), Mask(keys=keys)))
    assert layout.mask.keys.sum(dim=1).tolist() == [5, 2]  # the same share of either's own patches
    assert (layout.mask.keys <= keys.gather(1, layout.index)).all()


@pytest.mark.parametrize(("rate", "training"), [(0.5, False), (0.0, True)])
def test_patch_dropout_does_nothing_in_eval_or_at_rate_zero(rate: float, training: bool) -> None:
    tokens, layout = random(B, 10, WIDTH), Layout(Grid(2, 5))
    out = PatchDropout(rate).train(training)(tokens, layout)
    assert out[0] is tokens
    assert out[1] is layout


@pytest.mark.parametrize("rate", [1.0, -0.1])
def test_patch_dropout_rate_is_a_share(rate: float) -> None:
    with pytest.raises(ValueError, match=rf"^patch_drop must lie in \[0, 1\), got {rate}$"):
        PatchDropout(rate)


@pytest.mark.parametrize("new", [(3, 5), (4, 5), (7, 11), (6, 10)], ids=str)
def test_larger_patches_give_the_tokens_of_the_picture_before_it_was_enlarged(new: tuple[int, int]) -> None:
    weight, patch = random(WIDTH, 3, 3, 5), random(B, 3, 3, 5)
    resized = resize_patches(weight, new)
    enlarged = F.interpolate(patch, new, mode="bilinear")
    assert resized.shape == (WIDTH, 3, *new)
    assert_close(F.conv2d(enlarged, resized), F.conv2d(patch, weight), rtol=0, atol=1e-10)


def test_patches_of_the_same_size_keep_their_weights() -> None:
    weight = torch.randn(WIDTH, 3, 3, 5)
    assert resize_patches(weight, (3, 5)) is weight


def test_smaller_patches_come_as_near_as_they_can() -> None:
    """Least squares over all patches, whose pixels are independent: no step away from it does better."""
    weight, whole = random(WIDTH, 2, 5, 4), torch.eye(20, dtype=torch.float64).reshape(20, 1, 5, 4)
    shrunk, wanted = F.interpolate(whole, (3, 2), mode="bilinear").flatten(1), weight.flatten(2)
    resized = resize_patches(weight, (3, 2)).flatten(2)
    residual = torch.einsum("dcm,nm->dcn", resized, shrunk) - wanted
    assert residual.abs().max() > 0.1  # something is lost
    assert_close(torch.einsum("dcn,nm->dcm", residual, shrunk), torch.zeros_like(resized), rtol=0, atol=1e-10)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_channels_adapt_as_timms_do(channels: int) -> None:
    weight = torch.randn(WIDTH, 3, 3, 5)
    assert_close(adapt_channels(weight, channels), adapt_input_conv(channels, weight), rtol=1e-6, atol=1e-6)


def test_a_grey_picture_in_all_channels_keeps_its_tokens() -> None:
    weight, picture = random(WIDTH, 1, 3, 5), random(B, 1, 3, 5)
    rgb = adapt_channels(weight, 3)
    assert_close(F.conv2d(picture.expand(-1, 3, -1, -1), rgb), F.conv2d(picture, weight))
    assert_close(adapt_channels(rgb, 1), weight)
