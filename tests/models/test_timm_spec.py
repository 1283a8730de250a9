"""Nets that timm has weights for, built from their name alone: the same features and logits, in both directions."""

import json
from typing import Any

import pytest
import timm
import torch
from torch import nn
from torch.testing import assert_close

from tests.models.test_weights import redraw
from vit.layers import Mlp, SwiGLU
from vit.models import CNN, ViT, to_timm
from vit.models.pretrained import load_init, load_timm_weights
from vit.models.timm_spec import timm_spec
from vit.spec import build

PLAIN = {
    "vit_base_patch16_224.mae": 5,
    "vit_small_patch14_reg4_dinov2.lvd142m": 5,
    "deit3_small_patch16_224.fb_in1k": 5,
    "vit_base_patch16_siglip_224": 5,
    "vit_base_patch16_siglip_gap_224": 5,
    "vit_base_patch32_siglip_256.v2_webli": 5,  # GELU by tanh, in the pool too
    "vit_base_patch32_siglip_gap_256.v2_webli": 5,
    "vit_base_patch14_dinov2.lvd142m": 0,  # as timm has it, without a head
    "deit_tiny_distilled_patch16_224": 5,
}


def pair_of(name: str, grid: tuple[int, int]) -> tuple[Any, ViT]:
    """timm's net of one block on this grid with weights drawn anew, and ours of its name."""
    tree = json.loads(json.dumps(timm_spec(name)))
    backbone = tree["args"]["backbone"]["args"]
    sides = tuple(side * patch for side, patch in zip(grid, backbone["patch_size"], strict=True))
    source = timm.create_model(name, num_classes=PLAIN[name], depth=1, img_size=sides, weight_init="skip")
    redraw(source)
    tree["args"] |= {"img_size": sides, "num_classes": max(PLAIN[name], 1)}
    tree["args"]["backbone"]["args"] = {**backbone, "depth": 1}
    return source.eval(), build(tree).eval()


def features(source: Any, images: torch.Tensor) -> torch.Tensor:
    return source.forward_head(source.forward_features(images), pre_logits=True)


@torch.no_grad()
@pytest.mark.parametrize("name", PLAIN)
def test_a_name_of_timm_gives_its_features_and_logits(name: str) -> None:
    source, net = pair_of(name, (3, 5))
    source, net = source.double(), net.double()
    account = load_timm_weights(net, source.state_dict(), name, (3, 5), ())
    images = torch.randn(2, 3, *(side * patch for side, patch in zip((3, 5), net.backbone.patch_size, strict=True)))
    images = images.double()
    expected = source(images)
    assert account.new == (() if PLAIN[name] else ("head",))
    assert not account.resized
    if "distilled" not in name:
        assert_close(net.features(images), features(source, images), rtol=0, atol=1e-9)
    if PLAIN[name]:
        assert_close(net(images), expected, rtol=0, atol=1e-9)
    exported = {key: value for key, value in to_timm(net).items() if PLAIN[name] or not key.startswith("head.")}
    if source.pos_embed.shape[1] == 15:  # on patches only
        front = exported["pos_embed"].shape[1] - 15
        assert exported["pos_embed"][:, :front].abs().max() == 0 if front else True
        exported["pos_embed"] = exported["pos_embed"][:, front:]
    for value in source.state_dict().values():
        value.fill_(torch.nan)
    source.load_state_dict(exported)
    assert_close(source(images), expected, rtol=0, atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize(
    "name", ["vit_small_patch14_reg4_dinov2.lvd142m", "deit3_small_patch16_224.fb_in1k", "vit_base_patch16_siglip_224"]
)
def test_another_resolution_equals_timms(name: str) -> None:
    """timm resizes in float32: compared with a relative error of 1e-5."""
    (source, _), (_, net) = pair_of(name, (4, 4)), pair_of(name, (3, 5))
    account = load_timm_weights(net, source.state_dict(), name, None, ())
    assert list(account.resized.values()) == ["positions 4x4 to 3x5"]
    sides = [side * patch for side, patch in zip((3, 5), net.backbone.patch_size, strict=True)]
    source.set_input_size(tuple(sides))
    images = torch.randn(2, 3, *sides)
    expected = source(images)
    assert expected.abs().max() > 0.1
    assert (net(images) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_a_cnn_is_named_and_others_are_refused() -> None:
    assert isinstance(build(timm_spec("resnet18.a1_in1k")), CNN)
    with pytest.raises(ValueError, match="swin_tiny_patch4_window7_224 is no convolutional net"):
        timm_spec("swin_tiny_patch4_window7_224")
    with pytest.raises(ValueError, match="timm has no net 'resnet19'"):
        timm_spec("resnet19")


def test_gated_mlps_get_their_width() -> None:
    tree = timm_spec("vit_giant_patch14_dinov2")["args"]["backbone"]["args"]["block"]["args"]["mlp"]
    assert tree["factory"] == "vit.layers.mlp.SwiGLU"
    assert SwiGLU(1536, tree["args"]["mlp_ratio"]).fc2.in_features == 4096


@torch.no_grad()
def test_an_activation_by_tanh_is_not_the_exact_one() -> None:
    """Or the comparison above would not have seen it: 1e-5 is what issue and reader expect of equal weights."""
    source, net = pair_of("vit_base_patch32_siglip_256.v2_webli", (2, 3))
    load_timm_weights(net, source.state_dict(), "siglip", (2, 3), ())
    images = torch.randn(2, 3, 64, 96)
    expected = source(images)
    assert (net(images) - expected).abs().max() <= 1e-5 * expected.abs().max()
    for module in net.modules():
        if isinstance(module, Mlp):
            module.act = nn.GELU()
    assert (net(images) - expected).abs().max() > 1e-5 * expected.abs().max()


@pytest.mark.parametrize(
    ("name", "other", "message"),
    [
        (
            "vit_base_patch32_siglip_256.v2_webli",
            "vit_base_patch16_siglip_224",
            r"expected the activation GELU by tanh, got backbone\.encoder\.blocks\.0\.mlp \(GELU\)",
        ),
        (
            "vit_base_patch16_siglip_224",
            "vit_base_patch32_siglip_256.v2_webli",
            r"expected the activation GELU, got backbone\.encoder\.blocks\.0\.mlp \(GELU by tanh\)",
        ),
        (
            "vit_base_patch16_clip_quickgelu_224.openai",
            "vit_base_patch16_siglip_224",
            r"expected the activation QuickGELU, got backbone",
        ),
    ],
)
def test_another_activation_is_refused(name: str, other: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model

    def fresh(name: str, pretrained: bool = False, **options: Any) -> nn.Module:
        return create(name, depth=1, **options)

    monkeypatch.setattr(timm, "create_model", fresh)
    net = build(timm_spec(other))
    with pytest.raises(ValueError, match=f"^timm:{name} {message}"):
        load_init(net, f"timm:{name}")


def test_a_pool_with_another_activation_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda name, pretrained=False, **options: create(name, depth=1, **options)
    )
    name = "vit_base_patch32_siglip_256.v2_webli"
    tree = timm_spec(name)
    del tree["args"]["head"]["args"]["pool"]["args"]["act_layer"]
    with pytest.raises(ValueError, match=r"expected the activation GELU by tanh, got head\.pool\.mlp \(GELU\)$"):
        load_init(build(tree), f"timm:{name}")
