from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from tests.models.nets import plain
from vit.analysis.features import CLASS, HEAD, PATCHES, gathered, read_by_head, readings
from vit.layers import DistilledHead, Head, MapPool, MeanPool, SinCos2d
from vit.models import CNN, MAE, Backbone

IMAGES = torch.randn(3, 5, 12, 20)


@torch.no_grad()
def test_a_vit_is_read_at_its_patches_its_class_token_and_its_own_pool() -> None:
    net = plain(prefix=("cls", "reg")).eval()
    tokens, _ = net.backbone(IMAGES)
    found = readings(net)(IMAGES)
    assert found.keys() == {PATCHES, CLASS}
    assert_close(found[PATCHES], tokens[:, 2:].mean(dim=1))
    assert_close(found[CLASS], tokens[:, 0])
    mean = plain(partial(Head, pool=MeanPool), prefix=(), pos_embed=SinCos2d).eval()
    assert readings(mean)(IMAGES).keys() == {PATCHES}
    beside = plain(partial(Head, pool=MeanPool), prefix=("cls",)).eval()
    assert_close(read_by_head(beside)(IMAGES), {HEAD: beside.backbone(IMAGES)[0][:, 1:].mean(dim=1)})
    attentive = plain(partial(Head, pool=MapPool)).eval()
    assert_close(readings(attentive)(IMAGES)[HEAD], attentive.features(IMAGES))
    assert readings(plain(DistilledHead, prefix=("cls", "dist")))(IMAGES).keys() == {PATCHES, CLASS, HEAD}


@torch.no_grad()
def test_others_are_read_at_what_they_have() -> None:
    cnn = CNN((12, 20), 5, 3, "resnet10t", width=0.25).eval()
    assert_close(readings(cnn)(IMAGES), {HEAD: cnn.features(IMAGES)})
    mae = MAE((12, 20), 5, partial(Backbone, patch_size=4, embed_dim=24, depth=1)).eval()
    assert_close(readings(mae)(IMAGES)[PATCHES], mae.features(IMAGES))
    with pytest.raises(ValueError, match="features are read from a ViT, a CNN or a pretrained net, got a Linear"):
        readings(nn.Linear(2, 2))


def test_batches_are_put_together_in_order_and_the_net_is_left_frozen() -> None:
    net = plain(drop_path=0.5).train()
    batches = [(IMAGES[:2], torch.tensor([4, 1]), torch.arange(2)), (IMAGES[2:], torch.tensor([0]), torch.arange(1))]
    features, labels = gathered(net, batches)
    assert labels.tolist() == [4, 1, 0]
    with torch.no_grad():
        assert_close(features[PATCHES], readings(net.eval())(IMAGES)[PATCHES].numpy(), rtol=1e-5, atol=1e-6)
    assert features[PATCHES].dtype == np.float32
