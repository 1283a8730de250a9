"""The data module: splits, batches, and a run that resumes bit for bit."""

import json
import multiprocessing
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from vit.data import source
from vit.data.module import Images
from vit.data.source import Batch, Batches


def coloured(root: Path, per_class: int = 10) -> Path:
    """Class r is red, class g green, b blue; brightness numbers the picture."""
    for channel, name in enumerate("rgb"):
        (root / name).mkdir(parents=True)
        for i in range(per_class):
            pixels = np.zeros((12, 16, 3), np.uint8)
            pixels[..., channel] = 100 + i
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


def flattened(batches) -> Batch:
    return Batch(*map(torch.cat, zip(*batches, strict=True)))


def test_digits_splits_are_disjoint_and_complete():
    data = Images(batch_size=100)
    train, val = flattened(data.train_dataloader()), flattened(data.val_dataloader())
    assert sorted([*train.index.tolist(), *val.index.tolist()]) == list(range(1438))
    assert data.num_train == len(train.labels) == 1295 and data.steps_per_epoch == len(data.train_dataloader()) == 13
    assert torch.equal(data.class_counts, train.labels.bincount()) and data.class_counts.sum() == 1295
    assert train.images.shape == (1295, 1, 8, 8) and train.images.dtype == torch.float32
    assert data.classes == tuple("0123456789") and data.preprocessing.img_size == (8, 8)


def test_validation_depends_on_the_seed_alone():
    a, b, c = (flattened(Images(seed=s, batch_size=n).val_dataloader()).index for s, n in ((0, 7), (0, 100), (1, 100)))
    assert torch.equal(a, b) and not torch.equal(b, c)


def test_a_subset_is_trained_on_and_nothing_else_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []
    original = source.Preprocessing.pixels
    monkeypatch.setattr(source.Preprocessing, "pixels", lambda self, p: asked.append(p) or original(self, p))
    root = str(coloured(tmp_path))
    small, large = (Images(root=root, img_size=8, train_size=size) for size in (6, 0.5))
    batch = flattened(small.train_dataloader())
    assert sorted(batch.index.tolist()) == small.train_samples.tolist() and small.num_train == 6
    assert small.class_counts.tolist() == [2, 2, 2]
    assert len(asked) == len({*asked}) == 6 + len(flattened(small.val_dataloader()).index)
    by_label = [batch.images[batch.labels == label].mean(dim=(0, 2, 3)).argmax().item() for label in (0, 1, 2)]
    assert [small.classes[label] for label in (0, 1, 2)] == ["b", "g", "r"] and by_label == [2, 1, 0]
    assert sorted(large.nested_order[:6]) == small.train_samples.tolist() and len(large.nested_order) == 21
    assert large.num_train == 10 and {*small.train_samples} < {*large.train_samples}
    whole = flattened(Images(root=root, img_size=8).val_dataloader())
    assert torch.equal(flattened(large.val_dataloader()).index, whole.index)
    with pytest.raises(ValueError, match="train_size 100 is more than the 21 pictures"):
        Images(root=root, img_size=8, train_size=100).setup("fit")


def test_fit_never_touches_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []
    original = source.Preprocessing.pixels
    monkeypatch.setattr(source.Preprocessing, "pixels", lambda self, p: asked.append(p) or original(self, p))
    data = Images(root=str(coloured(tmp_path)), img_size=8)
    data.setup("fit")
    seen = {*asked}
    asked.clear()
    data.setup("test")
    assert len(seen) == 24 and len(asked) == 6 and not seen & {*asked}


def test_labels_follow_pictures_in_every_split(tmp_path: Path):
    data = Images(root=str(coloured(tmp_path)), img_size=(6, 8), augment="none", val_fraction=0.2)
    assert data.classes == ("b", "g", "r")
    loaders = {"train": data.train_dataloader(), "val": data.val_dataloader(), "test": data.test_dataloader()}
    for name, loader in loaders.items():
        images, labels, _ = flattened(loader)
        assert torch.equal(2 - images.mean((2, 3)).argmax(1), labels), name
        assert images.shape[1:] == (3, 6, 8)


def test_large_sets_are_read_per_batch_with_the_same_result(tmp_path: Path):
    coloured(tmp_path)
    held, read = (Images(root=str(tmp_path), img_size=8, cache_gb=gb).train_dataloader() for gb in (1e-3, 1e-6))
    ready = [isinstance(loader.dataset, Batches) and loader.dataset.ready for loader in (held, read)]
    assert ready == [True, False] and held.waited == 0.0
    assert all(torch.equal(a, b) for a, b in zip(flattened(held), flattened(read), strict=True))
    assert 0.0 < held.waited < 60.0
    with pytest.raises(ValueError, match="must not be negative, got -1"):
        Images(cache_gb=-1)


def test_a_studys_subset_can_be_trained_on_again(tmp_path: Path):
    root, path = str(coloured(tmp_path / "set")), tmp_path / "seed-3.json"
    first = Images(root=root, img_size=8, seed=3, train_size=9)
    held = first.val_dataloader().plan.index
    manifest = {"manifest_hash": first.manifest_hash, "seed": 3, "order": first.nested_order[:12].tolist()}
    path.write_text(json.dumps(manifest))
    again, fewer = (Images(root=root, img_size=8, seed=3, subset=str(path), train_size=n) for n in (None, 9))
    assert again.num_train == 12 and fewer.train_samples.tolist() == first.train_samples.tolist()
    assert again.val_dataloader().plan.index.tolist() == held.tolist()
    cases = {
        "lists pictures of other data": manifest | {"manifest_hash": "0" * 64},
        r"held out for validation by seed 3 .*--seed_everything 1": manifest | {"order": held.tolist(), "seed": 1},
        "expected positions below": manifest | {"order": [0, 0]},
        "expected a study's subset file": {"order": [1]},
        "train_size 13 is more than the 12": manifest,
    }
    for words, content in cases.items():
        path.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=words):
            Images(root=root, img_size=8, seed=3, subset=str(path), train_size=13).setup("fit")
    with pytest.raises(ValueError, match=r"none\.json: expected a study's subset file"):
        Images(root=root, subset=str(tmp_path / "none.json")).setup("fit")


def test_a_bad_picture_stops_setup_with_its_name(tmp_path: Path):
    (coloured(tmp_path) / "r" / "broken.png").write_bytes(b"\x89PNG")
    data = Images(root=str(tmp_path))
    with pytest.raises(ValueError, match=r"broken\.png"):
        [data.setup(stage) for stage in ("fit", "test")]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_picture_read_while_training_is_one_line_naming_it(tmp_path: Path, workers: int):
    broken(coloured(tmp_path), *(f"{name}/{i}.png" for name in "rgb" for i in range(10)))
    loader = Images(root=str(tmp_path), img_size=8, augment="none", cache_gb=0, num_workers=workers).train_dataloader()
    with pytest.raises(ValueError, match=rf"^{tmp_path}/./.\.png: expected a picture .* none of them$"):
        list(loader)
    if workers:
        loader._iterator._shutdown_workers()  # as Lightning does


def test_own_validation_folder_is_used(tmp_path: Path):
    coloured(tmp_path / "train")
    coloured(tmp_path / "val", per_class=2)
    data = Images(root=str(tmp_path), img_size=8)
    assert data.num_train == 24 and len(flattened(data.val_dataloader()).labels) == 6


def test_a_single_picture_per_class_cannot_be_validated(tmp_path: Path):
    coloured(tmp_path, per_class=1)
    with pytest.raises(ValueError, match="nothing to validate on"):
        Images(root=str(tmp_path)).setup("fit")


def test_predicting_needs_the_pictures_only(tmp_path: Path):
    coloured(tmp_path)
    data = Images(dataset="folder", root="gone", img_size=8, pictures=[str(tmp_path / "r"), str(tmp_path / "g/*.png")])
    data.setup("predict")
    batch = next(iter(data.predict_dataloader()))
    assert batch.images.shape == (20, 3, 8, 8) and set(batch.labels.tolist()) == {-1}
    assert [p.name for p in data.picture_files[9:11]] == ["9.png", "0.png"] and batch.index.tolist() == list(range(20))
    assert torch.equal(batch.images[3], data.preprocessing(data.picture_files[3]))
    with pytest.raises(ValueError, match="nothing to predict"):
        Images().setup("predict")


def test_settings_are_checked():
    for options, message in (({"batch_size": 0}, "batch_size"), ({"val_fraction": 1.0}, "val_fraction")):
        with pytest.raises(ValueError, match=message):
            Images(**options)
    with pytest.raises(ValueError, match="augment must be"):
        Images(augment="heavy")  # pyright: ignore[reportArgumentType]


class Linear(L.LightningModule):
    """Notes every training batch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(64, 10)
        self.seen: list[Tensor] = []

    def training_step(self, batch: Batch, _: int) -> Tensor:
        assert isinstance(batch, Batch)
        self.seen.append(batch.images.clone())
        return cross_entropy(self.layer(batch.images.flatten(1)), batch.labels)

    def validation_step(self, batch: Batch, _: int) -> None:
        self.log("val/loss", cross_entropy(self.layer(batch.images.flatten(1)), batch.labels))

    test_step = validation_step

    def predict_step(self, batch: Batch, _: int) -> Tensor:
        return batch.index

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=0.01)


class Stop(Callback):
    """Ends a run as a crash would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: L.Trainer, *_: object) -> None:
        if trainer.global_step == self.step:
            raise KeyError("power cut")


def trainer(folder: Path, *callbacks: Callback, overfit_batches: int = 0) -> L.Trainer:
    save = ModelCheckpoint(folder, save_last=True, every_n_train_steps=1, save_top_k=0)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    options = {"max_epochs": 3, "accelerator": "cpu", "overfit_batches": overfit_batches}
    return L.Trainer(callbacks=[save, *callbacks], **options, **quiet)


@pytest.mark.parametrize(("stop", "workers"), [(1, 0), (4, 2), (5, 0), (7, 2)])
def test_stopped_and_resumed_equals_uninterrupted(tmp_path: Path, stop: int, workers: int):
    """Five steps an epoch: within an epoch, at its end, and later; weights and every picture are equal bit for bit."""
    whole, before, after = Linear(), Linear(), Linear()
    trainer(tmp_path / "whole").fit(whole, datamodule=Images(batch_size=300))
    with pytest.raises(KeyError):
        trainer(tmp_path / "cut", Stop(stop)).fit(before, datamodule=Images(batch_size=300, num_workers=workers))
    resumed = trainer(tmp_path / "cut")
    resumed.fit(
        after, datamodule=Images(batch_size=300), ckpt_path=str(tmp_path / "cut" / "last.ckpt"), weights_only=True
    )
    assert resumed.global_step == len(whole.seen) == 15
    seen = [*before.seen, *after.seen]
    assert len(seen) == 15 and all(torch.equal(a, b) for a, b in zip(seen, whole.seen, strict=True))
    assert not torch.equal(whole.seen[0], whole.seen[5])
    assert not multiprocessing.active_children()
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, after.state_dict()[name]), name


def test_lightning_runs_every_stage_without_a_warning(tmp_path: Path):
    model, run = Linear(), trainer(tmp_path)
    run.fit(model, datamodule=Images(batch_size=300))
    for data in (Images(batch_size=300), Images(pictures=[str(coloured(tmp_path / "p") / "r")])):
        run.validate(model, datamodule=data, verbose=False)
    assert run.test(model, datamodule=Images(batch_size=50), verbose=False)[0]["val/loss"] > 0
    predicted = run.predict(model, datamodule=Images(pictures=[str(tmp_path / "p" / "r")], batch_size=4))
    assert torch.cat(predicted).tolist() == list(range(10))


def test_overfitting_sees_the_same_batch_again(tmp_path: Path):
    model = Linear()
    trainer(tmp_path, overfit_batches=2).fit(model, datamodule=Images(batch_size=300))
    assert len(model.seen) == 6 and not torch.equal(model.seen[0], model.seen[1])
    assert all(torch.equal(seen, model.seen[step % 2]) for step, seen in enumerate(model.seen))


def broken(root: Path, *names: str) -> None:
    for name in names:
        (root / name).write_bytes((root / name).read_bytes()[:40])


def test_bad_pictures_end_the_run_or_are_left_out_and_named(tmp_path: Path):
    root = coloured(tmp_path)
    whole = Images(root=str(root), img_size=8)
    bad = [whole.splits._carved[0].pictures[i] for i in (whole.train_samples[3], whole.val_dataloader().plan.index[0])]
    broken(root, *[str(path.relative_to(root)) for path in bad])
    with pytest.raises(ValueError, match="the file is none of them"):
        Images(root=str(root), img_size=8).setup("fit")
    data = Images(root=str(root), img_size=8, bad_images="skip")
    with pytest.warns(UserWarning, match="left out: .*none of them"):
        train = flattened(data.train_dataloader())
    val = flattened(data.val_dataloader())
    assert sorted(train.index.tolist()) == [i for i in whole.train_samples.tolist() if i != whole.train_samples[3]]
    assert len(val.index) == len(whole.val_dataloader().plan.index) - 1
    skipped = [f"{path.relative_to(root)}: expected a picture" for path in bad]
    assert [problem.partition(" (")[0] for problem in data.splits.skipped] == skipped
    assert data.num_train == len(train.index) and data.steps_per_epoch == 1


def test_a_file_that_may_not_be_read_is_left_out_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root, opened = coloured(tmp_path), Path.open
    closed = Images(root=str(root), img_size=8).splits._carved[0].pictures[3]

    def refusing(path: Path, *arguments: Any, **options: Any) -> Any:
        if path == closed:
            raise PermissionError(13, "Permission denied")
        return opened(path, *arguments, **options)

    whole = Images(root=str(root), img_size=8).manifest_hash
    monkeypatch.setattr(Path, "open", refusing)
    data = Images(root=str(root), img_size=8, bad_images="skip")
    assert data.manifest_hash != whole
    with pytest.warns(UserWarning, match=r"left out: .*cannot be read as a picture: .*Permission denied"):
        data.setup("fit")
    assert len(data.splits.skipped) == 1


def test_what_is_left_out_of_arrays_is_named_by_its_place(tmp_path: Path):
    images = np.full((2, 10, 5, 7), 0.5, np.float32)
    images[0, 8], images[1, 6] = 2.0, -1.0
    labels = np.arange(10) % 2
    np.savez(
        tmp_path / "x-ray.npz", train_images=images[0], train_labels=labels, val_images=images[1], val_labels=labels
    )
    data = Images(root=str(tmp_path / "x-ray.npz"), bad_images="skip")
    (place,) = np.flatnonzero(data.splits._carved[0].pictures.max(axis=(1, 2, 3)) == 2.0)  # some of train are for test
    with pytest.warns(UserWarning, match="left out: expected float32 values within"):
        data.setup("fit")
    assert place != 8  # a place in what is left to train on, which nobody knows
    assert [problem.partition(":")[0] for problem in data.splits.skipped] == ["x-ray #8", "x-ray val #6"]
    assert data.splits.names([place]) == ["x-ray #8"]


def test_testing_never_leaves_a_picture_out(tmp_path: Path):
    root = coloured(tmp_path)
    data = Images(root=str(root), img_size=8, bad_images="skip")
    (first, *_) = data.splits._load("test").pictures
    broken(root, str(Path(first).relative_to(root)))
    with pytest.raises(ValueError, match="the file is none of them"):
        Images(root=str(root), img_size=8, bad_images="skip").setup("test")


def test_a_class_that_cannot_be_read_is_an_error(tmp_path: Path):
    root = coloured(tmp_path)
    broken(root, *[f"g/{i}.png" for i in range(10)])
    with pytest.warns(UserWarning), pytest.raises(ValueError, match=r"no training picture of 'g' can be read: g/"):
        Images(root=str(root), img_size=8, bad_images="skip").setup("fit")


def test_validation_pictures_that_cannot_be_read_are_an_error(tmp_path: Path):
    root = coloured(tmp_path)
    data = Images(root=str(root), img_size=8, seed=1)
    source, _, held = data.splits._carved
    broken(root, *[str(Path(source.pictures[place]).relative_to(root)) for place in held])
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="no validation picture can be read: "):
        Images(root=str(root), img_size=8, seed=1, bad_images="skip").setup("fit")


def test_balanced_training_sees_all_classes_equally_often(tmp_path: Path):
    root = coloured(tmp_path, per_class=20)
    for i in range(4, 20):
        (root / "g" / f"{i}.png").unlink()
    plain, even = (Images(root=str(root), img_size=8, augment="none", balanced=b) for b in (False, True))
    counts = flattened(even.train_dataloader()).labels.bincount().tolist()
    assert max(counts) - min(counts) <= 1 and sum(counts) == plain.num_train
    assert plain.class_counts.tolist() == even.class_counts.tolist() != counts  # what there is, for class weights


def test_mirroring_can_be_forbidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr("vit.data.augment.Augment", lambda *arguments: asked.append(arguments[-1]))
    for flip, dataset in ((None, "digits"), (True, "digits"), (None, "fashion_mnist"), (False, "fashion_mnist")):
        Images(dataset=dataset, flip=flip)._augmentation()
    assert asked == [False, True, True, False]


def test_groups_of_a_table_are_held_out_together(tmp_path: Path):
    root = coloured(tmp_path, per_class=20)
    lines = [f"{name}/{i}.png,{name},p{i // 2}" for name in "rgb" for i in range(20)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label,group", *lines]))
    data = Images(root=str(root), img_size=8, val_fraction=0.25)
    source, kept, held = data.splits._carved
    assert source.groups is not None and len(held) and not {*source.groups[kept]} & {*source.groups[held]}
    assert data.description.name == root.name and data.classes == ("b", "g", "r")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_arrays_are_read_by_the_same_rules_as_files(tmp_path: Path, dtype: type):
    full = {np.uint8: 255, np.uint16: 65535, np.float32: 1.0}[dtype]
    images = np.stack([np.full((6, 5), full * (i % 2), dtype) for i in range(40)])
    np.savez(tmp_path / "some.npz", train_images=images, train_labels=np.arange(40)[:, None] % 2)
    data = Images(root=str(tmp_path / "some.npz"), augment="none")
    assert data.preprocessing.img_size == (6, 5) and data.preprocessing.channels == 1 and data.classes == ("0", "1")
    batch = flattened(data.train_dataloader())
    black, white = (batch.images[batch.labels == label] for label in (0, 1))
    low, high = -data.preprocessing.mean[0], 1 - data.preprocessing.mean[0]
    std = data.preprocessing.std[0]
    assert torch.allclose(black, torch.tensor(low / std)) and torch.allclose(white, torch.tensor(high / std))
