import lightning as L
import pytest
import torch
from torch.testing import assert_close

from vit.tasks.classify import Classifier
from vit.tasks.ema import EMA


class Watch(L.Callback):
    """Records the weights after each optimiser step, and what validation saw. Placed after `EMA`."""

    def __init__(self):
        self.steps, self.validated, self.step = [], [], 0

    def on_train_start(self, trainer, pl_module):
        self.start = {name: tensor.clone() for name, tensor in pl_module.state_dict().items()}

    def on_train_batch_end(self, trainer, pl_module, *_):
        if trainer.global_step != self.step:
            self.step = trainer.global_step
            self.steps.append({name: tensor.clone() for name, tensor in pl_module.state_dict().items()})

    def on_validation_epoch_start(self, trainer, pl_module):
        self.validated.append({name: tensor.clone() for name, tensor in pl_module.state_dict().items()})


@pytest.mark.parametrize("accumulate", [1, 4])
def test_average_equals_a_loop_by_hand(tiny_net, digits, trainer, accumulate):
    ema, watch = EMA(decay=0.3), Watch()
    task = Classifier(tiny_net)
    trainer(callbacks=[ema, watch], accumulate_grad_batches=accumulate, enable_checkpointing=False).fit(task, digits)
    assert len(watch.steps) == {1: 12, 4: 4}[accumulate]
    expected = watch.start
    for t, weights in enumerate(watch.steps, start=1):
        decay = min(0.3, (1 + t) / (10 + t))
        expected = {name: decay * expected[name] + (1 - decay) * weights[name] for name in expected}
    assert_close(ema.weights, expected)
    assert_close(watch.validated[-1], expected)
    assert_close(dict(task.state_dict()), watch.steps[-1], rtol=0, atol=0)


def test_running_statistics_are_averaged_and_counters_copied():
    ema, module = EMA(0.5), Holder(torch.nn.BatchNorm1d(3))
    ema.on_train_start(Steps(0), module)
    module.norm.running_mean += 1
    module.norm.num_batches_tracked += 7
    ema.on_train_batch_end(Steps(1), module, None, None, 0)
    assert_close(ema.weights["norm.running_mean"], torch.full((3,), 1 - 2 / 11))
    assert ema.weights["norm.num_batches_tracked"] == 7


def test_half_precision_weights_are_averaged_in_float32_and_swapped_back_exactly():
    module, ema = Holder(torch.nn.BatchNorm1d(3).bfloat16()), EMA(0.9)
    ema.on_train_start(Steps(0), module)
    assert ema.weights["norm.weight"].dtype == torch.float32
    with torch.no_grad():
        module.norm.weight += 0.5
    ema.on_train_batch_end(Steps(1), module, None, None, 0)
    raw = module.norm.weight.clone()
    ema.on_validation_start(Steps(1), module)
    assert not torch.equal(module.norm.weight, raw)
    checkpoint = {"state_dict": module.state_dict()}
    ema.on_save_checkpoint(Steps(1), module, checkpoint)
    assert torch.equal(checkpoint["state_dict"]["norm.weight"], raw)
    ema.on_exception(Steps(1), module, RuntimeError())
    assert torch.equal(module.norm.weight, raw)


def test_an_exception_in_validation_leaves_raw_weights(tiny_net, digits, trainer):
    class Breaks(L.Callback):
        def on_validation_batch_end(self, *_):
            raise RuntimeError("on purpose")

    watch, task = Watch(), Classifier(tiny_net)
    with pytest.raises(RuntimeError, match="on purpose"):
        trainer(callbacks=[EMA(0.9), watch, Breaks()], enable_checkpointing=False).fit(task, digits)
    assert_close(dict(task.state_dict()), watch.steps[-1], rtol=0, atol=0)


def test_decay_outside_its_range_is_refused():
    with pytest.raises(ValueError, match=r"EMA decay must lie in \[0, 1\), got 1"):
        EMA(1.0)


class Holder(L.LightningModule):
    def __init__(self, norm):
        super().__init__()
        self.norm = norm


class Steps:
    """All that the callback asks of a trainer."""

    def __init__(self, global_step):
        self.global_step = global_step
