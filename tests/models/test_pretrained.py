from functools import partial
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from torch import nn

from vit.layers import (
    Block,
    ConvStem,
    Head,
    MapPool,
    MeanPool,
    PoolFactory,
    PostNormBlock,
    Rotary2d,
    SelfAttention,
    SeqPool,
)
from vit.models import CNN, Backbone, ViT, load_init, plain_vit


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))


@pytest.fixture
def donors(monkeypatch: pytest.MonkeyPatch, no_network: None) -> list[nn.Module]:
    """timm's nets as they were asked for, with fresh weights in the place of downloaded ones."""
    made, create = [], timm.create_model

    def fresh(name: str, pretrained: bool = False, **options: object) -> nn.Module:
        net = create(name, **options)
        if pretrained:
            made.append(net)
        return net

    monkeypatch.setattr(timm, "create_model", fresh)
    return made


@pytest.mark.usefixtures("no_network")
def test_without_network_one_line_says_so() -> None:
    with pytest.raises(ValueError) as raised:
        load_init(plain_vit("tiny", 224, 3, 10), "timm:vit_tiny_patch16_224")
    assert str(raised.value) == (
        "timm:vit_tiny_patch16_224 is not in the local cache and the network cannot be reached"
    )
    with pytest.raises(ValueError, match="timm:resnet18 is not in the local cache"):
        load_init(CNN(32, 3, 10), "timm:resnet18")
    assert huggingface_hub.constants.HF_HUB_OFFLINE


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("runs/last", "weights come from timm:NAME, such as timm:vit_small_patch16_224; got 'runs/last'"),
        ("timm:", "got 'timm:'"),
        ("timm:vit_tiny_patch16_225", "timm has no net 'vit_tiny_patch16_225': .* vit_tiny_patch16_224"),
        ("timm:vit_tiny_patch16_224.mine", "Invalid pretrained tag"),
        ("timm:vit_large_patch14_224", "cannot be had: nobody has published weights"),
    ],
)
@pytest.mark.usefixtures("no_network")
def test_bad_sources_are_told(source: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        load_init(plain_vit("nano", 32, 3, 10), source)
    assert "\n" not in str(raised.value)


def test_a_vit_takes_all_but_a_head_of_another_class_count(donors: list[nn.Module]) -> None:
    net = plain_vit("tiny", (160, 224), 1, 10, patch_size=16)
    summary = load_init(net, "timm:vit_tiny_patch16_224")
    assert str(summary) == (
        "timm:vit_tiny_patch16_224: loaded 150 weights; resized positions 14x14 to 10x14; new: head"
    )
    assert donors[0].in_chans == 1  # timm sums the channels of a pretrained first layer
    assert torch.equal(net.backbone.patch_embed.proj.weight, donors[0].patch_embed.proj.weight)
    assert torch.equal(net.backbone.encoder.blocks[11].mixer.qkv.weight, donors[0].blocks[11].attn.qkv.weight)
    same = plain_vit("tiny", 224, 3, 1000)
    assert str(load_init(same, "timm:vit_tiny_patch16_224")) == "timm:vit_tiny_patch16_224: loaded 152 weights"
    assert torch.equal(same.head.fc.weight, donors[1].head.weight)


def test_a_head_with_its_own_pool_starts_new_as_a_whole(donors: list[nn.Module]) -> None:
    net = ViT(224, 3, 1000, partial(Backbone, patch_size=16), partial(Head, pool=SeqPool))
    assert str(load_init(net, "timm:vit_tiny_patch16_224")).endswith("; new: head")
    assert not torch.equal(net.head.fc.weight, donors[0].head.weight)


FOREIGN = {
    "post-norm": ({"block": PostNormBlock}, r"got .*backbone.encoder.blocks.\{0,1,.*,11\} \(PostNormBlock\)"),
    "rotary": ({"block": partial(Block, mixer=partial(SelfAttention, rotary=Rotary2d))}, r"mixer.rotary \(Rotary2d\)"),
    "conv stem": ({"patch_embed": ConvStem}, r"got .*backbone.patch_embed \(ConvStem\)"),
    "more heads": (
        {"block": partial(Block, mixer=partial(SelfAttention, num_heads=6))},
        r"num_heads 3, got backbone.encoder.blocks.\{0,1,.*,11\}.mixer \(6\)$",
    ),
    "late heads": (
        {"early": [(Block, 11)], "block": partial(Block, mixer=partial(SelfAttention, num_heads=6))},
        r"num_heads 3, got backbone.encoder.blocks.11.mixer \(6\)$",
    ),
}


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.usefixtures("donors")
def test_a_backbone_that_computes_something_else_is_refused_untouched(name: str) -> None:
    options, message = FOREIGN[name]
    net = ViT(224, 3, 10, partial(Backbone, patch_size=16, **options))
    before = net.backbone.encoder.blocks[0].mixer.qkv.weight.clone()
    with pytest.raises(ValueError, match=f"^timm:vit_tiny_patch16_224 expected .*{message}") as raised:
        load_init(net, "timm:vit_tiny_patch16_224")
    assert "\n" not in str(raised.value)
    assert torch.equal(net.backbone.encoder.blocks[0].mixer.qkv.weight, before)


@pytest.mark.parametrize("pool", [MeanPool, partial(MapPool, num_heads=4), SeqPool])
@pytest.mark.usefixtures("donors")
def test_any_head_may_start_new(pool: PoolFactory) -> None:
    net = ViT(224, 3, 10, partial(Backbone, patch_size=16), partial(Head, pool=pool))
    assert str(load_init(net, "timm:vit_tiny_patch16_224")).endswith("; new: head")


@pytest.mark.usefixtures("donors")
def test_a_head_that_timm_has_too_needs_its_number_of_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm, "create_model", partial(timm.create_model, global_pool="map"))
    net = ViT(224, 3, 1000, partial(Backbone, patch_size=16), partial(Head, pool=partial(MapPool, num_heads=4)))
    with pytest.raises(ValueError, match=r"expected num_heads 3, got head.pool.attention \(4\)$"):
        load_init(net, "timm:vit_tiny_patch16_224")


@pytest.mark.usefixtures("donors")
def test_a_net_that_does_not_fit_is_told() -> None:
    with pytest.raises(
        ValueError, match=r"qkv.weight \(\(576, 192\) instead of \(288, 96\)\).*; only head may start new"
    ):
        load_init(plain_vit("nano", 224, 3, 10), "timm:vit_tiny_patch16_224")
    with pytest.raises(ValueError, match="timm:resnet18 is no plain ViT"):
        load_init(plain_vit("nano", 32, 3, 10), "timm:resnet18")
    with pytest.raises(ValueError, match="timm:resnet34 fits a CNN of that name, got resnet18"):
        load_init(CNN(32, 3, 10), "timm:resnet34")
    with pytest.raises(ValueError, match="fits a ViT or a CNN, got a Linear"):
        load_init(nn.Linear(2, 2), "timm:resnet18")


@pytest.mark.parametrize(
    ("name", "img_size", "fresh"),
    [
        ("resnet18", 32, "; new: net.conv1; new: net.fc"),
        ("resnet18", 96, "; new: net.fc"),
        ("convnext_atto", 32, "; new: net.stem.0; new: net.head.fc"),
    ],
)
def test_a_cnn_takes_all_but_stem_and_classifier(donors: list[nn.Module], name: str, img_size: int, fresh: str) -> None:
    net = CNN(img_size, 3, 10, name)
    assert str(load_init(net, f"timm:{name}")).endswith(f"weights{fresh}")
    theirs = donors[-1].state_dict()
    new = tuple(part.removeprefix("net.") for part in fresh.split("; new: ") if part)
    for key, value in net.net.state_dict().items():
        assert key.startswith(new) or torch.equal(value, theirs[key]), key


@pytest.mark.usefixtures("donors")
def test_the_stem_of_a_net_for_big_images_has_to_fit() -> None:
    net = CNN(96, 3, 10)
    net.net.conv1 = nn.Conv2d(3, 64, 3, bias=False)
    with pytest.raises(ValueError, match=r"net.conv1.weight .*; only net.fc may start new"):
        load_init(net, "timm:resnet18")
