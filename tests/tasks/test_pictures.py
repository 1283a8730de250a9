import numpy as np
import torch
from PIL import Image

from vit.tasks.checkpoint import Checkpoints
from vit.tasks.classify import Classifier
from vit.tasks.metrics import MetricsCSV
from vit.tasks.pictures import Confusion, Curves, Samples
from vit.tasks.release import Release


def test_a_run_leaves_its_curves_and_a_test_its_confusion(tiny_net, digits, trainer, tmp_path):
    confusion, task = Confusion(), Classifier(tiny_net)
    options = {"logger": MetricsCSV(str(tmp_path)), "log_every_n_steps": 2, "enable_checkpointing": False}
    fitted = trainer(callbacks=[Samples(6), Curves(), confusion], **options)
    fitted.fit(task, digits)
    assert not (tmp_path / "confusion.png").exists()
    assert confusion.matrix.sum() == 143
    (measured,) = fitted.test(task, digits, verbose=False)
    for name in ("samples.png", "curves.png", "confusion.png"):
        picture = np.asarray(Image.open(tmp_path / name).convert("L"))
        assert min(picture.shape) > 200 and picture.std() > 5
    labels = torch.cat([batch.labels for batch in digits.test_dataloader()])
    assert torch.equal(confusion.matrix.sum(1), torch.bincount(labels, minlength=10))
    np.testing.assert_allclose(
        float(confusion.matrix.trace() / confusion.matrix.sum()), measured["test/acc"], rtol=1e-6
    )


def test_rows_are_true_classes_and_columns_predicted_ones():
    confusion = Confusion()
    confusion.matrix = torch.zeros(3, 3, dtype=torch.long)
    confusion._count(torch.tensor([0, 0, 2]), torch.tensor([0, 1, 1]))
    confusion._count(torch.tensor([0]), torch.tensor([1]))
    assert confusion.matrix.tolist() == [[1, 2, 0], [0, 0, 0], [0, 1, 0]]


def test_a_smoke_run_leaves_no_files(tiny_net, digits, trainer, tmp_path):
    callbacks = [Samples(), Curves(), Confusion(), Release(), Checkpoints()]
    fitted = trainer(callbacks=callbacks, fast_dev_run=True)
    fitted.fit(Classifier(tiny_net), digits)
    fitted.test(Classifier(tiny_net), digits, verbose=False)
    assert not list(tmp_path.rglob("*.*"))
