from functools import partial

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from tests.helpers import redrawn
from tests.models.nets import PRETRAINING, pretraining
from vit.layers import Block, ConformerBlock, ConvModule, ConvStem, NoPositions
from vit.models import MAE, patchify
from vit.models.mae import _num_heads

maes = pytest.mark.parametrize("make", [make for name, make in PRETRAINING.items() if name.startswith("mae")])


class FixedLength(nn.Module):
    """A mixer that mixes as many tokens as the grid has, by learned weights."""

    def __init__(self, dim: int, grid) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(grid.tokens))

    def forward(self, x, layout):
        if x.shape[1] != len(self.weight):
            raise ValueError(f"fixed to {len(self.weight)} tokens, got {x.shape[1]}")
        return self.weight @ x


@maes
def test_the_encoder_never_sees_a_hidden_pixel(make) -> None:
    net, noise = redrawn(make()), torch.rand(2, 15)
    images = torch.randn(2, 5, 12, 20).double().requires_grad_()
    found = net(images, noise)
    (gradient,) = torch.autograd.grad(found.prediction.square().sum(), images)
    gradient = patchify(gradient, (4, 4))
    assert gradient[found.wanted].eq(0).all() and gradient[~found.wanted].ne(0).all()


@maes
def test_the_encoder_has_the_visible_tokens_only(make) -> None:
    net, lengths = make(), []
    net.backbone.encoder.blocks[0].register_forward_hook(lambda module, args, out: lengths.append(args[0].shape[1]))
    net(torch.randn(2, 5, 12, 20), torch.rand(2, 15))
    front, visible = net.backbone.grid.num_prefix, round(15 * (1 - net.mask_ratio))
    assert lengths == [front + visible]


@pytest.mark.parametrize(("ratio", "hidden"), [(0.75, 11), (0.5, 7), (0.01, 1), (0.99, 14)])
def test_the_share_of_hidden_patches(ratio: float, hidden: int) -> None:
    net = pretraining(partial(MAE, mask_ratio=ratio))
    wanted = net(torch.randn(7, 5, 12, 20), torch.rand(7, 15)).wanted
    assert (wanted.sum(dim=1) == hidden).all()


def test_every_patch_is_hidden_equally_often() -> None:
    net = pretraining(MAE, depth=1)
    wanted = net(torch.zeros(2000, 5, 12, 20), torch.rand(2000, 15)).wanted
    assert (wanted.float().mean(dim=0) - 11 / 15).abs().max() < 0.05


def test_predictions_know_where_they_are() -> None:
    """Without positions in the decoder all hidden patches of a picture would be predicted alike."""
    found = pretraining(MAE).eval()(torch.randn(1, 5, 12, 20), torch.rand(1, 15))
    guesses = found.prediction[0, found.wanted[0]]
    assert (guesses - guesses[:1]).abs().amax(dim=1)[1:].min() > 1e-3
    alike = pretraining(partial(MAE, decoder_pos_embed=NoPositions)).eval()(
        torch.randn(1, 5, 12, 20), torch.rand(1, 15)
    )
    guesses = alike.prediction[0, alike.wanted[0]]
    assert (guesses - guesses[:1]).abs().max() < 1e-5


def test_the_decoder_gets_every_token_in_its_place() -> None:
    """By hand, of an encoder without blocks: there each token is what it is among all the others, too."""
    net = redrawn(pretraining(MAE, depth=0, prefix=("cls", "reg")))
    images, seen = torch.randn(3, 5, 12, 20).double(), []
    net.decoder.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    wanted = net(images, torch.rand(3, 15)).wanted
    tokens = net.decoder_embed(net.backbone(images)[0])
    patches = torch.where(wanted[..., None], net.mask_token, tokens[:, 2:])
    placed = net.decoder_pos_embed(patches, net.backbone.grid)
    assert_close(seen, [torch.cat((tokens[:, :2], placed), dim=1)], rtol=0, atol=1e-12)


def test_the_decoder_is_half_as_wide_and_a_third_as_deep_or_as_published() -> None:
    small = pretraining(MAE, embed_dim=96, depth=12, block=partial(Block))
    assert (small.decoder_embed.out_features, len(small.decoder.blocks)) == (48, 4)
    published = pretraining(partial(MAE, decoder_embed_dim=512, decoder_depth=8))
    assert (published.decoder_embed.out_features, len(published.decoder.blocks)) == (512, 8)
    assert published.decoder.blocks[0].mixer.num_heads == 16
    shared = pretraining(MAE, embed_dim=96, depth=12, block=partial(Block), share_layers=True)
    assert len(shared.decoder.blocks) == 4, "as deep as the twelve layers ask for, which are one block"
    assert [_num_heads(width) for width in (8, 48, 96, 100, 512)] == [1, 1, 3, 2, 16]


def test_what_cannot_be_masked_is_refused_and_simmim_advised() -> None:
    with pytest.raises(ValueError, match=r"MAE needs .*own pixels only, but ConvStem looks at other patches.*SimMIM"):
        pretraining(MAE, patch_embed=ConvStem)
    needs = r"^MAE needs an encoder of the 4 visible of 15 patches, which a part of the backbone refuses: "
    with pytest.raises(ValueError, match=needs + "ConvModule needs every patch .* a kept subset of 4 of 15; SimMIM"):
        pretraining(MAE, block=ConformerBlock)
    with pytest.raises(ValueError, match=needs + "ConvModule"):
        pretraining(MAE, early=[(partial(Block, mixer=ConvModule), 1)])
    with pytest.raises(ValueError, match=needs + "fixed to 16 tokens, got 5; SimMIM"):
        pretraining(MAE, block=partial(Block, mixer=FixedLength))
    with pytest.raises(ValueError, match=r"mask_ratio must lie in \(0, 1\), got 1"):
        pretraining(partial(MAE, mask_ratio=1.0))
