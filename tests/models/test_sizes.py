"""Pictures of different sizes in one batch: each gets what it gets alone."""

import re
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from tests.attention.members import MECHANISMS, Member
from tests.helpers import redrawn, untyped
from tests.layers.members import MIXERS
from tests.layers.members import Member as Mixer
from vit.layers import (
    Block,
    ClassToken,
    ConformerBlock,
    ConvStem,
    Head,
    LearnedPositions,
    MapPool,
    MaxPool,
    MeanPool,
    NoPositions,
    PatchEmbed,
    Rotary2d,
    SelfAttention,
    SeqPool,
    SinCos1d,
    SinCos2d,
)
from vit.models import CNN, Backbone, ViT
from vit.tokens import Grid, Layout, Mask

PATCH, IN_CHANS = 4, 3
LENGTHS = torch.tensor([[1, 5], [2, 4], [3, 1]]) * PATCH  # 5, 8 and 3 patches
SIZES = torch.tensor([[2, 5], [3, 4], [5, 3]]) * PATCH
ROTARY = partial(Block, mixer=partial(SelfAttention, rotary=Rotary2d))


def padded(sizes: Tensor) -> tuple[Tensor, list[Tensor]]:
    """A batch with noise for padding, and each of its pictures."""
    images = torch.randn(len(sizes), IN_CHANS, *sizes.amax(dim=0).tolist(), dtype=torch.float64)
    return images, [image[None, :, :height, :width] for image, (height, width) in zip(images, sizes, strict=True)]


def check(net: Callable[..., Tensor], sizes: Tensor) -> None:
    images, pictures = padded(sizes)
    with torch.no_grad():
        together, alone = net(images, sizes), torch.cat([net(picture) for picture in pictures])
    assert_close(together, alone, rtol=1e-9, atol=1e-9)
    assert (alone - alone[:1]).abs().amax(dim=-1)[1:].min() > 1e-3, "the pictures give different logits"


@pytest.mark.parametrize("sizes", [LENGTHS, SIZES], ids=["5, 8 and 3 patches", "larger"])
@pytest.mark.parametrize("embed", [PatchEmbed, ConvStem])
@pytest.mark.parametrize("positions", [LearnedPositions, SinCos1d, SinCos2d, NoPositions])
@pytest.mark.parametrize("block", [ROTARY, partial(ConformerBlock, mixer=SelfAttention)], ids=["rotary", "conformer"])
def test_a_padded_picture_gets_the_logits_it_has_alone(
    block: partial, positions: type[nn.Module], embed: type[nn.Module], sizes: Tensor
) -> None:
    options = {"block": block, "pos_embed": positions, "patch_embed": embed}
    net = redrawn(plain_of(**options))
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()  # zero stays zero through a fresh one
    check(net, sizes)
    check(net.features, sizes)


def plain_of(pool: type[nn.Module] = MeanPool, **options: object) -> ViT:
    backbone = partial(Backbone, patch_size=PATCH, embed_dim=24, depth=2, **options)
    return ViT((12, 20), IN_CHANS, 5, backbone, partial(Head, pool=pool))


@pytest.mark.parametrize("pool", [ClassToken, MeanPool, MaxPool, SeqPool, MapPool])
def test_every_pool_leaves_the_padding_out(pool: type[nn.Module]) -> None:
    check(redrawn(plain_of(pool, prefix=("cls", "reg"))), SIZES)


@pytest.mark.parametrize("member", MECHANISMS, ids=str)
def test_every_mechanism_honours_padding_or_refuses_it(member: Member) -> None:
    """Also one that knows the grid: its windows, strides and borders are those of the picture alone."""
    mixer = partial(SelfAttention, mechanism=member.factory)
    net = redrawn(plain_of(block=partial(Block, mixer=mixer)))
    images, _ = padded(SIZES)
    try:
        net(images, SIZES)
    except ValueError:
        return
    check(net, SIZES)


@pytest.mark.parametrize("patch", [(1, 1), (4, 1), (2, 4), (8, 2)], ids=str)
def test_a_conv_stem_sees_no_padding_at_any_stride(patch: tuple[int, int]) -> None:
    """A step of stride 1 looks one pixel beyond the picture, where padding lies."""
    stem = redrawn(ConvStem(IN_CHANS, 24, patch))
    for module in stem.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
    rows, columns = 3 * patch[0], 2 * patch[1]
    images = torch.randn(2, IN_CHANS, 5 * patch[0], 7 * patch[1], dtype=torch.float64)
    sizes = torch.tensor([images.shape[2:], (rows, columns)])
    together = stem(images, sizes)
    assert_close(together[:1], stem(images[:1]))
    assert_close(together[1].view(5, 7, 24)[:3, :2].flatten(0, 1), stem(images[1:, :, :rows, :columns])[0])


@pytest.mark.parametrize("member", MIXERS, ids=str)
def test_every_mixer_honours_padding_or_refuses_it(member: Mixer) -> None:
    net = redrawn(plain_of(block=partial(Block, mixer=member.factory)))
    images, _ = padded(SIZES)
    try:
        net(images, SIZES)
    except ValueError:
        return
    check(net, SIZES)


def test_in_training_a_conv_stem_counts_the_pictures_pixels_only() -> None:
    """Two pictures of one size, padded, train BatchNorm as they do alone: outputs, running statistics, gradients."""
    stems = [ConvStem(IN_CHANS, 24, (PATCH, PATCH)).double() for _ in range(2)]
    stems[1].load_state_dict(stems[0].state_dict())
    images = torch.randn(2, IN_CHANS, 20, 16, dtype=torch.float64)
    inside = (torch.arange(20)[:, None] < 12) & (torch.arange(16) < 8)
    together = stems[0](images, torch.tensor([[12, 8], [12, 8]])).view(2, 5, 4, 24)[:, :3, :2].flatten(1, 2)
    alone = stems[1](images[:, :, inside].view(2, IN_CHANS, 12, 8))
    assert_close(together, alone)
    for out in (together, alone):
        out.pow(3).sum().backward()
    for name, buffer in stems[0].named_buffers():
        assert_close(buffer, stems[1].get_buffer(name))
    for name, parameter in stems[0].named_parameters():
        assert_close(parameter.grad, stems[1].get_parameter(name).grad)


def test_whatever_fills_the_padding_is_not_seen() -> None:
    net = redrawn(plain_of(patch_embed=ConvStem))
    images, _ = padded(SIZES)
    rows, columns = torch.arange(images.shape[2])[:, None], torch.arange(images.shape[3])
    outside = (rows >= SIZES[:, 0, None, None]) | (columns >= SIZES[:, 1, None, None])
    expected = net(images, SIZES)
    for filling in (0.0, 1e6, float("nan")):
        filled = images.masked_fill(outside[:, None], filling).requires_grad_()
        logits = net(filled, SIZES)
        assert_close(logits, expected)
        logits.sum().backward()
        assert filled.grad[outside[:, None].expand_as(filled)].count_nonzero() == 0


def test_sizes_of_full_pictures_change_nothing() -> None:
    net = redrawn(plain_of())
    images = torch.randn(2, IN_CHANS, 12, 20, dtype=torch.float64)
    assert_close(net(images, torch.tensor([[12, 20]] * 2)), net(images))


def test_the_layout_tells_the_patch_grids_and_masks_the_rest() -> None:
    backbone = plain_of(prefix=("cls",)).backbone.double()
    tokens, layout = backbone.embed(padded(LENGTHS)[0], LENGTHS)
    assert layout.grid == (3, 5, ("cls",))
    assert layout.sizes.tolist() == [[1, 5], [2, 4], [3, 1]]
    assert layout.mask.keys.sum(dim=1).tolist() == [1 + 5, 1 + 8, 1 + 3]
    assert layout.patch_keys[2].nonzero()[:, 0].tolist() == [0, 5, 10]
    assert tokens[:, 1:][~layout.patch_keys].count_nonzero() == 0
    kept = layout.keep(torch.tensor([[0, 1, 5], [0, 5, 9], [5, 10, 1]]))
    assert kept.sizes is layout.sizes
    assert kept.patch_keys.tolist() == [[True, True, False], [True, True, False], [True, True, False]]


def test_sizes_need_a_mask() -> None:
    message = "sizes say that there is padding: expected a mask whose keys leave it out, got none"
    for mask in (None, Mask(causal=True)):
        with pytest.raises(ValueError, match=f"^{message}$"):
            Layout(Grid(2, 3), mask, sizes=torch.tensor([[1, 2]]))


def test_patch_dropout_drops_a_share_of_each_pictures_own_patches() -> None:
    net = plain_of(patch_drop=0.4).double().train()
    images, _ = padded(SIZES)
    tokens, layout = net.backbone(images, SIZES)
    assert layout.patch_keys.sum(dim=1).tolist() == [6, 7, 9]  # of 10, 12 and 15
    full = Layout.padded(layout.grid, layout.sizes).patch_keys.gather(1, layout.index)
    assert (full >= layout.patch_keys).all()
    assert tokens.shape[1] == 1 + 15
    net(images, SIZES).sum().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([[8, 8]], "expected a size for each of the 3 pictures, got 1"),
        ([[8, 8], [8, 24], [8, 8]], "picture 8x24 does not lie within the batch's 20x20 pixels"),
        ([[8, 8], [8, 0], [8, 8]], "picture 8x0 does not lie within the batch's 20x20 pixels"),
        ([[8, 8], [8, 8], [10, 8]], "image 10x8 is not divisible by patch size 4x4"),
    ],
)
def test_refuses_sizes_that_do_not_fit(sizes: list[list[int]], message: str) -> None:
    with untyped(), pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        plain_of()(padded(SIZES)[0].float(), torch.tensor(sizes))


def test_a_cnn_refuses_sizes() -> None:
    net = CNN(20, IN_CHANS, 5, "resnet10t")
    images = torch.randn(3, IN_CHANS, 20, 20)
    for call in (net, net.features, net.with_features):
        with pytest.raises(ValueError, match=r"^a CNN sees padding as part of the picture: .* got sizes$"):
            call(images, SIZES)
