from functools import partial

import torch
from torch.testing import assert_close

from vit.analysis import cost
from vit.layers import Block, ClassToken, Head, PoolFactory, ReinforcePool, SelfAttention
from vit.models import Backbone, ViT
from vit.models.choice import answer


def net(pool: PoolFactory) -> ViT:
    block = partial(Block, mixer=partial(SelfAttention, num_heads=2))
    backbone = partial(Backbone, patch_size=4, embed_dim=16, depth=1, block=block)
    return ViT(8, 1, 10, backbone, partial(Head, pool=pool))


def hard() -> ViT:
    return net(ReinforcePool).train()


def test_a_net_without_a_hard_readout_answers_as_it_is_called() -> None:
    plain, images = net(ClassToken).eval(), torch.randn(3, 1, 8, 8)
    logits, choice = answer(plain, images)
    assert choice is None
    assert_close(logits, plain(images), rtol=0, atol=0)


def test_sizes_reach_the_net() -> None:
    plain, images, sizes = net(ClassToken).eval(), torch.randn(2, 1, 8, 8), torch.tensor([[4, 8], [8, 8]])
    logits, _ = answer(plain, images, sizes)
    assert_close(logits, plain(images, sizes), rtol=0, atol=0)
    drawing = hard()
    assert_close(answer(drawing, images[:, :, :4, :4], sizes * 0 + 4)[0], answer(drawing, images[:, :, :4, :4])[0])


def test_a_timed_step_trains_the_score_and_the_baseline_too() -> None:
    drawing = hard()
    before = {name: value.clone() for name, value in drawing.head.named_parameters()}
    cost.training(drawing, (1, 8, 8), 3)()
    for name, value in drawing.head.named_parameters():
        assert not torch.equal(value, before[name]), name


def test_logits_are_those_of_the_token_chosen() -> None:
    drawing, images = hard(), torch.randn(5, 1, 8, 8)
    logits, choice = answer(drawing, images)
    assert_close(logits, drawing.head.fc(choice.pooled), rtol=0, atol=0)
    tokens, _ = drawing.backbone(images)
    assert ((tokens[:, 1:] - choice.pooled[:, None]).abs().sum(dim=2).amin(dim=1) == 0).all()
