"""Labels of patches: the rule, the scores, and a training that learns them."""

import re
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from vit import evaluate, explain, run
from vit.commandline.trained import open_trained
from vit.data.module import Images
from vit.layers import Block, ConvStem, SelfAttention, SinCos2d
from vit.models import Backbone, TokenLabels
from vit.tasks.checkpoint import Checkpoints, load_checkpoint
from vit.tasks.label_tokens import LabelTokens, patch_labels, token_scores
from vit.tasks.losses import CrossEntropy
from vit.tasks.optim import AdamW

KINDS = 5


def net(depth: int = 2, classes: int = 4) -> TokenLabels:
    block = partial(Block, mixer=partial(SelfAttention, num_heads=2))
    options = {"embed_dim": 32, "depth": depth, "block": block, "patch_embed": ConvStem, "pos_embed": SinCos2d}
    return TokenLabels(32, 3, classes, partial(Backbone, patch_size=4, **options))


def scenes(**options: object) -> Images:
    return Images(
        "scenes_texture", **{"batch_size": 64, "train_size": 640, "augment": "none", "masks": True, **options}
    )


def test_a_patch_has_the_label_of_most_of_its_pixels() -> None:
    masks = torch.zeros(2, 4, 6, dtype=torch.long)
    masks[0, :2, :3] = 3  # the whole first patch of 2 x 3
    masks[0, 2:, 0] = 1
    masks[0, 3, 1:3] = 1  # four of six
    masks[1, 0, :3] = 2  # half, and half background
    masks[1, 0, 3:] = 2
    masks[1, 1, 3] = 4
    masks[1, 1, 4:] = 2
    assert patch_labels(masks, KINDS, (2, 3)).tolist() == [[3, 0, 1, 0], [0, 2, 0, 0]]


def test_scores_by_hand() -> None:
    counts = torch.tensor([[6.0, 1, 1], [2, 2, 0], [0, 0, 0]])  # (true, told); the last label does not occur
    scores = token_scores(counts)
    assert scores == pytest.approx({"acc": 8 / 12, "balanced_acc": (6 / 8 + 2 / 4) / 2, "majority": 8 / 12})


def test_logits_are_one_linear_map_of_each_patch() -> None:
    labeller = net().eval()
    images = torch.randn(2, 3, 32, 24)
    logits = labeller(images)
    assert logits.shape == (2, 8 * 6, KINDS)
    tokens, _ = labeller.backbone(images)
    assert_close(logits[1, 7], labeller.fc.weight @ tokens[1, 1 + 7] + labeller.fc.bias)


def test_dropped_patches_would_have_no_label() -> None:
    with pytest.raises(ValueError, match=r"^every patch gets a label: expected patch_drop 0, got 0\.2$"):
        TokenLabels(32, 3, 4, partial(Backbone, patch_drop=0.2))


@pytest.mark.slow
def test_a_short_training_tells_patches_far_better_than_the_most_frequent_label(trainer) -> None:
    epochs = {"max_epochs": 26, "check_val_every_n_epoch": 26, "limit_train_batches": 1.0, "limit_val_batches": 6}
    fit = trainer(callbacks=[], gradient_clip_val=1.0, **epochs)
    fit.fit(LabelTokens(net(), AdamW(lr=4e-3, warmup_epochs=2)), scenes())
    found = {name: float(value) for name, value in fit.callback_metrics.items()}
    assert 0.7 < found["val/majority"] < 0.9
    assert found["val/acc"] > found["val/majority"] + 0.05
    assert found["val/balanced_acc"] > 0.5  # 0.2 by any answer that is always the same


def test_validation_counts_every_patch_once(trainer) -> None:
    """Against the whole split at once, though the last batch is ragged."""
    data, task = scenes(batch_size=37), LabelTokens(net(depth=1))
    run = trainer(limit_val_batches=3, callbacks=[])
    (logged,) = run.validate(task, data, verbose=False)
    batches = [batch for batch, _ in zip(data.val_dataloader(), range(3), strict=False)]
    images, masks = torch.cat([batch.images for batch in batches]), torch.cat([batch.masks for batch in batches])
    labels, told = patch_labels(masks, KINDS, (4, 4)), task.net.eval()(images).argmax(dim=-1)
    assert logged["val/acc"] == pytest.approx(float((labels == told).double().mean()))
    recalls = [(told[labels == kind] == kind).double().mean() for kind in range(KINDS)]
    assert logged["val/balanced_acc"] == pytest.approx(float(torch.stack(recalls).mean()))
    assert logged["val/majority"] == pytest.approx(float((labels == 0).double().mean()))
    assert run.test(task, data, verbose=False)[0].keys() == {f"test/{name[4:]}" for name in logged}


def test_a_checkpoint_knows_the_net_and_its_classes(trainer, tmp_path) -> None:
    run = trainer(max_epochs=1, limit_train_batches=1, limit_val_batches=1, callbacks=[Checkpoints()])
    run.fit(LabelTokens(net(depth=1)), scenes())
    known = load_checkpoint(tmp_path / "checkpoints" / "last.ckpt")["vit"]
    assert known["spec"]["class"] == "vit.models.token_labels.TokenLabels"
    assert known["classes"] == ["stripes", "checks", "dots", "zigzag"]


@pytest.mark.parametrize(
    ("labeller", "data", "message"),
    [
        (torch.nn.Identity(), scenes(), "labelling patches trains a vit.models.TokenLabels, got a Identity"),
        (net(), scenes(masks=False), "labelling patches needs masks: --data.masks true, of scenes_shape or scenes_t"),
    ],
)
def test_refuses_what_has_no_labels_of_patches(trainer, labeller, data, message) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        trainer(callbacks=[]).validate(LabelTokens(labeller), data, verbose=False)


def test_refuses_class_weights() -> None:
    with pytest.raises(ValueError, match=r"^patches have no class weights: expected none, got balanced$"):
        LabelTokens(net(), criterion=CrossEntropy(class_weights="balanced"))


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of `vit fit -c quickstart -c data/scenes_shape -c task/label_tokens`, made short."""
    folder = tmp_path_factory.mktemp("runs") / "labelled"
    stack = ["-c", "quickstart", "-c", "data/scenes_shape", "-c", "task/label_tokens", "--run", str(folder)]
    short = ["--data.train_size=64", "--trainer.max_epochs=1", "--trainer.limit_val_batches=1", *NARROW]
    run.fit([*stack, *short])
    return folder


NARROW = ["--model.net.backbone.embed_dim=16", "--model.net.backbone.depth=1"]


def test_a_run_is_trained_resumed_and_validated_by_the_commands(labelled: Path, tmp_path: Path) -> None:
    assert isinstance(open_trained(str(labelled)).net, TokenLabels)
    folder = shutil.copytree(labelled, tmp_path / "again")
    done = run.fit(["--resume", str(folder), "--trainer.max_epochs=2"])
    assert done.metrics["val/majority"] > 0.5 and "best/val/acc" in done.metrics
    found = evaluate.validate(["--load", str(folder), "--trainer.limit_val_batches=1"])
    assert found.keys() == {f"val/{name}" for name in ("loss", "acc", "balanced_acc", "majority")}


def test_commands_of_one_class_per_picture_say_so(labelled: Path, tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    Image.new("RGB", (32, 32)).save(picture)
    message = "the model labels patches, not pictures: expected a classifier; `vit validate "
    commands = (
        lambda: evaluate.test(["--load", str(labelled)]),
        lambda: evaluate.predict(["--load", str(labelled), "--data.pictures", str(picture)]),
        lambda: explain.main([str(labelled), str(picture)]),
    )
    for command in commands:
        with pytest.raises(ValueError, match=f"^{message}"):
            command()
