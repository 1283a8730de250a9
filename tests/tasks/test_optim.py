import math

import pytest
import torch

from vit.models import CNN, plain_vit
from vit.tasks.optim import AdamW, steps, total_steps


def test_schedule_rises_to_the_peak_and_falls_to_the_floor():
    share = AdamW(warmup_epochs=2, min_lr_ratio=0.1).schedule(total_steps=50, steps_per_epoch=5)
    assert [share(0), share(4), share(9)] == [0.1, 0.5, 1.0]
    assert share(10) == 1.0
    assert math.isclose(share(30), 0.1 + 0.9 * 0.5)
    assert math.isclose(share(20), 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 4)))
    assert math.isclose(share(50), 0.1) and math.isclose(share(99), 0.1)


def test_schedule_without_warmup_starts_at_the_peak():
    assert AdamW(warmup_epochs=0).schedule(10, 5)(0) == 1.0


def test_warmup_takes_at_most_half_of_a_short_run():
    share = AdamW(warmup_epochs=5).schedule(total_steps=8, steps_per_epoch=4)
    assert share(3) == 1.0 and share(8) < 0.02


def test_one_step_run_has_a_rate():
    assert 0 < AdamW().schedule(1, 1)(0) <= 1


def test_groups_hold_every_trainable_parameter_once_and_decay_matrices_only(tiny_net):
    tiny_net.head.fc.bias.requires_grad_(False)
    groups = AdamW(weight_decay=0.3).build(tiny_net).param_groups
    names = {id(parameter): name for name, parameter in tiny_net.named_parameters()}
    decayed, spared = [[names[id(parameter)] for parameter in group["params"]] for group in groups]
    assert [group["weight_decay"] for group in groups] == [0.3, 0.0]
    assert not set(decayed) & set(spared) and len(decayed + spared) == len(set(decayed + spared))
    assert set(decayed + spared) == set(names.values()) - {"head.fc.bias"}
    assert all(name.endswith("weight") and "norm" not in name for name in decayed)
    assert "backbone.encoder.blocks.0.mixer.qkv.weight" in decayed and "head.fc.weight" in decayed
    assert {"backbone.prefix_tokens", "backbone.pos_embed.embed", "backbone.norm.weight"} <= set(spared)


def test_first_step_is_adamw_by_hand():
    layer = torch.nn.Linear(2, 1, bias=False)
    before = layer.weight.detach().clone()
    optimizer = AdamW(lr=0.1, weight_decay=0.5).build(layer)
    layer(torch.tensor([[1.0, -2.0]])).sum().backward()
    optimizer.step()
    # bias-corrected moments of a first gradient g give the step lr * sign(g), after decay by 1 - lr * 0.5
    torch.testing.assert_close(layer.weight.detach(), before * 0.95 - 0.1 * torch.tensor([[1.0, -1.0]]))


@pytest.mark.parametrize(
    ("batches", "limit", "accumulate", "expected"), [(11, 1.0, 1, 11), (11, 1.0, 4, 3), (11, 0.5, 2, 3), (11, 6, 4, 2)]
)
def test_steps_of_an_epoch(batches, limit, accumulate, expected):
    assert steps(batches, limit, accumulate) == expected


def test_total_is_that_of_epochs_and_max_steps_only_where_they_are_unbounded():
    assert total_steps(10, 4, -1) == 40
    assert total_steps(10, 4, 11) == 40
    assert total_steps(10, -1, 11) == 11
    with pytest.raises(ValueError, match=r"needs an end: set trainer\.max_epochs"):
        total_steps(10, -1, -1)


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="expected lr > 0"):
        AdamW(lr=-1.0)


def rates(net, **options):
    """Learning rate and decay of each parameter, by name."""
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    groups = AdamW(lr=1.0, **options).build(net).param_groups
    return {names[id(p)]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}


def test_layers_learn_slower_the_deeper_they_lie():
    net = plain_vit("pico", 8, 1, 10)
    found = rates(net, layer_decay=0.5, weight_decay=0.1)
    assert found.keys() == {name for name, _ in net.named_parameters()}
    assert found["head.fc.weight"] == (1.0, 0.1) and found["head.fc.bias"] == (1.0, 0.0)
    assert found["backbone.norm.weight"] == (1.0, 0.0)
    assert found["backbone.encoder.blocks.3.mlp.fc1.weight"] == (0.5, 0.1)
    assert found["backbone.encoder.blocks.0.mixer.qkv.bias"] == (0.5**4, 0.0)
    for name in ("patch_embed.proj.bias", "prefix_tokens", "pos_embed.embed"):
        assert found[f"backbone.{name}"] == (0.5**5, 0.0)
    assert AdamW(lr=1.0, layer_decay=0.5).build(net).param_groups[0]["lr"] == 1.0  # the one that is logged


def test_a_cnns_blocks_count_as_layers():
    found = rates(CNN(32, 1, 10, "resnet18", width=0.1), layer_decay=0.5)
    lr = {name: rate for name, (rate, _) in found.items()}
    assert lr["net.fc.weight"] == 1.0 and lr["net.layer4.1.conv2.weight"] == 0.5
    assert lr["net.layer4.0.conv1.weight"] == 0.25 and lr["net.conv1.weight"] == min(lr.values())


def test_without_layer_decay_there_are_two_groups():
    assert len(AdamW().build(plain_vit("pico", 8, 1, 10)).param_groups) == 2


@pytest.mark.parametrize("decay", [0.0, 1.5, -1.0])
def test_layer_decay_is_a_share(decay):
    with pytest.raises(ValueError, match=f"layer_decay must be above 0 and at most 1, got {decay}"):
        AdamW(layer_decay=decay)
