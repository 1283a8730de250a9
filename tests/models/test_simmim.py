from functools import partial

import pytest
import torch
from torch.testing import assert_close

from tests.helpers import redrawn
from tests.models.nets import PRETRAINING, pretraining
from tests.models.test_mae import FixedLength
from vit.layers import Block, ConformerBlock, ConvStem
from vit.models import SimMIM, patchify

simmims = pytest.mark.parametrize("make", [make for name, make in PRETRAINING.items() if name.startswith("simmim")])


@simmims
def test_the_encoder_never_sees_a_hidden_pixel(make) -> None:
    """Nor does a stem that looks beyond its patch."""
    net, noise = redrawn(make()), torch.rand(2, 15)
    images = torch.randn(2, 5, 12, 20).double().requires_grad_()
    found = net(images, noise)
    (gradient,) = torch.autograd.grad(found.prediction.square().sum(), images)
    gradient = patchify(gradient, (4, 4))
    assert gradient[found.wanted].eq(0).all() and gradient[~found.wanted].ne(0).any(dim=-1).all()


@simmims
def test_with_nothing_hidden_it_is_the_plain_encoder(make) -> None:
    net, seen = redrawn(make()), []
    net.mask_ratio = 0.0
    images = torch.randn(2, 5, 12, 20).double()
    net.backbone.norm.register_forward_hook(lambda module, args, out: seen.append(out))
    found = net(images, torch.rand(2, 15))
    expected, layout = net.backbone(images)
    assert torch.equal(seen[0], expected)
    assert_close(found.prediction, net.decoder(expected[:, layout.grid.num_prefix :]), rtol=0, atol=0)
    assert found.loss.eq(0).all() and not found.wanted.any()


@pytest.mark.parametrize(("ratio", "hidden"), [(0.6, 9), (0.0, 0), (0.99, 15)])
def test_the_share_of_hidden_patches(ratio: float, hidden: int) -> None:
    net = pretraining(partial(SimMIM, mask_ratio=ratio))
    assert (net(torch.randn(7, 5, 12, 20), torch.rand(7, 15)).wanted.sum(dim=1) == hidden).all()


def test_mask_tokens_know_where_they_are() -> None:
    net, seen = pretraining(SimMIM).eval(), []
    net.backbone.encoder.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    found = net(torch.randn(2, 5, 12, 20), torch.rand(2, 15))
    expected = (net.mask_token + net.backbone.pos_embed.embed).expand(2, -1, -1)
    assert_close(seen[0][:, 1:][found.wanted], expected[found.wanted])


def test_any_backbone_will_do() -> None:
    for part in (
        {"patch_embed": ConvStem},
        {"block": ConformerBlock},
        {"block": partial(Block, mixer=FixedLength)},
    ):
        assert pretraining(SimMIM, **part)(torch.randn(2, 5, 12, 20), torch.rand(2, 15)).loss.isfinite().all()
    with pytest.raises(ValueError, match=r"mask_ratio must lie in \[0, 1\), got 1"):
        pretraining(partial(SimMIM, mask_ratio=1.0))
