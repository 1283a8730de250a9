import json
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from tests.helpers import redrawn
from vit.layers import (
    Block,
    ConformerBlock,
    ConvModule,
    ConvStem,
    Mlp,
    NoPositions,
    PostNormBlock,
    SelfAttention,
    default_patch_size,
)
from vit.models import Backbone
from vit.models.backbone import parameters_without_decay
from vit.spec import build, spec

REGISTERS = ("cls", "reg", "reg", "reg", "reg")


@pytest.mark.parametrize("prefix", [(), ("cls",), REGISTERS])
@pytest.mark.parametrize(("img_size", "in_chans", "patch_size"), [((12, 20), 3, 4), (14, 1, 7), ((6, 22), 5, (3, 2))])
def test_tokens_are_prefix_then_patches(
    prefix: tuple[str, ...], img_size: tuple[int, int] | int, in_chans: int, patch_size: tuple[int, int] | int
) -> None:
    backbone = Backbone(img_size, in_chans, patch_size, embed_dim=24, depth=1, prefix=prefix)
    height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
    rows, columns = (patch_size, patch_size) if isinstance(patch_size, int) else patch_size
    tokens, layout = backbone(torch.randn(2, in_chans, height, width))
    assert layout.grid == backbone.grid == (height // rows, width // columns, prefix)
    assert tokens.shape == (2, len(prefix) + layout.grid.patches, 24)


def test_another_image_size_is_taken_and_told_in_the_layout() -> None:
    backbone = Backbone((12, 20), 3, 4, embed_dim=24, depth=1)
    tokens, layout = backbone(torch.randn(1, 3, 28, 8))
    assert layout.grid == (7, 2, ("cls",))
    assert tokens.shape == (1, 15, 24)


def test_forward_is_embed_then_encode() -> None:
    backbone, images = redrawn(Backbone(12, 3, 4, embed_dim=24, depth=2)), torch.randn(2, 3, 12, 12).double()
    assert_close(backbone.encode(*backbone.embed(images)), backbone(images)[0], rtol=0, atol=0)


def test_prefix_tokens_carry_no_position_and_patches_do() -> None:
    backbone = redrawn(Backbone(12, 3, 4, embed_dim=24, depth=1, prefix=REGISTERS))
    with torch.no_grad():
        plain = backbone.patch_embed(torch.zeros(1, 3, 12, 12).double())
        tokens, _ = backbone.embed(torch.zeros(1, 3, 12, 12).double())
    assert_close(tokens[:, :5], backbone.prefix_tokens)
    assert_close(tokens[:, 5:], plain + backbone.pos_embed.embed)


def dropping(rate: float) -> tuple[Backbone, Tensor]:
    """A backbone without blocks whose output token i of the image is patch i alone."""
    backbone = Backbone(16, 1, 4, embed_dim=16, depth=0, prefix=("cls", "reg"), patch_drop=rate, norm=nn.Identity)
    return backbone.double(), torch.randn(3, 1, 16, 16).double()


def test_patch_dropout_keeps_the_tokens_it_says_it_keeps() -> None:
    backbone, images = dropping(0.25)
    full, _ = backbone.embed(images)
    kept, layout = backbone.train()(images)
    assert layout.index.shape == (3, 12)
    assert (layout.index.diff(dim=1) > 0).all()
    assert len({tuple(row.tolist()) for row in layout.index}) > 1
    assert_close(kept[:, :2], full[:, :2])
    assert_close(kept[:, 2:], full[:, 2:].gather(1, layout.index[..., None].expand(-1, -1, 16)))


def test_patch_dropout_leaves_evaluation_alone() -> None:
    backbone, images = dropping(0.25)
    tokens, layout = backbone.eval()(images)
    assert layout.index is None
    assert_close(tokens, backbone.embed(images)[0])


def test_early_blocks_come_first_and_count_in_the_depth() -> None:
    backbone = Backbone(8, 3, 4, embed_dim=24, depth=3, early=[(PostNormBlock, 1)], drop_path=0.2)
    assert [type(block) for block in backbone.encoder.blocks] == [PostNormBlock, Block, Block]
    rates = [block.residual1.drop_path.rate for block in backbone.encoder.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2])
    with pytest.raises(ValueError, match="early blocks are counted in depth 3, but there are 4 of them"):
        Backbone(8, 3, 4, embed_dim=24, depth=3, early=[(PostNormBlock, 3), (Block, 1)])


def test_width_and_depth_are_not_negative() -> None:
    for embed_dim in (0, -24):
        with pytest.raises(ValueError, match=f"^embed_dim must be at least 1, got {embed_dim}$"):
            Backbone(8, 3, 4, embed_dim=embed_dim)
    with pytest.raises(ValueError, match=r"^depth must be at least 0, got -1$"):
        Backbone(8, 3, 4, embed_dim=24, depth=-1)
    assert Backbone(8, 3, 4, embed_dim=24, depth=0)(torch.randn(2, 3, 8, 8))[0].shape == (2, 5, 24)


def test_wrong_channels_and_sizes_are_told() -> None:
    backbone = Backbone(12, 3, 4, embed_dim=24, depth=1)
    with pytest.raises(ValueError, match=r"^the model takes images of 3 channels, got 1$"):
        backbone(torch.randn(1, 1, 12, 12))
    with pytest.raises(ValueError, match=r"^image 12x18 is not divisible by patch size 4x4$"):
        backbone(torch.randn(1, 3, 12, 18))
    with pytest.raises(ValueError, match=r"^image 30x30 is not divisible by patch size 4x4$"):
        Backbone(30, 3, 4)


@pytest.mark.parametrize(
    ("img_size", "patch"), [((8, 8), 1), ((28, 28), 4), ((32, 32), 4), ((64, 64), 8), ((224, 224), 16), ((32, 48), 4)]
)
def test_patch_size_follows_the_image_size(img_size: tuple[int, int], patch: int) -> None:
    assert default_patch_size(img_size) == (patch, patch)
    assert Backbone(img_size, 3, embed_dim=24, depth=0).patch_size == (patch, patch)


def test_weight_decay_spares_all_but_matrices() -> None:
    block = partial(Block, layer_scale=0.1)
    spared = parameters_without_decay(Backbone(8, 3, 4, embed_dim=24, depth=1, block=block))
    assert spared == {
        "prefix_tokens",
        "pos_embed.embed",
        "patch_embed.proj.bias",
        "encoder.blocks.0.norm1.weight",
        "encoder.blocks.0.norm1.bias",
        "encoder.blocks.0.mixer.qkv.bias",
        "encoder.blocks.0.mixer.proj.bias",
        "encoder.blocks.0.residual1.scale.gamma",
        "encoder.blocks.0.norm2.weight",
        "encoder.blocks.0.norm2.bias",
        "encoder.blocks.0.mlp.fc1.bias",
        "encoder.blocks.0.mlp.fc2.bias",
        "encoder.blocks.0.residual2.scale.gamma",
        "norm.weight",
        "norm.bias",
    }


def test_small_nets_start_with_a_signal_in_every_projection() -> None:
    """qkv is drawn as three matrices: drawn as one, its wide fan-out would shrink queries, keys and values."""
    qkv = Backbone(8, 3, 4, embed_dim=192, depth=1, pos_embed=NoPositions).encoder.blocks[0].mixer.qkv.weight
    assert_close(qkv.std(), torch.tensor(192**-0.5), rtol=0.02, atol=0)


def hybrid() -> Backbone:
    """Two blocks of convolution, then a Conformer block that has every option."""
    mixer, conv = partial(SelfAttention, num_heads=2), partial(ConvModule, kernel_size=(3, 5), drop=0.1)
    block = partial(ConformerBlock, mixer=mixer, mlp=partial(Mlp, mlp_ratio=0.5), conv=conv, layer_scale=0.1)
    early = [(partial(Block, mixer=ConvModule), 2)]
    options = {"prefix": REGISTERS, "pos_embed": NoPositions, "patch_embed": ConvStem, "patch_drop": 0.5}
    return Backbone((12, 20), 3, 4, embed_dim=24, depth=3, block=block, early=early, drop_path=0.2, **options)


def test_a_hybrid_is_a_backbone_with_other_blocks() -> None:
    backbone = hybrid().eval()
    kinds = [type(block.mixer) for block in backbone.encoder.blocks]
    assert kinds == [ConvModule, ConvModule, SelfAttention]
    assert backbone.encoder.blocks[2].conv.depthwise.kernel_size == (3, 5)
    assert backbone.encoder.blocks[2].residual3.drop_path.rate == pytest.approx(0.2)
    for height, width, tokens in ((12, 20, 20), (28, 8, 19)):
        assert backbone(torch.randn(2, 3, height, width))[0].shape == (2, tokens, 24)


def test_a_hybrid_refuses_dropped_patches() -> None:
    with pytest.raises(ValueError, match=r"^ConvModule needs every patch of the grid in order, got .* 8 of 15$"):
        hybrid().train()(torch.randn(2, 3, 12, 20))


def test_a_hybrid_comes_back_from_its_spec_as_json() -> None:
    backbone, images = hybrid().eval(), torch.randn(2, 3, 12, 20)
    again = build(json.loads(json.dumps(spec(backbone)))).eval()
    again.load_state_dict(backbone.state_dict())
    assert_close(again(images)[0], backbone(images)[0], rtol=0, atol=0)
    assert str(again) == str(backbone)


def test_weight_decay_falls_on_a_hybrids_matrices_and_kernels() -> None:
    block = hybrid().encoder.blocks[2]
    decayed = {name for name, _ in block.named_parameters()} - parameters_without_decay(block)
    matrices = ("mlp1.fc1", "mlp1.fc2", "mixer.qkv", "mixer.proj", "mlp2.fc1", "mlp2.fc2")
    assert decayed == {
        *(f"{matrix}.weight" for matrix in matrices),
        *(f"conv.{part}.weight" for part in ("pointwise1", "depthwise", "pointwise2")),
    }


def test_a_hybrid_starts_with_a_signal_in_every_branch() -> None:
    """Xavier in the pointwise maps, and a depthwise kernel counts its own 9 weights, not those of all channels."""
    conv = Backbone(8, 3, 4, embed_dim=192, depth=1, block=ConformerBlock).encoder.blocks[0].conv
    assert_close(conv.pointwise1.weight.std(), torch.tensor((2 / (3 * 192)) ** 0.5), rtol=0.02, atol=0)
    assert_close(conv.depthwise.weight.std(), torch.tensor((2 / 9) ** 0.5), rtol=0.1, atol=0)
    assert conv.depthwise.bias.count_nonzero() == 0
