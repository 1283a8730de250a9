from functools import partial

import lightning as L
import pytest
import torch
from jsonargparse import ArgumentParser
from torch.nn import functional as F
from torch.testing import assert_close

from tests.helpers import untyped
from vit.data.mixing import Mixing
from vit.data.module import Batch, Images
from vit.layers import Block, Head, ReinforcePool, SelfAttention
from vit.models import MAE, TokenLabels
from vit.models.backbone import Backbone
from vit.models.vit import ViT
from vit.spec import spec
from vit.tasks.checkpoint import Checkpoints, load_checkpoint
from vit.tasks.classify import Classifier
from vit.tasks.ema import EMA
from vit.tasks.losses import BinaryCrossEntropy, CrossEntropy
from vit.tasks.metrics import MetricsCSV
from vit.tasks.optim import AdamW


def test_a_hard_readouts_scores_learn_and_the_loss_told_is_the_answers_own(trainer, digits) -> None:
    block = partial(Block, mixer=partial(SelfAttention, num_heads=2))
    backbone = partial(Backbone, patch_size=4, embed_dim=16, depth=1, block=block)
    hard = ViT(8, 1, 10, backbone, partial(Head, pool=ReinforcePool))
    before = {name: value.clone() for name, value in hard.head.named_parameters()}
    fit = trainer(max_epochs=1, limit_train_batches=3)
    fit.fit(Classifier(hard, AdamW(warmup_epochs=0.1)), digits)
    for name, value in hard.head.named_parameters():
        assert not torch.equal(value, before[name]), name
    assert float(fit.callback_metrics["train/loss"]) == pytest.approx(2.6, abs=0.8)  # with the term about 5 more


def net(classes: int = 10, depth: int = 2) -> ViT:
    block = partial(Block, mixer=partial(SelfAttention, num_heads=2))
    backbone = partial(Backbone, patch_size=4, embed_dim=16, depth=depth, block=block, drop_path=0.3, patch_drop=0.2)
    torch.manual_seed(7)
    return ViT(8, 1, classes, backbone=backbone)


def data() -> Images:
    return Images("digits", batch_size=16, augment="light", seed=3)


def task(**options) -> Classifier:
    return Classifier(net(), AdamW(warmup_epochs=0.5), CrossEntropy(0.1), Mixing(0.2, 1.0), **options)


class StopAt(L.Callback):
    """Ends a run the way a fault does: with an exception, after the checkpoint of this step."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step:
            raise InterruptedError


class Worsens(L.Callback):
    """A score that falls, so that the best checkpoint is the first."""

    def on_validation_epoch_end(self, trainer, pl_module):
        pl_module.log("score", 1.0 / (1 + trainer.current_epoch))


@pytest.mark.parametrize("stop", [3, 6, 8])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_resumed_run_ends_bit_for_bit_as_an_uninterrupted_one(trainer, tmp_path, stop, accumulate):
    def fit(name, *more, resume=None):
        torch.manual_seed(len(more))  # nothing may depend on the generator of the moment
        fitted = trainer(
            tmp_path / name,
            callbacks=[EMA(0.9), Checkpoints(every_n_steps=1), *more],
            logger=MetricsCSV(str(tmp_path / name)),
            log_every_n_steps=1,
            accumulate_grad_batches=accumulate,
            max_epochs=2 * accumulate,
            gradient_clip_val=1.0,
        )
        fitted.fit(task(), data(), ckpt_path=resume)

    fit("whole")
    with pytest.raises(InterruptedError):
        fit("cut", StopAt(stop))
    last = tmp_path / "cut" / "checkpoints" / "last.ckpt"
    assert load_checkpoint(last)["global_step"] == stop
    fit("cut", resume=last)
    whole, resumed = (load_checkpoint(tmp_path / run / "checkpoints" / "last.ckpt") for run in ("whole", "cut"))
    assert whole["global_step"] == resumed["global_step"] == 12
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "epoch"):
        assert_close(resumed[part], whole[part], rtol=0, atol=0)
    assert_close(resumed["callbacks"]["EMA"], whole["callbacks"]["EMA"], rtol=0, atol=0)
    assert resumed["callbacks"]["Checkpoints"] == whole["callbacks"]["Checkpoints"]
    if stop == 6:  # an epoch's end; elsewhere the mean training loss of the epoch starts anew
        assert (tmp_path / "cut" / "metrics.csv").read_text() == (tmp_path / "whole" / "metrics.csv").read_text()


def test_the_best_checkpoint_resumes_exactly_too(trainer, tmp_path):
    def callbacks():
        return [Worsens(), EMA(0.9), Checkpoints(monitor="score")]

    trainer(tmp_path / "whole", callbacks=callbacks()).fit(task(), data())
    best = tmp_path / "whole" / "checkpoints" / "best.ckpt"
    assert load_checkpoint(best)["global_step"] == 6
    trainer(tmp_path / "again", callbacks=callbacks()).fit(task(), data(), ckpt_path=best)
    whole, again = (load_checkpoint(tmp_path / run / "checkpoints" / "last.ckpt") for run in ("whole", "again"))
    for part in ("state_dict", "optimizer_states", "global_step", "epoch"):
        assert_close(again[part], whole[part], rtol=0, atol=0)
    assert_close(again["callbacks"]["EMA"], whole["callbacks"]["EMA"], rtol=0, atol=0)


def test_model_randomness_depends_on_seed_step_and_micro_batch_only(trainer, tmp_path):
    class Draws(L.Callback):
        def __init__(self):
            self.seeds = []

        def on_train_batch_end(self, *_):
            self.seeds.append(torch.initial_seed())

    def seeds(noise, seed):
        torch.manual_seed(noise)
        draws, images = Draws(), Images("digits", batch_size=16, seed=seed)
        options = {"max_epochs": 1, "limit_train_batches": 3, "limit_val_batches": 0, "accumulate_grad_batches": 2}
        trainer(callbacks=[draws], enable_checkpointing=False, **options).fit(task(), images)
        return draws.seeds

    first = seeds(1, 3)
    assert len(set(first)) == 3
    assert seeds(2, 3) == first
    assert not set(seeds(1, 4)) & set(first)


def test_metrics_weight_a_ragged_batch_by_its_images(trainer):
    images = data()
    model = Classifier(net())
    fitted = trainer(callbacks=[], enable_checkpointing=False)
    (measured,) = fitted.validate(model, images, verbose=False)
    batches = list(images.val_dataloader())
    assert len({len(batch.labels) for batch in batches}) == 2
    pictures, labels, _ = (torch.cat(parts) for parts in zip(*batches, strict=True))
    with torch.inference_mode():
        logits = model.net.eval()(pictures)
    assert_close(measured["val/acc"], float((logits.argmax(-1) == labels).float().mean()), rtol=1e-6, atol=0)
    assert_close(measured["val/loss"], float(F.cross_entropy(logits, labels)), rtol=1e-5, atol=0)


def test_learning_rate_reaches_the_floor_with_the_last_step(trainer):
    class Rates(L.Callback):
        def __init__(self):
            self.rates = []

        def on_train_batch_end(self, trainer, *_):
            self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    rates = Rates()
    model = Classifier(net(), AdamW(lr=0.1, warmup_epochs=1, min_lr_ratio=0.5))
    trainer(callbacks=[rates], enable_checkpointing=False, max_epochs=3, accumulate_grad_batches=4).fit(model, data())
    # 6 batches by 4 make 2 steps an epoch: after the first the rate is that of step 1, the peak; then a cosine to 0.05
    stepped = [rates.rates[i] for i in (3, 5, 9, 11, 15, 17)]
    assert_close(
        stepped, [0.1, 0.1, 0.05 + 0.05 * (0.5 + 0.25 * 2**0.5), 0.075, 0.05 + 0.05 * (0.5 - 0.25 * 2**0.5), 0.05]
    )


@pytest.mark.parametrize(
    "criterion", [CrossEntropy(0.1, "balanced"), BinaryCrossEntropy(), BinaryCrossEntropy("balanced")]
)
def test_every_criterion_learns_a_batch_with_mixing_on(criterion, trainer):
    images = Images("digits", batch_size=8, augment="none", seed=3)
    model = Classifier(net(), AdamW(lr=1e-2, warmup_epochs=0, min_lr_ratio=1.0), criterion, Mixing(0.2, 0.5, 0.5))
    options = {"max_epochs": 60, "limit_train_batches": 1, "limit_val_batches": 0, "enable_checkpointing": False}
    images.setup("fit")
    first = next(iter(images.train_dataloader()))
    images.train_dataloader = lambda: Only(first)  # type: ignore[method-assign]
    trainer(callbacks=[], **options).fit(model, images)
    assert (model.net.eval()(first.images).argmax(-1) == first.labels).float().mean() >= 0.9


class Only:
    """A loader of one batch."""

    def __init__(self, batch: Batch):
        self.batch = batch

    def __len__(self):
        return 1

    def __iter__(self):
        yield self.batch


def test_class_weights_come_from_training_counts_and_leave_no_trace_in_the_checkpoint(trainer):
    model, images = Classifier(net(), criterion=CrossEntropy(class_weights="balanced")), data()
    trainer(callbacks=[], enable_checkpointing=False, max_epochs=1, limit_train_batches=1).fit(model, images)
    counts = images.class_counts
    assert_close(model.class_weights, counts.sum() / (10 * counts))
    assert all(name.startswith("net.") for name in model.state_dict())


def test_predict_gives_index_and_probabilities(trainer):
    images, model = data(), Classifier(net())
    fitted = trainer(callbacks=[], enable_checkpointing=False)
    images.setup("test")
    output = fitted.predict(model, images.test_dataloader())
    index, probabilities = (torch.cat(parts) for parts in zip(*output, strict=True))
    assert len(set(index.tolist())) == len(index) == 359
    assert_close(probabilities.sum(-1), torch.ones(len(index)))


def test_test_uses_averaged_weights_of_the_checkpoint(trainer, tmp_path):
    model, ema = task(), EMA(0.9)
    first = trainer(callbacks=[ema, Checkpoints()])
    first.fit(model, data())
    (expected,) = first.test(model, data(), verbose=False)
    again = trainer(callbacks=[EMA(0.9), Checkpoints()])
    (measured,) = again.test(task(), data(), ckpt_path=tmp_path / "checkpoints" / "last.ckpt", verbose=False)
    assert measured == expected
    (raw,) = trainer(callbacks=[], enable_checkpointing=False).test(model, data(), verbose=False)
    assert raw["test/loss"] != expected["test/loss"]


def test_a_checkpoint_of_another_net_or_other_classes_is_refused_in_one_line(trainer, tmp_path):
    trainer(max_epochs=1, limit_train_batches=1).fit(task(), data())
    last = tmp_path / "checkpoints" / "last.ckpt"
    deeper = Classifier(net(depth=3))
    with pytest.raises(
        ValueError, match=r"does not fit this model: missing: net\.backbone\.encoder\.blocks\.2\."
    ) as caught:
        trainer().test(deeper, data(), ckpt_path=last, verbose=False)
    assert "\n" not in str(caught.value)
    other = load_checkpoint(last)
    other["vit"]["classes"][0] = "zero"
    torch.save(other, last)
    with pytest.raises(ValueError, match=r"was trained on classes \['zero', '1'.*the data has \['0', '1'"):
        trainer().fit(task(), data(), ckpt_path=last)


@pytest.mark.parametrize("make", [MAE, partial(TokenLabels, num_classes=3)])
def test_a_net_that_gives_no_logits_of_a_picture_is_refused(make):
    net = make(8, 1, backbone=partial(Backbone, patch_size=4, embed_dim=12, depth=1))
    with pytest.raises(ValueError, match=f"gives a logit for each class of a picture, got a {type(net).__name__}$"):
        Classifier(net).setup("fit")


def test_the_command_line_sets_recipe_and_criterion_by_short_options():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Classifier, "model")
    sizes = ["--model.net.img_size=8", "--model.net.in_chans=1", "--model.net.num_classes=10"]
    given = [
        "--model.optimizer.lr=0.2",
        "--model.criterion=BinaryCrossEntropy",
        "--model.criterion.class_weights=balanced",
    ]
    config = parser.parse_args(["--model.net=vit.models.vit.ViT", *sizes, *given])
    model = parser.instantiate(config).model
    assert model.optimizer == AdamW(lr=0.2)
    assert model.criterion == BinaryCrossEntropy(class_weights="balanced")
    assert model.net.num_classes == 10


def test_early_stopping_watches_our_names(trainer):
    stop = L.pytorch.callbacks.EarlyStopping(monitor="val/acc", mode="max", patience=1, min_delta=1.0)
    fitted = trainer(callbacks=[stop], enable_checkpointing=False, max_epochs=9, limit_train_batches=1)
    fitted.fit(task(), data())
    assert fitted.current_epoch == 2


def test_bf16_on_the_cpu_keeps_float32_weights(trainer):
    model = task()
    trainer(precision="bf16-mixed", max_epochs=1, callbacks=[EMA(0.9)], enable_checkpointing=False).fit(model, data())
    assert all(parameter.dtype == torch.float32 and parameter.isfinite().all() for parameter in model.parameters())


def test_compile_keeps_names_and_spec():
    compiled, plain = task(compile=True), task()
    assert list(compiled.state_dict()) == list(plain.state_dict())
    assert spec(compiled.net) == spec(plain.net)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of Dynamo, where the shape checks of tests break the graph
def test_compile_leaves_no_trace_in_checkpoints(trainer, tmp_path):
    compiled = task(compile=True)
    with untyped():
        trainer(max_epochs=1, limit_train_batches=2, limit_val_batches=1).fit(compiled, data())
    saved = load_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    assert list(saved["state_dict"]) == list(task().state_dict())
    plain = task()
    trainer().test(plain, data(), ckpt_path=tmp_path / "checkpoints" / "last.ckpt", verbose=False)
    assert_close(dict(plain.state_dict()), saved["state_dict"], rtol=0, atol=0)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize(("algorithm", "norm"), [("norm", lambda g: g.norm()), ("value", lambda g: g.abs().max())])
def test_gradients_are_clipped_beside_the_fused_optimiser_in_every_precision(trainer, precision, algorithm, norm):
    seen = []

    class Look(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            seen.append(
                norm(torch.cat([p.grad.flatten() for p in pl_module.parameters() if p.grad is not None])).item()
            )

    model, clip = task(), {"gradient_clip_val": 1e-3, "gradient_clip_algorithm": algorithm}
    fitted = trainer(
        precision=precision, max_epochs=1, limit_train_batches=3, limit_val_batches=1, callbacks=[Look()], **clip
    )
    fitted.fit(model, data())
    assert fitted.optimizers[0].defaults["fused"] is True
    assert len(seen) == 3 and max(seen) <= 1.001e-3 and min(seen) > 0.9e-3


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:GPU available but not used")  # tested on the CPU, on purpose
@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")  # fp16 leaves its first step out
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_mixed_precision_and_fused_adamw_train_and_resume_on_cuda(trainer, tmp_path, precision):
    model = task()
    options = {"accelerator": "gpu", "devices": 1, "precision": precision, "gradient_clip_val": 1.0}
    fitted = trainer(**options)
    fitted.fit(model, data())
    assert fitted.optimizers[0].defaults["fused"] is (precision != "16-mixed")
    assert all(parameter.dtype == torch.float32 and parameter.isfinite().all() for parameter in model.parameters())
    last = tmp_path / "checkpoints" / "last.ckpt"
    resumed = task()
    trainer(**options, max_epochs=3).fit(resumed, data(), ckpt_path=last)
    assert load_checkpoint(last)["global_step"] == 18
    (on_cpu,) = trainer().test(task(), data(), ckpt_path=last, verbose=False)
    assert 0 <= on_cpu["test/acc"] <= 1
