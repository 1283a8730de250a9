"""timm is the oracle. Every weight is drawn anew first: fresh zeros and ones would hide a wrong or forgotten one."""

import re
from collections.abc import Callable
from copy import deepcopy
from functools import partial

import pytest
import timm
import torch
from timm.layers import SwiGLUPacked
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from vit.attention import Softmax
from vit.layers import (
    Block,
    ClassToken,
    ConvStem,
    DistilledHead,
    Head,
    Identity,
    LayerNorm,
    LearnedPositions,
    MapPool,
    MaxPool,
    MeanPool,
    Mlp,
    MlpFactory,
    NoPositions,
    NormFactory,
    PoolFactory,
    PositionFactory,
    PostNormBlock,
    Rotary2d,
    SelfAttention,
    SeqPool,
    SinCos2d,
    SwiGLU,
)
from vit.models import VARIANTS, Backbone, ViT, from_timm, load_weights, plain_vit, to_timm
from vit.models.weights import compact

# all that timm.list_models has of vit_{tiny,small,base,large}_patch{8,14,16,32}_{224,384} and deit_*
NAMES = [
    "vit_tiny_patch16_224",
    "vit_tiny_patch16_384",
    "vit_small_patch8_224",
    "vit_small_patch16_224",
    "vit_small_patch16_384",
    "vit_small_patch32_224",
    "vit_small_patch32_384",
    "vit_base_patch8_224",
    "vit_base_patch16_224",
    "vit_base_patch16_384",
    "vit_base_patch16_224_miil",
    "vit_base_patch32_224",
    "vit_base_patch32_384",
    "vit_large_patch14_224",
    "vit_large_patch16_224",
    "vit_large_patch16_384",
    "vit_large_patch32_224",
    "vit_large_patch32_384",
    "deit_tiny_patch16_224",
    "deit_small_patch16_224",
    "deit_base_patch16_224",
    "deit_base_patch16_384",
    "deit_tiny_distilled_patch16_224",
    "deit_small_distilled_patch16_224",
    "deit_base_distilled_patch16_224",
    "deit_base_distilled_patch16_384",
]
CLASSES = 7
DEPTH = {"tiny": 12, "small": 4, "base": 2, "large": 4}  # of nets at 224, others have 1
SQUARE = {8: (112, 112), 14: (224, 224), 16: (224, 224), 32: (224, 224)}
OBLONG = {8: (80, 112), 14: (168, 224), 16: (160, 224), 32: (160, 224)}


def redraw(net: nn.Module) -> None:
    for name, value in [*net.named_parameters(), *net.named_buffers()]:
        if "gamma" in name:
            nn.init.uniform_(value, 0.5, 1.5)
        elif "norm" in name and name.endswith("weight"):
            nn.init.normal_(value, 1.0, 0.2)
        else:
            nn.init.normal_(value, 0.0, 0.1 if name.endswith("bias") else 0.04)


def size_and_patch(name: str) -> tuple[str, int]:
    size, patch = re.search(r"_(tiny|small|base|large)_.*patch(\d+)_", name).groups()
    return size, int(patch)


def theirs(name: str, depth: int, img_size: tuple[int, int] | None = None) -> nn.Module:
    """timm's net at the given or its native image size (patch 8 at one the test can afford)."""
    native = SQUARE[8] if img_size is None and size_and_patch(name)[1] == 8 else img_size
    net = timm.create_model(name, num_classes=CLASSES, depth=depth, img_size=native, weight_init="skip")
    redraw(net)
    return net.eval()


def ours(name: str, img_size: tuple[int, int], depth: int) -> ViT:
    size, patch = size_and_patch(name)
    dim, _, num_heads, _ = VARIANTS[size]
    prefix, head = (("cls", "dist"), DistilledHead) if "distilled" in name else (("cls",), Head)
    block = partial(Block, mixer=partial(SelfAttention, num_heads=num_heads, qkv_bias="miil" not in name))
    backbone = partial(Backbone, patch_size=patch, embed_dim=dim, depth=depth, prefix=prefix, block=block)
    return ViT(img_size, 3, CLASSES, backbone, head).eval()


def assert_relative(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    assert expected.abs().max() > 0.1, "the comparison needs logits worth comparing"
    assert (actual - expected).abs().max() <= tolerance * expected.abs().max()


@torch.no_grad()
def check_logits(source: nn.Module, net: ViT, img_size: tuple[int, int]) -> None:
    """Loaded into ours and exported into an emptied net of timm's, the weights give timm's logits.

    timm interpolates positions in float32 whatever their type, and the sum of a prefix token and its position rounds:
    float32 is compared through our own resizing, float64 from there on.
    """
    reference = deepcopy(source)
    reference.set_input_size(img_size)
    images = torch.randn(1, 3, *img_size)
    load_weights(net, from_timm(source.state_dict()))
    assert torch.equal(net.backbone.pos_embed.embed, reference.pos_embed[:, net.backbone.grid.num_prefix :])
    assert_relative(net(images), reference(images), 1e-4)
    reference, net, images, grid = reference.double(), net.double(), images.double(), net.backbone.grid[:2]
    load_weights(net, from_timm(reference.state_dict(), grid), grid)
    expected = reference(images)
    assert_close(net(images), expected, rtol=0, atol=1e-9)
    exported = to_timm(net)
    for value in reference.state_dict().values():
        value.fill_(torch.nan)
    reference.load_state_dict(exported)
    assert_close(reference(images), expected, rtol=0, atol=1e-9)


def check_gradients(reference: nn.Module, net: ViT, images: Tensor) -> None:
    """Every gradient of a training step, by name. A prefix token of ours takes the place of two weights of timm's."""
    labels = torch.arange(len(images)) % CLASSES
    F.cross_entropy(reference.train()(images), labels).backward()
    F.cross_entropy(net.train()(images), labels).backward()
    gradients = {name: parameter.grad.clone() for name, parameter in reference.named_parameters()}
    grid = net.backbone.grid
    if grid.prefix and "pos_embed" in gradients and gradients["pos_embed"].shape[1] == grid.tokens:
        front = gradients["pos_embed"][:, : grid.num_prefix]
        assert_close(front[:, :1], gradients["cls_token"])
        front.zero_()
    expected = from_timm(gradients, grid[:2])
    actual = {name: parameter.grad for name, parameter in net.named_parameters()}
    assert actual.keys() == expected.keys()
    for name, gradient in expected.items():
        assert gradient.numel() == 0 or gradient.abs().max() > 0, name
        assert_close(actual[name], gradient, rtol=1e-9, atol=1e-12, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if "large" in n else n for n in NAMES])
def test_logits_equal_timms_in_both_directions(name: str) -> None:
    size, patch = size_and_patch(name)
    depth = DEPTH[size] if "224" in name and "miil" not in name else 1
    source = theirs(name, depth)
    for img_size in (SQUARE[patch], OBLONG[patch]):
        check_logits(source, ours(name, img_size, depth), img_size)


@pytest.mark.parametrize("name", ["vit_small_patch8_224", "vit_base_patch8_224"])
def test_logits_equal_timms_at_patch_8_and_the_native_size(name: str) -> None:
    check_logits(theirs(name, 1, (224, 224)), ours(name, (224, 224), 1), (224, 224))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_logits_equal_timms_at_full_depth(name: str) -> None:
    size, patch = size_and_patch(name)
    depth = VARIANTS[size].depth
    for img_size in (SQUARE[patch], OBLONG[patch]):
        check_logits(theirs(name, depth), ours(name, img_size, depth), img_size)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_a_training_step_equal_timms(name: str) -> None:
    _, patch = size_and_patch(name)
    img_size = (2 * patch, 3 * patch)
    reference, net = theirs(name, 1), ours(name, img_size, 1).double()
    reference.set_input_size(img_size)
    load_weights(net, from_timm(reference.double().state_dict(), (2, 3)), (2, 3))
    check_gradients(reference, net, torch.randn(2, 3, *img_size, dtype=torch.float64))


def test_names_are_all_that_timm_has() -> None:
    pattern = r"(vit_(tiny|small|base|large)_patch(8|14|16|32)|deit_.*)_(224|384)(_miil)?"
    assert set(NAMES) == {name for name in timm.list_models() if re.fullmatch(pattern, name)}


@torch.no_grad()
def test_resizing_in_the_call_equals_timms() -> None:
    source = timm.create_model("vit_tiny_patch16_224", num_classes=CLASSES, depth=2, dynamic_img_size=True)
    redraw(source)
    net = ours("vit_tiny_patch16_224", (224, 224), 2)
    load_weights(net, from_timm(source.state_dict()))
    images = torch.randn(1, 3, 160, 288)
    assert_relative(net(images), source.eval()(images), 1e-4)


def tiny(
    prefix: tuple[str, ...] = ("cls",),
    pool: PoolFactory = ClassToken,
    pos_embed: PositionFactory = LearnedPositions,
    norm: NormFactory = LayerNorm,
    mlp: MlpFactory = Mlp,
    layer_scale: float | None = None,
    qkv_bias: bool = True,
    qk_norm: NormFactory | None = None,
) -> ViT:
    """2 blocks, 48 channels and 3 heads on 3x5 patches of 8x4 pixels."""
    mixer = partial(SelfAttention, num_heads=3, qkv_bias=qkv_bias, qk_norm=qk_norm)
    block = partial(Block, mixer=mixer, mlp=mlp, norm=norm, layer_scale=layer_scale)
    size = {"patch_size": (8, 4), "embed_dim": 48, "depth": 2}
    backbone = partial(Backbone, **size, prefix=prefix, pos_embed=pos_embed, block=block, norm=norm)
    return ViT((24, 20), 3, CLASSES, backbone, partial(Head, pool=pool))


TANH = partial(nn.GELU, approximate="tanh")
OPTIONS = {
    "plain": ({}, {}),
    "registers": ({"reg_tokens": 4}, {"prefix": ("cls", *["reg"] * 4)}),
    "positions on patches only": ({"reg_tokens": 2, "no_embed_class": True}, {"prefix": ("cls", "reg", "reg")}),
    "no positions": ({"pos_embed": "none"}, {"pos_embed": NoPositions}),
    "layer scale": ({"init_values": 1.0}, {"layer_scale": 1.0}),
    "qk-norm": ({"qk_norm": True}, {"qk_norm": LayerNorm}),
    "no bias": ({"qkv_bias": False}, {"qkv_bias": False}),
    "rms norm": ({"norm_layer": partial(nn.RMSNorm, eps=1e-5)}, {"norm": partial(nn.RMSNorm, eps=1e-5)}),
    "swiglu": ({"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU, "mlp_ratio": 16 / 3}, {"mlp": SwiGLU}),
    "mean": ({"class_token": False, "global_pool": "avg", "fc_norm": False}, {"prefix": (), "pool": MeanPool}),
    "mean beside class token": ({"global_pool": "avg", "fc_norm": False}, {"pool": MeanPool}),
    "max": ({"global_pool": "max", "fc_norm": False}, {"pool": MaxPool}),
    "map": ({"global_pool": "map"}, {"pool": MapPool}),
    "gelu by tanh": ({"act_layer": "gelu_tanh"}, {"mlp": partial(Mlp, act_layer=TANH)}),
    "gelu by tanh, map": (
        {"act_layer": "gelu_tanh", "global_pool": "map"},
        {"mlp": partial(Mlp, act_layer=TANH), "pool": partial(MapPool, act_layer=TANH)},
    ),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_equal_timms(name: str) -> None:
    their_options, our_options = OPTIONS[name]
    size = {"img_size": (24, 20), "patch_size": (8, 4), "embed_dim": 48, "num_heads": 3, "depth": 2}
    make = partial(timm.create_model, "vit_tiny_patch16_224", num_classes=CLASSES, **size)
    reference, net = make(**their_options).double(), tiny(**our_options).double()
    redraw(reference)
    load_weights(net, from_timm(reference.state_dict(), (3, 5)), (3, 5))
    images = torch.randn(2, 3, 24, 20, dtype=torch.float64)
    assert_close(net(images), reference(images), rtol=0, atol=1e-9)
    exported = make(**{name: value for name, value in their_options.items() if name != "no_embed_class"}).double()
    exported.load_state_dict(to_timm(net))
    assert_close(exported(images), reference(images), rtol=0, atol=1e-9)
    check_gradients(reference, net, images)


@pytest.mark.parametrize("grid", [None, (3, 5)])
def test_loading_undoes_exporting(grid: tuple[int, int] | None) -> None:
    net, other = tiny(), tiny()
    load_weights(other, from_timm(to_timm(net), (3, 5)), grid)
    assert_close(dict(other.state_dict()), dict(net.state_dict()))
    exported = to_timm(net)
    next(iter(exported.values())).add_(1)
    assert_close(dict(other.state_dict()), dict(net.state_dict()))


def test_positions_of_another_grid_are_resized_and_reported() -> None:
    small = partial(Backbone, patch_size=4, embed_dim=24, depth=1)
    square, oblong = ViT(16, 3, 2, small), ViT((12, 20), 3, 2, small)
    assert str(load_weights(oblong, square.state_dict())) == "loaded 20 weights; resized positions 4x4 to 3x5"
    assert str(load_weights(square, square.state_dict())) == "loaded 20 weights"
    back = ViT(16, 3, 2, small)
    with pytest.raises(ValueError, match=r"15 positions are no square grid: give grid=\(rows, columns\)"):
        load_weights(back, oblong.state_dict())
    assert "resized positions 3x5 to 4x4" in str(load_weights(back, oblong.state_dict(), (3, 5)))
    with pytest.raises(ValueError, match=r"has 15 positions, expected 16 for grid=\(4, 4\)"):
        load_weights(back, oblong.state_dict(), (4, 4))


def test_positions_that_may_have_two_shapes_are_not_guessed() -> None:
    small = partial(Backbone, patch_size=4, embed_dim=24, depth=1)
    flat = ViT((8, 32), 3, 2, small)
    with pytest.raises(ValueError, match="16 positions are 2x8 or 4x4: give grid"):
        load_weights(flat, ViT(16, 3, 2, small).state_dict())
    assert "4x4 to 2x8" in str(load_weights(flat, ViT(16, 3, 2, small).state_dict(), (4, 4)))
    exported = to_timm(ViT((12, 20), 3, 2, small))
    with pytest.raises(ValueError, match="13 positions, 1 prefix tokens: not a square grid"):
        from_timm({**exported, "pos_embed": exported["pos_embed"][:, :13]}, None)


def test_weights_that_do_not_fit_are_all_named() -> None:
    net = tiny()
    weights = dict(net.state_dict())
    del weights["backbone.norm.bias"]
    weights["backbone.encoder.blocks.0.norm1.weight"] = torch.zeros(47)
    weights["backbone.encoder.blocks.1.norm1.weight"] = torch.zeros(47)
    weights["backbone.extra"] = torch.zeros(1)
    before = deepcopy(dict(net.state_dict()))
    with pytest.raises(ValueError, match="weights do not fit the net: ") as raised:
        load_weights(net, weights)
    assert "backbone.norm.bias (missing)" in str(raised.value)
    assert "backbone.encoder.blocks.{0,1}.norm1.weight ((47,) instead of (48,))" in str(raised.value)
    assert "backbone.extra (unknown)" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert_close(dict(net.state_dict()), before)


def test_a_head_of_another_class_count_is_new_only_when_asked() -> None:
    weights = tiny().state_dict() | {"head.fc.weight": torch.zeros(3, 48), "head.fc.bias": torch.zeros(3)}
    net = tiny()
    fresh = net.head.fc.weight.clone()
    with pytest.raises(ValueError, match=r"head.fc.weight \(\(3, 48\) instead of \(7, 48\)\)"):
        load_weights(net, weights)
    assert str(load_weights(net, weights, new=("head",))) == "loaded 30 weights; new: head"
    assert torch.equal(net.head.fc.weight, fresh)
    assert torch.equal(net.backbone.norm.weight, weights["backbone.norm.weight"])
    assert str(load_weights(net, tiny().state_dict(), new=("head",))) == "loaded 32 weights"
    with pytest.raises(ValueError, match=r"backbone.norm.bias \(missing\); only head may start new"):
        load_weights(
            net, {name: value for name, value in weights.items() if name != "backbone.norm.bias"}, new=["head"]
        )


def test_weights_of_other_architectures_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no seat here: .*norm_pre.weight"):
        from_timm(timm.create_model("vit_base_patch32_clip_224", depth=1).state_dict())
    with pytest.raises(ValueError, match=r"no seat here: conv1.weight"):
        from_timm(timm.create_model("resnet18").state_dict())
    with pytest.raises(ValueError, match="no seat here: nothing"):
        from_timm({})


def test_names_that_differ_in_one_number_are_written_together() -> None:
    assert compact(["a.0.x", "b.norm1", "a.2.x", "a.3.y"]) == "a.{0,2}.x, b.norm1, a.3.y"


def vit(**parts: object) -> ViT:
    head = parts.pop("head", Head)
    return ViT(16, 3, 2, partial(Backbone, patch_size=4, embed_dim=24, depth=2, **parts), head)


def attention(**parts: object) -> Callable:
    return partial(Block, mixer=partial(SelfAttention, **parts))


REFUSED = {
    "backbone.encoder.blocks.{0,1}.mixer.rotary (Rotary2d)": {"block": attention(rotary=Rotary2d)},
    "backbone.encoder (shared layers)": {"share_layers": True},
    "backbone.encoder.blocks.{0,1} (PostNormBlock)": {"block": PostNormBlock},
    "backbone.encoder.blocks.{0,1}.mixer (Identity)": {"block": partial(Block, mixer=Identity)},
    "backbone.encoder.blocks.{0,1}.mixer.mechanism (scale 0.5)": {
        "block": attention(mechanism=partial(Softmax, scale=0.5))
    },
    "backbone.encoder.blocks.{0,1}.mixer (values of another width than queries)": {"block": attention(value_dim=5)},
    "heads of different number (6, 3)": {"early": [(attention(num_heads=6), 1)]},
    "heads of different number (3, 3, 4)": {"head": partial(Head, pool=partial(MapPool, num_heads=4))},
    "backbone.encoder.blocks.{0,1}.mlp.act (ReLU)": {"block": partial(Block, mlp=partial(Mlp, act_layer=nn.ReLU))},
    "different activations (GELU(approximate='none'), GELU(approximate='tanh'))": {
        "head": partial(Head, pool=partial(MapPool, act_layer=TANH))
    },
    "backbone.patch_embed (ConvStem)": {"patch_embed": ConvStem},
    "backbone.pos_embed (SinCos2d)": {"pos_embed": SinCos2d},
    "head.pool (SeqPool)": {"head": partial(Head, pool=SeqPool)},
    "head.pool (reads reg)": {"prefix": ("cls", "reg"), "head": partial(Head, pool=partial(ClassToken, token="reg"))},
    "backbone.prefix_tokens ['reg', 'cls']": {"prefix": ("reg", "cls")},
    "head (Head) on prefix tokens ['cls', 'dist']": {"prefix": ("cls", "dist")},
}


@pytest.mark.parametrize("part", REFUSED)
def test_parts_that_timm_lacks_are_named(part: str) -> None:
    with pytest.raises(ValueError) as raised:
        to_timm(vit(**REFUSED[part]))
    assert str(raised.value) == f"timm's VisionTransformer has no seat for {part}"


def test_named_sizes_have_timms_parameter_counts() -> None:
    for size in ("tiny", "small", "base"):
        with torch.device("meta"):
            reference = timm.create_model(f"vit_{size}_patch16_224")
        net = plain_vit(size, 224, 3, 1000)
        folded = net.backbone.embed_dim  # timm's position of the class token
        assert sum(p.numel() for p in net.parameters()) == sum(p.numel() for p in reference.parameters()) - folded
