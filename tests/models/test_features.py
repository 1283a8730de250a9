"""Features: what the last linear map sees, for every net, pool and head."""

from collections.abc import Callable
from functools import partial

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from tests.helpers import redrawn
from tests.models.nets import NETS, plain
from vit.layers import Block, DistilledHead, Head, SelfAttention
from vit.models import CNN, Backbone, ViT, from_timm, load_weights

IMAGES = (2, 5, 12, 20)


def linear_map(net: ViT | CNN) -> tuple[Tensor, Tensor]:
    """Weight (k d) and bias (k) of the last linear map, both maps' mean of a distilled head."""
    if isinstance(net, CNN):
        fc = net.net.get_classifier()
        return fc.weight, fc.bias
    if isinstance(net.head, DistilledHead):
        fc, dist = net.head.fc, net.head.fc_dist
        return torch.cat((fc.weight, dist.weight), dim=1) / 2, (fc.bias + dist.bias) / 2
    return net.head.fc.weight, net.head.fc.bias


@pytest.mark.parametrize("make", NETS.values(), ids=NETS)
@torch.no_grad()
def test_logits_are_the_linear_map_of_the_features(make: Callable[[], nn.Module]) -> None:
    net, images = redrawn(make()), torch.randn(IMAGES).double()
    logits, features = net.with_features(images)
    weight, bias = linear_map(net)
    assert features.shape == (2, weight.shape[1]) and features.std(dim=0).max() > 1e-3
    assert_close(features @ weight.T + bias, net(images))
    assert_close(logits, net(images), rtol=0, atol=0)
    assert_close(features, net.features(images), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"])
@torch.no_grad()
def test_features_are_timms(name: str) -> None:
    """timm takes the mean of a distilled net's two tokens, ours lie side by side: each map sees its own."""
    theirs = redrawn(timm.create_model(name, num_classes=3, depth=1, img_size=32))
    prefix, head = (("cls", "dist"), DistilledHead) if "distilled" in name else (("cls",), Head)
    block = partial(Block, mixer=partial(SelfAttention, num_heads=3))
    ours = ViT(32, 3, 3, partial(Backbone, patch_size=16, depth=1, prefix=prefix, block=block), head).double().eval()
    load_weights(ours, from_timm(theirs.state_dict()))
    images = torch.randn(2, 3, 32, 32).double()
    tokens = ours.features(images).chunk(len(prefix), dim=1)
    expected = theirs.forward_head(theirs.forward_features(images), pre_logits=True)
    assert_close(torch.stack(tokens).mean(dim=0), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["resnetv2_18", "dla46_c", "mobilenetv3_small_050", "repvit_m0_9"])
@torch.no_grad()
def test_nets_with_other_classifiers_have_features_too(name: str) -> None:
    """Their last layer is a convolution, a batch norm with a linear map, ...: timm's word for what it sees holds."""
    net, images = CNN(32, 3, 7, name).eval(), torch.randn(2, 3, 32, 32)
    logits, features = net.with_features(images)
    assert features.ndim == 2 and features.shape[0] == 2
    assert_close(logits, net(images))


def test_features_drop_out_in_training_only() -> None:
    net, images = plain(partial(Head, drop=0.5)), torch.randn(IMAGES)
    assert (net.train().features(images) == 0).any()
    assert (net.eval().features(images) != 0).all()


def test_wrong_channels_are_told() -> None:
    for make in (NETS["plain"], NETS["resnet"]):
        with pytest.raises(ValueError, match=r"^the model takes images of 5 channels, got 3$"):
            make().features(torch.randn(2, 3, 12, 20))
