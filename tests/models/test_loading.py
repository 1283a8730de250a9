from functools import partial

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from tests.helpers import redrawn
from vit.layers import Block, DistilledHead, Head, MapPool, SelfAttention
from vit.models import CNN, Backbone, ViT, load_weights
from vit.models.parts import head_of


def vit(img_size=(12, 20), in_chans: int = 3, classes: int = 5, patch_size=4, head=Head, **options) -> ViT:
    block = partial(Block, mixer=partial(SelfAttention, num_heads=2))
    backbone = partial(Backbone, patch_size=patch_size, embed_dim=24, depth=2, block=block, **options)
    return ViT(img_size, in_chans, classes, backbone, head)


def test_another_patch_size_keeps_the_tokens_of_enlarged_pictures() -> None:
    donor, net = redrawn(vit((12, 20), patch_size=4)), vit((18, 35), patch_size=(6, 7)).double().eval()
    account = load_weights(net, donor.state_dict())
    images = torch.randn(2, 3, 12, 20, dtype=torch.float64)
    patches = F.unfold(images, 4, stride=4)  # b (c p q) n
    enlarged = F.interpolate(patches.permute(0, 2, 1).reshape(-1, 3, 4, 4), (6, 7), mode="bilinear").flatten(1)
    big = F.fold(enlarged.reshape(2, 15, -1).permute(0, 2, 1), (18, 35), (6, 7), stride=(6, 7))
    assert_close(net(big), donor(images), rtol=0, atol=1e-9)
    assert str(account) == "loaded 32 weights; resized patches 4x4 to 6x7"


def test_channels_patches_and_positions_change_together_and_are_told() -> None:
    donor, net = redrawn(vit((16, 16), in_chans=1)).float(), vit((20, 15), in_chans=3, patch_size=5)
    account = load_weights(net, donor.state_dict())
    assert str(account) == (
        "loaded 32 weights; resized channels 1 to 3 and patches 4x4 to 5x5; resized positions 4x4 to 4x3"
    ) or set(account.resized.values()) == {"channels 1 to 3 and patches 4x4 to 5x5", "positions 4x4 to 4x3"}
    table = account.table().splitlines()
    assert "  resized  backbone.pos_embed.embed: positions 4x4 to 4x3" in table
    assert "  resized  backbone.patch_embed.proj.weight: channels 1 to 3 and patches 4x4 to 5x5" in table
    assert "  loaded   backbone.encoder.blocks.{0,1}.mlp.fc1" in table and "  loaded   head.fc" in table
    assert not any(line.startswith(("  new", "  skipped")) for line in table)


def test_a_head_starts_new_only_where_it_has_to() -> None:
    attentive = partial(Head, pool=partial(MapPool, num_heads=2))
    donor, net = vit(head=attentive), vit(head=attentive, classes=3)
    account = load_weights(net, donor.state_dict(), new=head_of(net))
    assert account.new == ("head.fc",)
    assert torch.equal(net.head.pool.latent, donor.head.pool.latent)
    plain = vit()
    pooled = vit(head=attentive)
    before = pooled.head.fc.weight.clone()
    assert load_weights(pooled, plain.state_dict(), new=head_of(pooled)).new == ("head",)
    assert torch.equal(pooled.head.fc.weight, before)  # made for other features
    both = vit(head=DistilledHead, prefix=("cls", "dist"))
    wanted = {name: value for name, value in both.state_dict().items() if "fc_dist" not in name}
    assert load_weights(both, wanted, new=head_of(both)).new == ("head.fc_dist",)


def test_what_is_skipped_is_told_and_what_is_unknown_is_an_error() -> None:
    net = vit()
    weights = {**vit().state_dict(), "decoder.0.weight": torch.zeros(2), "decoder.1.weight": torch.zeros(2)}
    with pytest.raises(ValueError, match=r"decoder\.\{0,1\}\.weight \(unknown\)"):
        load_weights(net, weights, source="runs/mae")
    account = load_weights(net, weights, skip=["decoder"], source="runs/mae")
    assert str(account) == "runs/mae: loaded 32 weights; skipped: decoder"
    assert account.table().endswith("  skipped  decoder.{0,1}")


def test_a_refused_load_leaves_the_net_as_it_was() -> None:
    net, weights = vit(), vit().state_dict()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    del weights["backbone.norm.bias"]
    with pytest.raises(ValueError, match=r"^weights do not fit the net: backbone.norm.bias \(missing\)$"):
        load_weights(net, weights)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert load_weights(net, weights, new=("backbone.norm.bias",)).new == ("backbone.norm.bias",)


def test_a_cnns_first_convolution_takes_other_channels() -> None:
    donor, net = CNN(32, 1, 5, width=0.25), CNN(32, 3, 5, width=0.25)
    account = load_weights(net, donor.state_dict())
    assert account.resized == {"net.conv1.weight": "channels 1 to 3"}
    grey = torch.randn(2, 1, 32, 32)
    assert_close(net.eval()(grey.expand(-1, 3, -1, -1)), donor.eval()(grey), rtol=1e-4, atol=1e-5)


def test_parts_without_classes_are_told() -> None:
    with pytest.raises(ValueError, match="expected a net that classifies, a ViT or a CNN; got a Linear"):
        head_of(torch.nn.Linear(2, 2))
