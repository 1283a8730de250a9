from functools import partial

import lightning as L
import numpy as np
import pytest
import torch
from torch.testing import assert_close

from tests.helpers import untyped
from tests.tasks.test_classify import StopAt
from vit.data.module import Images
from vit.layers import Block, SelfAttention
from vit.models import AIM, MAE, Backbone, SimMIM
from vit.spec import spec
from vit.tasks.checkpoint import Checkpoints, load_checkpoint
from vit.tasks.classify import Classifier
from vit.tasks.ema import EMA
from vit.tasks.optim import AdamW
from vit.tasks.pretrain import Pretrainer
from vit.tasks.release import Release

NETS = {"mae": MAE, "simmim": SimMIM, "aim": AIM}


def task(kind: type = MAE, **options) -> Pretrainer:
    block = partial(Block, mixer=partial(SelfAttention, num_heads=2))
    backbone = partial(Backbone, patch_size=2, embed_dim=16, depth=2, block=block, drop_path=0.3)
    torch.manual_seed(7)
    return Pretrainer(kind(8, 1, backbone), AdamW(warmup_epochs=0.5), **options)


def data(**options) -> Images:
    return Images("digits", batch_size=16, augment="light", seed=3, **options)


def checkpoints() -> Checkpoints:
    return Checkpoints(monitor="val/loss", mode="min", every_n_steps=1)


@pytest.mark.parametrize("kind", NETS.values(), ids=NETS)
def test_a_resumed_run_ends_bit_for_bit_as_an_uninterrupted_one(kind, trainer, tmp_path):
    def fit(name, *more, resume=None):
        torch.manual_seed(len(more))  # nothing may depend on the generator of the moment
        fitted = trainer(tmp_path / name, callbacks=[EMA(0.9), checkpoints(), *more], gradient_clip_val=1.0)
        fitted.fit(task(kind), data(), ckpt_path=resume)

    fit("whole")
    with pytest.raises(InterruptedError):
        fit("cut", StopAt(8))
    last = tmp_path / "cut" / "checkpoints" / "last.ckpt"
    assert load_checkpoint(last)["global_step"] == 8
    fit("cut", resume=last)
    whole, resumed = (load_checkpoint(tmp_path / run / "checkpoints" / "last.ckpt") for run in ("whole", "cut"))
    assert whole["global_step"] == resumed["global_step"] == 12
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "epoch"):
        assert_close(resumed[part], whole[part], rtol=0, atol=0)
    assert resumed["callbacks"]["Checkpoints"] == whole["callbacks"]["Checkpoints"]


class Watch(L.Callback):
    """What was hidden, in training and in validation, in order."""

    def __init__(self):
        self.seen = {True: [], False: []}

    def setup(self, trainer, pl_module, stage):
        pl_module.net.register_forward_hook(lambda net, args, found: self.seen[net.training].append(found.wanted))


@pytest.mark.parametrize("kind", NETS.values(), ids=NETS)
def test_training_hides_anew_and_validation_the_same_in_every_epoch_and_batch_size(kind, trainer):
    def watch(batch_size=16):
        watch = Watch()
        images = Images("digits", batch_size=batch_size, augment="none", seed=3)
        trainer(callbacks=[watch], enable_checkpointing=False).fit(task(kind), images)
        return watch.seen

    seen = watch()
    first, second = torch.cat(seen[False]).chunk(2)
    assert len(first) == 143 and torch.equal(first, second)
    assert torch.equal(torch.cat(watch(batch_size=40)[False])[:143], first)
    assert first.unique(dim=0).shape[0] > 5
    first, second = torch.stack(seen[True]).chunk(2)
    assert not torch.equal(first, second)


def test_validation_loss_is_the_mean_over_all_pictures(trainer):
    model, images = task(), data()
    (measured,) = trainer(callbacks=[], enable_checkpointing=False).validate(model, images, verbose=False)
    batches = list(images.val_dataloader())
    assert len({len(batch.labels) for batch in batches}) == 2
    with torch.no_grad():
        losses = torch.cat([model.eval().reconstruct(batch).loss for batch in batches])
    assert_close(measured["val/loss"], float(losses.mean()), rtol=1e-5, atol=0)


@pytest.mark.parametrize("kind", NETS.values(), ids=NETS)
def test_labels_are_ignored(kind, trainer):
    def weights(shift):
        images = data()
        images.setup("fit")
        train, _ = images.splits.fit
        object.__setattr__(train.source, "labels", (train.source.labels + shift) % 10)
        model = task(kind)
        options = {"max_epochs": 1, "limit_train_batches": 3, "enable_checkpointing": False}
        trainer(callbacks=[], **options).fit(model, images)
        return model.state_dict()

    assert_close(weights(1), weights(0), rtol=0, atol=0)


@pytest.mark.parametrize("kind", NETS.values(), ids=NETS)
def test_a_batch_is_learned(kind, trainer):
    class Losses(L.Callback):
        def __init__(self):
            self.losses = []

        def on_train_batch_end(self, trainer, pl_module, outputs, *_):
            self.losses.append(float(outputs["loss"]))

    losses = Losses()
    model = task(kind)
    model.optimizer = AdamW(lr=5e-3, warmup_epochs=0)
    options = {"max_epochs": 50, "overfit_batches": 1, "limit_val_batches": 0, "enable_checkpointing": False}
    trainer(callbacks=[losses], **options).fit(model, Images("digits", batch_size=16, augment="none", seed=3))
    assert np.mean(losses.losses[-10:]) < 0.75 * np.mean(losses.losses[:5])


def test_the_run_folder_holds_the_live_net(trainer, tmp_path):
    import vit

    model = task()
    trainer(callbacks=[Release("last"), checkpoints()], max_epochs=1).fit(model, data())
    loaded = vit.load(tmp_path, "cpu")
    assert_close(dict(loaded.net.state_dict()), dict(model.net.state_dict()), rtol=0, atol=0)
    assert spec(loaded.net) == spec(model.net)
    assert loaded.embed(np.zeros((8, 8), dtype=np.uint8)).shape == (1, 16)
    with pytest.raises(ValueError, match="RUN holds a pretrained MAE, which knows no classes: `vit fit -c finetune"):
        loaded.predict(np.zeros((8, 8), dtype=np.uint8))
    assert "pretrained without labels. It gives every picture a vector" in (tmp_path / "README.md").read_text()


def test_only_pretraining_nets_are_pretrained(tiny_net, trainer):
    with pytest.raises(ValueError, match=r"^pretraining trains vit.models.MAE, SimMIM or AIM, got a ViT"):
        trainer().fit(Pretrainer(tiny_net), data())


@pytest.mark.parametrize(("ratio", "hidden"), [(0.0, 0), (0.05, 0), (0.95, 4)])
def test_what_hides_nothing_or_all_is_not_trained(ratio, hidden, trainer):
    net = SimMIM(8, 1, partial(Backbone, patch_size=4, embed_dim=24, depth=1), mask_ratio=ratio)
    with pytest.raises(ValueError, match=f"hides {hidden} of 4 patches: expected some, not all"):
        trainer().fit(Pretrainer(net), data())


@pytest.mark.parametrize("kind", NETS.values(), ids=NETS)
def test_bf16_on_the_cpu_keeps_float32_weights(kind, trainer):
    model = task(kind)
    options = {"max_epochs": 1, "limit_train_batches": 2, "limit_val_batches": 1, "enable_checkpointing": False}
    trainer(precision="bf16-mixed", callbacks=[], **options).fit(model, data())
    assert all(parameter.dtype == torch.float32 and parameter.isfinite().all() for parameter in model.parameters())


def test_a_loss_that_is_not_finite_stops_the_run(trainer):
    class Spoil(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if batch_idx == 2:
                batch.images[0, 0, 0, 0] = float("nan")

    with pytest.raises(FloatingPointError, match="the loss of step 2 is not finite in 16 training samples"):
        trainer(callbacks=[Spoil()], enable_checkpointing=False).fit(task(), data())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of Dynamo, where the shape checks of tests break the graph
def test_compile_leaves_no_trace_in_checkpoints(trainer, tmp_path):
    compiled = task(compile=True)
    with untyped():
        trainer(max_epochs=1, limit_train_batches=2, limit_val_batches=1, callbacks=[checkpoints()]).fit(
            compiled, data()
        )
    saved = load_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    assert list(saved["state_dict"]) == list(task().state_dict())
    assert isinstance(compiled.net, MAE) and not isinstance(compiled, Classifier)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", NETS.values(), ids=NETS)
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_pretraining_runs_and_resumes_on_cuda(kind, precision, trainer, tmp_path):
    options = {"accelerator": "gpu", "devices": 1, "precision": precision, "callbacks": [checkpoints()]}
    model = task(kind)
    trainer(**options).fit(model, data())
    assert all(parameter.dtype == torch.float32 and parameter.isfinite().all() for parameter in model.parameters())
    last = tmp_path / "checkpoints" / "last.ckpt"
    trainer(**options, max_epochs=3).fit(task(kind), data(), ckpt_path=last)
    assert load_checkpoint(last)["global_step"] == 18
