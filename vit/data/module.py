"""The data module: a set by name or folder, split, ordered, augmented and batched."""

import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from vit.data import catalog
from vit.data.folder import expand
from vit.data.images import Preprocessing
from vit.data.masked import MaskedBatches
from vit.data.merging import Merge
from vit.data.order import Loader, Plan, Position
from vit.data.position import peer, position
from vit.data.source import HELD_BYTES, Batch, Batches, Level, Part, Source, readable
from vit.data.splits import Splits
from vit.data.subset import nested

if TYPE_CHECKING:
    from vit.data.augment import Augment


class Images(L.LightningDataModule):
    """Pictures: a known set, a folder of class folders, a table (CSV), arrays (npz), or a folder without labels.

    Validation is carved from train (stratified, by `seed`, groups kept together) unless the set has a `val` of its own;
    test is read by `test` only.  Order and augmentation depend on (seed, epoch, sample) alone: a resumed run continues
    bit for bit.

    Args:
        dataset: One of digits, mnist, fashion_mnist, cifar10, cifar100, scenes_texture, scenes_shape, scenes_relation,
            folder, csv, npz, unlabelled. Default: by what lies at the root, without one digits.
        root: A folder of class folders (class/*.png, or train/class/*.png and maybe val/, test/); a CSV file (path,
            label, maybe split, group); an npz file (train_images, ...); pictures at any depth (unlabelled); or a
            downloaded set's place (default: data/).
        img_size: Height and width in pixels, one number for a square. Default: the set's own size; 64 for a folder.
        channels: 1 for grey, 3 for RGB. Default: the set's own; 3 for a folder.
        value_range: Values of black and white, [0,4095] for instance, where pictures have more than 8 bits. Default:
            0..65535 of 16 bits, 0..1 of floats; wider whole numbers need it.
        mean: Of each channel, of values in 0..1; of another number each is like their average. Default: the set's own;
            ImageNet's for a folder.
        std: Likewise the deviation: a net sees (value - mean) / std.
        batch_size: Pictures per step and device. The last batch of an epoch may be smaller, or larger by one.
        augment: How strongly training pictures are varied.
        flip: Whether augmentation may mirror them. Default: yes, but for digits.
        bad_images: Whether an unreadable picture ends the run or is left out with a warning; in testing it ends.
        balanced: Draw training pictures so that all classes are equally frequent.
        val_fraction: Share of train that is held out for validation where the set has no split of its own.
        train_size: How many pictures to train on, or which share (0.1) of those there are without validation. Every
            class keeps its share, and with the same seed the smaller set lies inside the larger. Default: all.
        subset: File that lists what may be trained on, as a study writes it (subsets/seed-0.json); `train_size` then
            counts from its beginning.
        seed: Of the validation split, the subset, the order and the augmentation.
        num_workers: Processes that prepare batches; 0 is right for small pictures, which are kept in memory.
        cache_gb: Splits up to so many GB, decoded, are kept in memory; 0 reads every picture anew when it is wanted.
        pictures: What to predict: files, folders or patterns.
        masks: Have the objects' masks come along, of scenes_shape and scenes_texture, for `-c task/label_tokens`.
        merge_classes: Coarser classes, with the set's own under each: {animal: [cat, dog], vehicle: [car]}. Every own
            one is named once; validation and subsets hold the same pictures as without.
    """

    def __init__(
        self,
        dataset: str | None = None,
        root: str | None = None,
        img_size: int | tuple[int, int] | None = None,
        channels: int | None = None,
        value_range: tuple[float, float] | None = None,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        batch_size: int = 128,
        augment: Level = "medium",
        flip: bool | None = None,
        bad_images: Literal["fail", "skip"] = "fail",
        balanced: bool = False,
        val_fraction: float = 0.1,
        train_size: int | float | None = None,
        subset: str | None = None,
        seed: int = 0,
        num_workers: int = 0,
        cache_gb: float = HELD_BYTES / 1e9,
        pictures: list[str] | None = None,
        masks: bool = False,
        merge_classes: dict[str, list[str]] | None = None,
    ) -> None:
        super().__init__()
        for name, value, right, rule in (
            ("batch_size", batch_size, batch_size >= 1, "be at least 1"),
            ("val_fraction", val_fraction, 0 < val_fraction < 1, "lie between 0 and 1"),
            ("cache_gb", cache_gb, cache_gb >= 0, "not be negative"),
            ("augment", augment, augment in get_args(Level), f"be one of {', '.join(get_args(Level))}"),
            ("bad_images", bad_images, bad_images in ("fail", "skip"), "be fail or skip"),
        ):
            if not right:
                raise ValueError(f"{name} must {rule}, got {value!r}")
        self.dataset, self.root = dataset, root
        self.merge_classes: Merge | None = merge_classes
        self.batch_size = batch_size
        self.augment: Level = augment
        self.bad_images: Literal["fail", "skip"] = bad_images
        self.flip, self.balanced = flip, balanced
        self.unreadable: dict[int, str] = {}  # of the files to predict
        self.whole = False  # see `Splits`
        self._seconds, self._loaders = 0.0, list[Loader[Batch]]()  # of reading splits; all that were made
        self.val_fraction, self.train_size, self.subset, self.seed = val_fraction, train_size, subset, seed
        self.num_workers, self.cache_gb = num_workers, cache_gb
        self.pictures, self.masks = pictures or [], masks
        prepared = catalog.preprocessing(dataset, root, img_size, channels, value_range, mean, std)
        self.preprocessing: Preprocessing = prepared

    @cached_property
    def description(self) -> catalog.Description:
        size, channels = self.preprocessing.img_size, self.preprocessing.channels
        return catalog.describe(self.dataset, self.root, size, channels, self.merge_classes)

    @property
    def classes(self) -> tuple[str, ...]:
        """In the order of the labels."""
        return self.description.classes

    @cached_property
    def identity(self) -> catalog.Identity:
        return catalog.identify(self.dataset, self.root, self.merge_classes)

    @property
    def manifest_hash(self) -> str:
        return self.identity.manifest_hash

    @property
    def num_train(self) -> int:
        """Samples trained on, without those of validation."""
        return len(self.train_samples)

    @property
    def train_samples(self) -> np.ndarray:
        """Positions, in the train split, of the samples trained on; ascending."""
        return self.splits.fit[0].samples

    @property
    def nested_order(self) -> np.ndarray:
        """All positions that could be trained on, in an order whose first n are the subset of `train_size` n."""
        return self.splits.nested_order

    @property
    def waited(self) -> float:
        """Seconds spent so far on reading splits and until batches were there."""
        return self._seconds + sum(loader.waited for loader in self._loaders)

    @property
    def class_counts(self) -> Tensor:
        """Training samples of each class (k,)."""
        train, _ = self.splits.fit
        return torch.from_numpy(np.bincount(train.source.labels[train.samples], minlength=len(self.classes)))

    @property
    def steps_per_epoch(self) -> int:
        """Batches of one epoch, the smaller last one included; of each process where there are several."""
        return Plan(self.train_samples, self.batch_size).batches(peer(self.trainer).world)

    @cached_property
    def picture_files(self) -> list[Path]:
        """The files that `pictures` stands for; `index` of a predicted batch points into it."""
        if not self.pictures:
            raise ValueError("nothing to predict: expected pictures, folders or patterns, got none")
        return expand(self.pictures)

    def prepare_data(self) -> None:
        """Download, on one process only."""
        if catalog.resolve(self.dataset, self.root) in catalog.TORCHVISION and not self.pictures:
            catalog.load(self.dataset, self.root, "train")

    def setup(self, stage: str) -> None:
        """Read what a stage needs now, so that bad data stops it before it starts."""
        start = time.monotonic()
        _ = self.picture_files if stage == "predict" else self.splits.test if stage == "test" else self.splits.fit
        self._seconds += time.monotonic() - start

    def train_dataloader(self) -> Loader[Batch]:
        train, _ = self.splits.fit
        labels = train.source.labels[train.samples] if self.balanced else None
        plan = Plan(train.samples, self.batch_size, shuffle=True, seed=self.seed, labels=labels)
        return self._loader(
            self._batches(train.source, "train", self._augmentation()), plan, lambda: position(self.trainer)
        )

    def val_dataloader(self) -> Loader[Batch]:
        train, val = self.splits.fit
        return self._in_order(val, "train" if val.source is train.source else "val")

    def excerpt(self, split: Literal["train", "val"], count: int) -> Loader[Batch]:
        """In every process the same ``count`` pictures of a split, or all, stratified, as evaluation sees them."""
        source, samples = self.splits.fit[("train", "val").index(split)]
        some = samples[nested(source.labels[samples], self.seed)[:count]]
        return self._loader(Batches(source, self.preprocessing), Plan(some, self.batch_size), Position)

    def test_dataloader(self) -> Loader[Batch]:
        return self._in_order(self.splits.test, "test")

    def predict_dataloader(self) -> Loader[Batch]:
        files = self.picture_files
        source = Source(files, np.full(len(files), -1))
        samples, self.unreadable = readable(source, self.preprocessing, np.arange(len(files)))
        if not len(samples):
            raise ValueError(f"no picture to predict can be read: {self.unreadable[0]}")
        return self._in_order(Part(source, samples), None)

    @cached_property
    def splits(self) -> Splits:
        """The positions in the set that each part consists of, and what was left out of them."""
        source = self.dataset, self.root, self.preprocessing, self.seed, self.val_fraction, self.train_size, self.subset
        return Splits(*source, self.bad_images, round(1e9 * self.cache_gb), self.merge_classes, self.whole)

    def _augmentation(self) -> "Augment | None":
        if self.augment == "none":
            return None
        from vit.data.augment import Augment  # seconds of imports that only training needs

        own = catalog.ENTRIES[catalog.resolve(self.dataset, self.root)].flip
        flip = own if self.flip is None else self.flip
        return Augment(self.augment, self.preprocessing.img_size, self.preprocessing.channels, flip)

    def _in_order(self, part: Part, split: catalog.Split | None) -> Loader[Batch]:
        return self._loader(
            self._batches(part.source, split), Plan(part.samples, self.batch_size), lambda: peer(self.trainer)
        )

    def _batches(self, source: Source, split: catalog.Split | None, augment: "Augment | None" = None) -> Dataset[Any]:
        """Of pictures to predict, which are in no split, there are no masks."""
        if not self.masks or split is None:
            return Batches(source, self.preprocessing, augment)
        plain, scenes = Batches(source, self.preprocessing), catalog.scenes(self.dataset, self.root, split)
        return MaskedBatches(plain, scenes, None if augment is None else augment.both)

    def _loader(self, batches: Dataset[Any], plan: Plan, position: Callable[[], Position]) -> Loader[Batch]:
        on_cuda = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        loader = Loader(batches, plan, position, self.num_workers, pin_memory=on_cuda)
        self._loaders.append(loader)
        return loader
