from collections.abc import Callable
from functools import partial

import lightning as L
import pytest
import torch

from tests.models.nets import plain
from vit.attention import Local, Performer, Routing, Sparse
from vit.layers import Block, ConvStem, DropPath, Residual, SelfAttention
from vit.models import CNN
from vit.models.backbone import parameters_without_decay
from vit.tasks.classify import Classifier
from vit.tasks.ema import EMA
from vit.tasks.release import Release
from vit.tasks.tune import AttentionOnly, Full, LinearProbe, LoRA, Tuning, rest

TUNINGS = {
    "linear probe": LinearProbe(),
    "attention only": AttentionOnly(),
    "lora": LoRA(rank=3, alpha=6.0),
    "lora of mlps": LoRA(rank=3, alpha=6.0, maps=("fc1", "fc2")),
}


def trained(tune: Tuning) -> set[str]:
    """What is trained of a net with a conv stem, without weights and numbers of blocks."""
    net = plain(patch_embed=ConvStem, block=partial(Block, layer_scale=0.1))
    tune.prepare(net)
    names = {name for name, parameter in net.named_parameters() if parameter.requires_grad}
    return {name.replace("backbone.encoder.blocks.", "").replace("0.", "").replace("1.", "") for name in names}


def test_each_way_trains_what_it_says() -> None:
    head = {"head.fc.weight", "head.fc.bias"}
    assert trained(LinearProbe()) == head
    assert trained(AttentionOnly()) == head | {f"mixer.{m}.{w}" for m in ("qkv", "proj") for w in ("weight", "bias")}
    assert trained(LoRA()) == head | {f"mixer.{m}.{w}" for m in ("qkv", "proj") for w in ("down", "up")}
    assert trained(LoRA(maps=["fc2"])) == head | {"mlp.fc2.down", "mlp.fc2.up"}
    net = plain()
    Full().prepare(net)
    assert all(parameter.requires_grad for parameter in net.parameters())
    cnn = CNN(32, 3, 5, width=0.25)
    LinearProbe().prepare(cnn)
    assert {n for n, p in cnn.named_parameters() if p.requires_grad} == {"net.fc.weight", "net.fc.bias"}


def test_frozen_parts_rest_in_eval_mode() -> None:
    net = plain(patch_embed=ConvStem, drop_path=0.2, block=partial(Block, layer_scale=0.1)).train()
    LoRA(rank=2).prepare(net)
    rest(net)
    assert not any(m.training for m in net.backbone.patch_embed.modules())  # running statistics
    assert not net.backbone.norm.training and not net.backbone.encoder.blocks[0].mlp.training
    assert all(m.training for m in net.modules() if isinstance(m, Residual | DropPath))
    assert net.head.training and net.backbone.encoder.blocks[1].mixer.qkv.training
    whole = plain(patch_embed=ConvStem, drop_path=0.2).train()
    LinearProbe().prepare(whole)
    rest(whole)
    assert not any(m.training for m in whole.backbone.modules()) and all(m.training for m in whole.head.modules())


@pytest.mark.parametrize("mechanism", [None, Routing, Performer, partial(Sparse, pattern=partial(Local, width=1))])
def test_what_trains_is_not_put_to_rest(mechanism: Callable | None) -> None:
    """A mechanism may have buffers alone, which no gradient reaches."""
    own = {} if mechanism is None else {"mechanism": mechanism}
    options = {"patch_embed": ConvStem, "block": partial(Block, mixer=partial(SelfAttention, num_heads=2, **own))}
    free = plain(**options).train()
    rest(free)
    assert all(m.training for m in free.modules())
    frozen = plain(**options).train()
    LinearProbe().prepare(frozen)
    rest(frozen)
    assert not any(m.training for m in frozen.backbone.modules())


def test_updates_decay_as_the_maps_they_are_of() -> None:
    net = plain()
    LoRA().prepare(net)
    spared = parameters_without_decay(net)
    assert not [name for name in spared if name.rpartition(".")[2] in ("down", "up")]


@pytest.mark.parametrize("name", TUNINGS)
def test_lora_starts_as_the_net_and_the_others_do_too(name: str) -> None:
    net, images = plain().eval(), torch.randn(2, 5, 12, 20)
    expected = net(images)
    TUNINGS[name].prepare(net)
    assert torch.equal(net(images), expected)


def test_what_is_not_there_cannot_be_trained() -> None:
    with pytest.raises(ValueError, match="expects self-attention, a CNN has none"):
        AttentionOnly().prepare(CNN(32, 3, 5, width=0.25))
    with pytest.raises(ValueError, match="no linear map gate or up in the blocks of the ViT to update"):
        LoRA(maps=("qkv", "gate", "up")).prepare(plain())
    with pytest.raises(ValueError, match="no linear map qkv or proj in the blocks of the CNN"):
        LoRA().prepare(CNN(32, 3, 5, width=0.25))


class Modes(L.Callback):
    """Whether frozen parts were in training mode at any step."""

    def __init__(self) -> None:
        self.stirred = False

    def on_train_batch_end(self, trainer, pl_module, *_) -> None:
        self.stirred |= pl_module.net.backbone.norm.training


@pytest.mark.parametrize("name", TUNINGS)
def test_frozen_weights_stay_bit_for_bit_and_the_rest_moves(name, tiny_net, digits, trainer, tmp_path) -> None:
    """Through validation, averaging and release: what comes out is a plain net."""
    import vit

    before = {key: value.clone() for key, value in tiny_net.state_dict().items()}
    modes, ema = Modes(), EMA(0.9)
    task = Classifier(tiny_net, tune=TUNINGS[name])
    fitted = trainer(callbacks=[ema, modes, Release("last")], val_check_interval=3)
    fitted.fit(task, digits)
    frozen = {key for key, parameter in tiny_net.named_parameters() if not parameter.requires_grad}
    after = tiny_net.state_dict()
    assert frozen and all(torch.equal(after[key], before[key]) for key in frozen)
    assert all(torch.equal(ema.weights[f"net.{key}"], before[key]) for key in frozen)
    moved = {key for key, parameter in tiny_net.named_parameters() if parameter.requires_grad}
    assert all(key not in before or not torch.equal(after[key], before[key]) for key in moved)
    assert not modes.stirred
    released = vit.load(tmp_path).net
    assert released.state_dict().keys() == before.keys()
    images = torch.rand(4, 1, 8, 8)
    for key, value in ema.weights.items():
        tiny_net.state_dict()[key.removeprefix("net.")].copy_(value)
    torch.testing.assert_close(released(images), tiny_net.eval()(images), rtol=0, atol=2e-6)


def test_a_run_with_low_rank_updates_resumes_and_is_tested_bit_for_bit(digits, trainer, tmp_path) -> None:
    from tests.tasks.test_classify import StopAt, data, net
    from vit.tasks.checkpoint import Checkpoints, load_checkpoint
    from vit.tasks.start import weights_of

    def fit(run, *more, resume=None):
        task = Classifier(net(), tune=LoRA(rank=2))
        fitted = trainer(tmp_path / run, callbacks=[EMA(0.9), Checkpoints(every_n_steps=1), *more])
        fitted.fit(task, data(), ckpt_path=resume)

    fit("whole")
    with pytest.raises(InterruptedError):
        fit("cut", StopAt(8))
    fit("cut", resume=tmp_path / "cut" / "checkpoints" / "last.ckpt")
    whole, resumed = (load_checkpoint(tmp_path / run / "checkpoints" / "last.ckpt") for run in ("whole", "cut"))
    torch.testing.assert_close(resumed["state_dict"], whole["state_dict"], rtol=0, atol=0)
    assert weights_of(whole).keys() == net().state_dict().keys()
