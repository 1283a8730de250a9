from functools import partial

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.helpers import redrawn
from tests.models.nets import PRETRAINING, pretraining
from vit.layers import ConformerBlock, ConvStem
from vit.models import AIM, patchify

aims = pytest.mark.parametrize("make", [make for name, make in PRETRAINING.items() if name.startswith("aim")])


def influence(net: AIM, noise: Tensor) -> Tensor:
    """(n n): how much the prediction of patch t depends on the pixels of patch s."""
    images = torch.randn(1, 5, 12, 20).double().requires_grad_()
    prediction = (net(images, noise).prediction * torch.randn(80).double()).sum(dim=-1)[0]
    gradients = [torch.autograd.grad(guess, images, retain_graph=True, allow_unused=True)[0] for guess in prediction]
    return torch.stack([patchify(gradient, (4, 4))[0].norm(dim=-1) for gradient in gradients])


@aims
@pytest.mark.parametrize("draw", [0.0, 0.5, 0.999])
def test_a_prediction_sees_all_patches_before_its_own_and_none_from_there_on(make, draw: float) -> None:
    net = redrawn(make())
    noise = torch.full((1, 15), draw)
    seen, prefix = influence(net, noise), int(net._prefix_length(noise))
    wanted = net(torch.randn(1, 5, 12, 20).double(), noise).wanted[0]
    assert wanted.tolist() == [t >= prefix for t in range(15)]
    for t in range(prefix, 15):
        assert seen[t, t:].eq(0).all() and seen[t, :t].gt(0).all()


@pytest.mark.parametrize("share", [False, True])
def test_the_head_is_a_third_as_deep_as_the_encoder(share: bool) -> None:
    assert len(pretraining(AIM, depth=6, share_layers=share).head.blocks) == 2


def test_the_prefix_is_seen_both_ways_and_patches_behind_it_are_not() -> None:
    net, noise = redrawn(pretraining(AIM, prefix=("cls",), depth=1)), torch.full((1, 15), 0.5)
    assert int(net._prefix_length(noise)) == 8
    seen = influence(net, noise)
    assert seen[1, :8].gt(0).all(), "token 0, of the prefix, sees all of it"
    assert seen[1:, 8:].triu(-6).eq(0).all() and seen[1:8, 8:].eq(0).all()


def test_plain_causal_attention_equals_a_prefix_of_one_patch() -> None:
    net, images = redrawn(pretraining(AIM, prefix=())), torch.randn(2, 5, 12, 20).double()
    short = net(images, torch.zeros(2, 15))
    net.prefix = 0.0
    causal = net(images, torch.rand(2, 15))
    assert torch.equal(causal.wanted, short.wanted)
    assert_close(causal.loss, short.loss)


@pytest.mark.parametrize(("prefix", "longest"), [(1.0, 14), (0.4, 6), (0.0, 1)])
def test_prefix_lengths_are_uniform_up_to_the_longest(prefix: float, longest: int) -> None:
    net = pretraining(partial(AIM, prefix=prefix))
    lengths = net._prefix_length(torch.rand(14_000, 15))
    counts = torch.bincount(lengths, minlength=longest + 1)
    assert counts[0] == 0 and len(counts) == longest + 1
    assert (counts[1:] / 14_000 - 1 / longest).abs().max() < 0.02
    assert int(net._prefix_length(torch.ones(1, 15))) == longest


def test_what_would_leak_is_refused_and_simmim_advised() -> None:
    with pytest.raises(ValueError, match=r"AIM needs .*own pixels only, but ConvStem looks at other patches.*SimMIM"):
        pretraining(AIM, patch_embed=ConvStem)
    with pytest.raises(ValueError, match=r"^AIM needs an encoder that sees no later patch.*causal mask; SimMIM"):
        pretraining(AIM, block=ConformerBlock)
    with pytest.raises(ValueError, match=r"prefix must lie in \[0, 1\], got 2"):
        pretraining(partial(AIM, prefix=2.0))
