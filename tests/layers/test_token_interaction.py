"""What the parts give together: a ViT without positions sees a set of patches, with positions it does not."""

from functools import partial

import pytest
import torch
from einops import rearrange
from torch import Tensor
from torch.testing import assert_close

from tests.attention.members import Member, over
from tests.helpers import B, influence, random, redrawn
from vit.attention import BlockGather, Dense, EngineFactory, Local, MechanismFactory, Softmax, Sparse
from vit.layers import (
    Block,
    ClassToken,
    ConformerBlock,
    ConvModule,
    Encoder,
    Head,
    Identity,
    LearnedPositions,
    MapPool,
    MaxPool,
    MeanPool,
    NoPositions,
    Rotary2d,
    SelfAttention,
    SeqPool,
    SinCos1d,
    SinCos2d,
)
from vit.models import Backbone, ViT
from vit.tokens import Grid, Layout, Mask

POSITIONS = {
    "learned": {"pos_embed": LearnedPositions},
    "sin-cos 1-D": {"pos_embed": SinCos1d},
    "sin-cos 2-D": {"pos_embed": SinCos2d},
    "rotary": {"pos_embed": NoPositions, "rotary": Rotary2d},
}


def vit(pool: type, mechanism: MechanismFactory, pos_embed: type = NoPositions, rotary: type | None = None) -> ViT:
    block = partial(Block, mixer=partial(SelfAttention, head_dim=8, rotary=rotary, mechanism=mechanism))
    backbone = partial(Backbone, patch_size=(2, 3), embed_dim=12, depth=2, block=block, pos_embed=pos_embed)
    return redrawn(ViT((6, 15), 3, 7, backbone, partial(Head, pool=pool)))


def shuffled_patches(images: Tensor) -> Tensor:
    patches = rearrange(images, "b c (y p) (x q) -> b (y x) c p q", p=2, q=3)
    return rearrange(patches[:, torch.randperm(15)], "b (y x) c p q -> b c (y p) (x q)", x=5)


@over(equivariant=True)
@pytest.mark.parametrize("pool", [MeanPool, MaxPool, SeqPool, MapPool, ClassToken])
def test_logits_ignore_the_order_of_patches_without_positions(pool: type, member: Member) -> None:
    net, images = vit(pool, member.factory), random(B, 3, 6, 15)
    assert_close(net(shuffled_patches(images)), net(images))


@over(equivariant=True)
@pytest.mark.parametrize("options", POSITIONS.values(), ids=POSITIONS)
def test_logits_depend_on_the_order_of_patches_with_positions(options: dict[str, type], member: Member) -> None:
    net, images = vit(MeanPool, member.factory, **options), random(B, 3, 6, 15)
    assert (net(shuffled_patches(images)) - net(images)).abs().max() > 1e-3


@pytest.mark.parametrize("mixer", [Identity, SelfAttention])
def test_logits_depend_on_the_order_of_patches_with_convolutions(mixer: type) -> None:
    """Convolution knows where patches are: a hybrid needs no positions."""
    block = partial(ConformerBlock, mixer=mixer)
    backbone = partial(Backbone, patch_size=(2, 3), embed_dim=12, depth=2, block=block, pos_embed=NoPositions)
    net, images = redrawn(ViT((6, 15), 3, 7, backbone, partial(Head, pool=MeanPool))), random(B, 3, 6, 15)
    assert (net(shuffled_patches(images)) - net(images)).abs().max() > 1e-3


@over(keys=True, any_length=True, borderless=True)
@pytest.mark.parametrize("kind", [Block, ConformerBlock])
@pytest.mark.parametrize("pool", [MeanPool, MaxPool, SeqPool, MapPool])
def test_a_padded_batch_gives_the_features_of_each_sample_alone(pool: type, kind: type, member: Member) -> None:
    lengths, mixer = (5, 8, 3), partial(SelfAttention, mechanism=member.factory)
    encoder = redrawn(Encoder(12, Grid(1, 8), [(partial(kind, mixer=mixer), 3)]))
    head, x = redrawn(pool(12, Grid(1, 8))), random(3, 8, 12)
    keys = torch.arange(8) < torch.tensor(lengths)[:, None]
    padded = Layout(Grid(1, 8), Mask(keys=keys))
    together = head(encoder(x, padded), padded)
    for sample, length in enumerate(lengths):
        alone, layout = x[sample : sample + 1, :length], Layout(Grid(1, length))
        assert_close(together[sample : sample + 1], head(encoder(alone, layout), layout))


def test_depth_does_not_open_a_way_that_the_mask_closes() -> None:
    """Causal in every block is causal in the stack; two far tokens meet by way of a third only where pairs allow."""
    encoder = redrawn(Encoder(12, Grid(1, 5), [(Block, 2)]))
    x = random(1, 5, 12)
    causal = influence(lambda x: encoder(x, Layout(Grid(1, 5), Mask(causal=True))), x)[0, :, 0]
    assert causal.triu(1).count_nonzero() == 0
    near = (torch.arange(5)[:, None] - torch.arange(5)).abs() <= 1
    banded = influence(lambda x: encoder(x, Layout(Grid(1, 5), Mask(pairs=near[None]))), x)[0, :, 0]
    assert_close(banded > 0, (torch.arange(5)[:, None] - torch.arange(5)).abs() <= 2)


def test_convolutions_carry_a_patch_one_step_a_block_and_attention_everywhere() -> None:
    near = (torch.arange(11)[:, None] - torch.arange(11)).abs()
    for kind, options in ((Block, {"mixer": ConvModule}), (ConformerBlock, {"mixer": Identity})):
        local = partial(kind, **options)
        for blocks, expected in (([(local, 2)], near <= 2), ([(local, 2), (Block, 1)], near < 11)):
            encoder = redrawn(Encoder(3, Grid(1, 11), blocks))
            sees = influence(lambda x, encoder=encoder: encoder(x, Layout(Grid(1, 11))), random(1, 11, 3))[0, :, 0]
            assert_close(sees > 0, expected)


@pytest.mark.parametrize("engine", [Dense, BlockGather])
def test_a_band_carries_a_patch_one_width_a_block(engine: EngineFactory) -> None:
    mixer = partial(SelfAttention, mechanism=partial(Sparse, pattern=partial(Local, width=2), engine=engine))
    far = (torch.arange(11)[:, None] - torch.arange(11)).abs()
    for depth in (1, 2, 3):
        encoder = redrawn(Encoder(3, Grid(1, 11), [(partial(Block, mixer=mixer), depth)]))
        sees = influence(lambda x, encoder=encoder: encoder(x, Layout(Grid(1, 11))), random(1, 11, 3))[0, :, 0]
        assert_close(sees > 0, far <= 2 * depth)


def test_a_stack_of_identity_mixers_keeps_tokens_apart() -> None:
    encoder = redrawn(Encoder(12, Grid(1, 5), [(partial(Block, mixer=Identity), 3)]))
    sees = influence(lambda x: encoder(x, Layout(Grid(1, 5))), random(1, 5, 12))[0, :, 0]
    assert_close(sees > 0, torch.eye(5, dtype=torch.bool))


def test_batches_do_not_change_a_samples_logits() -> None:
    net, images = vit(MapPool, Softmax, LearnedPositions), random(3, 3, 6, 15)
    other = torch.cat((images[:1], 1e3 * random(2, 3, 6, 15)))
    assert_close(net(other)[0], net(images)[0])
    assert_close(net(images[:1])[0], net(images)[0])
