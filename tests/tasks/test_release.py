import json

import lightning as L
import pytest
import torch
from torch.testing import assert_close

import vit
from vit.analysis.statistics import wilson
from vit.tasks.checkpoint import Checkpoints, load_checkpoint
from vit.tasks.classify import Classifier
from vit.tasks.ema import EMA
from vit.tasks.release import Release

CONFIG = """
data: {root: /home/somebody/photos, seed: 3, subset: ../somebody/subsets/seed-0.json}
model: {init_args: {init_from: runs/somebody/mae, teacher: somebody/large/, monitor: val/acc}}
other: {init_args: {init_from: timm:timm/vit_tiny, save_dir: .}}
list: [/a/b, 1]
"""


class Worsens(L.Callback):
    """A score that falls, so that the best checkpoint is not the last."""

    def on_validation_epoch_end(self, trainer, pl_module):
        pl_module.log("score", 1.0 / (1 + trainer.current_epoch))


def test_a_run_folder_is_the_bundle_of_its_best_averaged_weights(tiny_net, digits, trainer, tmp_path):
    (tmp_path / "config.yaml").write_text(CONFIG)
    callbacks = [Worsens(), EMA(0.5), Release("best", licence="CC0-1.0"), Checkpoints(monitor="score")]
    fitted, task = trainer(callbacks=callbacks), Classifier(tiny_net)
    fitted.fit(task, digits)
    model = vit.load(tmp_path, device="cpu")
    best = load_checkpoint(tmp_path / "checkpoints" / "best.ckpt")["callbacks"]["EMA"]["weights"]
    assert_close({f"net.{name}": tensor for name, tensor in model.net.state_dict().items()}, best, rtol=0, atol=0)
    assert model.meta["metrics"]["best"] == {"score": 1.0, "step": 6, "epoch": 0}
    assert model.meta["config"] == {
        "data": {"root": None, "dataset": "folder", "seed": 3, "subset": "seed-0.json"},
        "model": {"init_args": {"init_from": "mae", "teacher": "large", "monitor": "val/acc"}},
        "other": {"init_args": {"init_from": "timm:timm/vit_tiny", "save_dir": "."}},
        "list": ["b", 1],
    }
    assert model.meta["data"] == {"name": "digits", "manifest_hash": digits.manifest_hash, "num_train": 1295}
    assert model.meta["licence"] == "CC0-1.0"
    assert not [place for place in (str(tmp_path), "somebody") if place in (tmp_path / "model.json").read_text()]

    fitted.test(task, digits, verbose=False)
    assert "test" not in record(tmp_path)["metrics"], "those were the last weights, not the bundle's"
    (measured,) = fitted.test(task, digits, ckpt_path="best", verbose=False)
    test = record(tmp_path)["metrics"]["test"]
    assert (test["acc"], test["n"]) == (measured["test/acc"], 359)
    assert test["acc_95"][0] < test["acc"] < test["acc_95"][1]


def test_a_test_of_the_same_weights_stays_when_training_goes_on(tiny_net, digits, trainer, tmp_path):
    task = Classifier(tiny_net)
    callbacks = [Worsens(), Release("best"), Checkpoints(monitor="score")]
    fitted = trainer(callbacks=callbacks, max_epochs=1)
    fitted.fit(task, digits)
    fitted.test(task, digits, ckpt_path="best", verbose=False)
    measured = record(tmp_path)["metrics"]
    last = tmp_path / "checkpoints" / "last.ckpt"
    for policy, epochs in (("best", 2), ("last", 3)):
        callbacks = [Worsens(), Release(policy), Checkpoints(monitor="score")]
        trainer(callbacks=callbacks, max_epochs=epochs).fit(task, digits, ckpt_path=last, weights_only=True)
        found = record(tmp_path)["metrics"]
        assert found == measured if policy == "best" else "test" not in found


@pytest.mark.parametrize("damaged", ["model.json", "model.safetensors"])
def test_a_damaged_bundle_is_written_anew(tiny_net, digits, trainer, tmp_path, damaged):
    options = {"max_epochs": 1, "limit_train_batches": 1, "limit_val_batches": 1, "callbacks": [Release("last")]}
    trainer(**options, enable_checkpointing=False).fit(Classifier(tiny_net), digits)
    (tmp_path / damaged).write_text("{}")
    trainer(**options, enable_checkpointing=False).fit(Classifier(tiny_net), digits)
    assert vit.load(tmp_path, "cpu").classes == digits.classes


def test_a_part_of_the_test_is_not_recorded(tiny_net, digits, trainer, tmp_path):
    fitted, task = (
        trainer(callbacks=[Release(), Checkpoints()], max_epochs=1, limit_test_batches=2),
        Classifier(tiny_net),
    )
    fitted.fit(task, digits)
    fitted.test(task, digits, verbose=False)
    assert "test" not in record(tmp_path)["metrics"]
    fitted.limit_test_batches = 1.0
    fitted.test(task, digits, verbose=False)
    assert record(tmp_path)["metrics"]["test"]["n"] == 359


def record(folder):
    return json.loads((folder / "model.json").read_text())


def test_without_validation_the_newest_weights_are_released(tiny_net, digits, trainer, tmp_path):
    callbacks = [Release(), Checkpoints()]
    task = Classifier(tiny_net)
    trainer(callbacks=callbacks, limit_val_batches=0, max_epochs=1).fit(task, digits)
    assert_close(vit.load(tmp_path, "cpu").net.state_dict(), task.net.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("weights", ["best", "last"])
def test_validation_accuracy_has_its_interval(tiny_net, digits, trainer, tmp_path, weights):
    trainer(callbacks=[Release(weights=weights), Checkpoints()]).fit(Classifier(tiny_net), digits)
    measured = record(tmp_path)["metrics"][weights]
    right = measured["val/acc"] * measured["val/n"]
    assert measured["val/n"] == 143 and right == pytest.approx(round(right), abs=1e-4)
    assert measured["val/acc_95"] == pytest.approx(wilson(round(right), 143))


@pytest.mark.parametrize("weights", ["best", "last"])
def test_a_part_of_the_validation_split_has_none(tiny_net, digits, trainer, tmp_path, weights):
    callbacks = [Release(weights=weights), Checkpoints()]
    trainer(callbacks=callbacks, max_epochs=1, limit_val_batches=2).fit(Classifier(tiny_net), digits)
    assert "val/acc" in record(tmp_path)["metrics"][weights]
    assert not {"val/acc_95", "val/n"} & record(tmp_path)["metrics"][weights].keys()


def test_a_resumed_run_knows_how_many_pictures_its_best_score_is_of():
    checkpoints, older = Checkpoints(), {"best_score": 0.5, "best_step": 3}
    checkpoints.load_state_dict({**older, "best_of": 143})
    assert checkpoints.state_dict() == {**older, "best_of": 143}
    checkpoints.load_state_dict(older)
    assert checkpoints.best_of is None


def test_a_bundle_predicts_what_the_task_does(tiny_net, digits, trainer, tmp_path):
    task = Classifier(tiny_net)
    trainer(callbacks=[Release(), Checkpoints()], max_epochs=1).fit(task, digits)
    digits.setup("test")
    batch = next(iter(digits.test_dataloader()))
    with torch.inference_mode():
        expected = task.net.eval()(batch.images)
        assert_close(vit.load(tmp_path, "cpu").net(batch.images), expected, rtol=0, atol=0)


def test_last_weights_are_those_of_the_end(tmp_path, tiny_net, digits, trainer):
    average = EMA(0.5)
    fitted = trainer(callbacks=[average, Worsens(), Checkpoints(monitor="score"), Release(weights="last")])
    fitted.fit(Classifier(tiny_net), digits)
    model = vit.load(tmp_path, device="cpu")
    weights = {f"net.{name}": tensor for name, tensor in model.net.state_dict().items()}
    assert_close(weights, average.weights, rtol=0, atol=0)
    assert model.meta["metrics"]["last"]["step"] == fitted.global_step
