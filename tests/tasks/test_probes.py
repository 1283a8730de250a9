import csv

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from tests.tasks.test_pretrain import data, task
from vit.analysis.probing import effective_rank, linear_probe, nearest_neighbours
from vit.models import AIM, MAE, SimMIM, patchify, unpatchify
from vit.tasks import reconstructions
from vit.tasks.classify import Classifier
from vit.tasks.ema import EMA
from vit.tasks.metrics import MetricsCSV
from vit.tasks.pictures import Curves
from vit.tasks.probes import Probes
from vit.tasks.reconstructions import Reconstructions

NAMES = {"probe/knn", "probe/linear", "features/rank", "features/spread", "features/norm"}


def rows(folder):
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("kind", [MAE, SimMIM, AIM])
def test_watching_does_not_change_training(kind, trainer, tmp_path):
    def weights(*callbacks):
        model = task(kind)
        fitted = trainer(tmp_path / str(len(callbacks)), callbacks=[EMA(0.9), *callbacks], enable_checkpointing=False)
        fitted.fit(model, data())
        return {**model.state_dict(), **{f"EMA {n}": w for n, w in fitted.callbacks[0].weights.items()}}

    watched = weights(Probes(1, gallery=50, queries=40), Reconstructions(1, count=3))
    assert_close(watched, weights(), rtol=0, atol=0)
    picture = np.asarray(Image.open(tmp_path / "2" / "reconstructions.png").convert("L"))
    assert min(picture.shape) > 200 and picture.std() > 5


def test_the_untrained_net_every_second_epoch_and_the_last_are_measured(trainer, tmp_path):
    fitted = trainer(
        callbacks=[Probes(2, gallery=200, queries=100), Curves()],
        logger=MetricsCSV(str(tmp_path)),
        max_epochs=5,
        limit_train_batches=2,
        log_every_n_steps=1,
        enable_checkpointing=False,
    )
    fitted.fit(task(), data())
    measured = [row for row in rows(tmp_path) if row["probe/knn"]]
    assert [int(row["step"]) for row in measured] == [0, 3, 7, 9]
    for row in measured:
        assert all(np.isfinite(float(row[name])) for name in NAMES)
        assert 0.1 < float(row["probe/knn"]) <= 1 and 0.1 < float(row["probe/linear"]) <= 1
        assert 1 < float(row["features/rank"]) <= 16
    assert fitted.callback_metrics.keys() >= NAMES
    assert (tmp_path / "curves.png").is_file()


def test_the_measures_are_of_the_whole_picture_in_evaluation(trainer, tmp_path):
    """The validation features' length, by hand."""
    model, images = task(), data()
    (measured,) = trainer(callbacks=[Probes()], enable_checkpointing=False).validate(model, images, verbose=False)
    pictures = torch.cat([batch.images for batch in images.val_dataloader()])
    with torch.no_grad():
        expected = model.net.eval().features(pictures).norm(dim=1).mean()
    assert measured["features/norm"] == pytest.approx(float(expected), rel=1e-5)
    assert measured["probe/linear"] > 0.5, "a tenth of it would be chance"


def test_the_untrained_nets_probes_by_hand(trainer, tmp_path):
    """Of the net in evaluation, though training has begun; on standardised features, from training to validation."""
    options = {"max_epochs": 1, "limit_train_batches": 2, "enable_checkpointing": False, "log_every_n_steps": 1}
    images, net = data(), task().net.eval()
    watch = [Probes(gallery=150, queries=100, neighbours=7)]
    trainer(callbacks=watch, logger=MetricsCSV(str(tmp_path)), **options).fit(task(), images)
    measured = next(row for row in rows(tmp_path) if row["probe/knn"])
    assert measured["step"] == "0"

    def features(split, count):
        pictures, labels, _ = (torch.cat(parts) for parts in zip(*images.excerpt(split, count), strict=True))
        with torch.no_grad():
            return net.features(pictures).double().numpy(), labels.numpy()

    (gallery, labels), (queries, truth) = features("train", 150), features("val", 100)
    assert (len(labels), len(truth)) == (150, 100)
    assert float(measured["features/rank"]) == pytest.approx(effective_rank(queries), rel=1e-5)
    known, asked = ((part - gallery.mean(axis=0)) / gallery.std(axis=0) for part in (gallery, queries))
    for name, answers in (
        ("probe/knn", nearest_neighbours(known, labels, asked, neighbours=7)),
        ("probe/linear", linear_probe(known, labels, asked)),
    ):
        assert float(measured[name]) == pytest.approx((answers == truth).mean()), name


def test_a_picture_stands_above_what_is_left_of_it_and_what_was_made_of_that(trainer, monkeypatch):
    """By hand: hidden patches are grey in the second row, and the net's own, in the units of the true, in the third."""
    drawn, model, images = [], task(), data()
    monkeypatch.setattr(reconstructions, "write_picture", lambda figure, path: drawn.append(figure))
    options = {"max_epochs": 1, "limit_train_batches": 2, "enable_checkpointing": False}
    trainer(callbacks=[Reconstructions(1, count=3)], **options).fit(model, images)
    (figure,) = drawn
    shown = torch.stack([torch.as_tensor(axes.images[0].get_array()) for axes in figure.axes])
    pictures, left, filled = shown[..., 0].reshape(3, 3, 8, 8)

    (batch,) = images.excerpt("val", 3)
    with torch.no_grad():
        found = model.eval().reconstruct(batch)
    (mean,), (std,) = images.preprocessing.mean, images.preprocessing.std
    assert_close(pictures, (batch.images * std + mean).clamp(0, 1)[:, 0].double())
    true, own = patchify(batch.images, (2, 2)), found.prediction
    own = own * (true.var(dim=-1, keepdim=True) + 1e-6).sqrt() + true.mean(dim=-1, keepdim=True)
    made = (unpatchify(own, (2, 2), (8, 8)) * std + mean).clamp(0, 1)[:, 0].double()
    hidden = unpatchify(found.wanted[..., None].expand(-1, -1, 4).float(), (2, 2), (8, 8))[:, 0].bool()
    assert hidden.sum(dim=(1, 2)).tolist() == [48] * 3 and not torch.equal(hidden[0], hidden[1])
    assert torch.equal(left[~hidden], pictures[~hidden]) and torch.equal(filled[~hidden], pictures[~hidden])
    assert len(left[hidden].unique()) == 1 and 0.4 < left[hidden].mean() < 0.7
    assert_close(filled[hidden], made[hidden])
    assert (filled - pictures)[hidden].abs().mean() > 0.01


def test_a_collapsed_net_is_seen(trainer):
    model = task()
    with torch.no_grad():
        model.net.backbone.norm.weight.zero_()
    (measured,) = trainer(callbacks=[Probes()], enable_checkpointing=False).validate(model, data(), verbose=False)
    assert measured["features/rank"] < 1e-6 and measured["features/spread"] < 1e-6


def test_labels_of_one_class_leave_the_accuracies_out(trainer):
    images = data()
    images.setup("fit")
    for part in images.splits.fit:
        object.__setattr__(part.source, "labels", np.full_like(part.source.labels, 4))
    (measured,) = trainer(callbacks=[Probes()], enable_checkpointing=False).validate(task(), images, verbose=False)
    assert {name for name in measured if "/" in name} == {
        "val/loss",
        "features/rank",
        "features/spread",
        "features/norm",
    }


def test_a_smoke_run_leaves_no_files(trainer, tmp_path):
    trainer(callbacks=[Probes(1), Reconstructions(1)], fast_dev_run=True).fit(task(), data())
    assert not list(tmp_path.rglob("*.*"))


@pytest.mark.parametrize("callback", [Probes, Reconstructions])
def test_other_tasks_are_refused(callback, tiny_net, trainer):
    with pytest.raises(ValueError, match=r"a callback of pretraining got a Classifier: -c pretrain/mae goes after"):
        trainer(callbacks=[callback()]).fit(Classifier(tiny_net), data())
    with pytest.raises(ValueError, match="at least 1"):
        callback(0)
