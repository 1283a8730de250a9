from functools import partial

import pytest
import torch
from torch.testing import assert_close

from vit.layers import Block, Head, ReinforcePool, SelfAttention
from vit.models import Backbone, ViT
from vit.tasks.choice import answer
from vit.tasks.classify import Classifier
from vit.tasks.optim import AdamW


def hard() -> ViT:
    block = partial(Block, mixer=partial(SelfAttention, num_heads=2))
    backbone = partial(Backbone, patch_size=4, embed_dim=16, depth=1, block=block)
    return ViT(8, 1, 10, backbone, partial(Head, pool=ReinforcePool))


def test_a_net_without_a_hard_readout_answers_as_it_is_called(tiny_net) -> None:
    images = torch.randn(3, 1, 8, 8)
    logits, choice = answer(tiny_net.eval(), images)
    assert choice is None
    assert_close(logits, tiny_net(images), rtol=0, atol=0)


def test_sizes_reach_the_net(tiny_net) -> None:
    images, sizes = torch.randn(2, 1, 8, 8), torch.tensor([[4, 8], [8, 8]])
    logits, _ = answer(tiny_net.eval(), images, sizes)
    assert_close(logits, tiny_net(images, sizes), rtol=0, atol=0)
    net = hard().train()
    assert_close(answer(net, images[:, :, :4, :4], sizes * 0 + 4)[0], answer(net, images[:, :, :4, :4])[0])


def test_logits_are_those_of_the_token_chosen() -> None:
    net, images = hard().train(), torch.randn(5, 1, 8, 8)
    logits, choice = answer(net, images)
    assert_close(logits, net.head.fc(choice.pooled), rtol=0, atol=0)
    tokens, _ = net.backbone(images)
    assert ((tokens[:, 1:] - choice.pooled[:, None]).abs().sum(dim=2).amin(dim=1) == 0).all()


def test_training_moves_the_scores_and_the_loss_told_is_the_answers_own(trainer, digits) -> None:
    net = hard()
    before = {name: value.clone() for name, value in net.head.named_parameters()}
    fit = trainer(max_epochs=1, limit_train_batches=3)
    fit.fit(Classifier(net, AdamW(warmup_epochs=0.1)), digits)
    for name, value in net.head.named_parameters():
        assert not torch.equal(value, before[name]), name
    assert float(fit.callback_metrics["train/loss"]) == pytest.approx(2.6, abs=0.8)  # with the term about 5 more
