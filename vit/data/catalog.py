"""The data sets: what is known of each without reading it, and how its pictures are reached."""

import difflib
import hashlib
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from vit.data.folder import scan
from vit.data.images import Preprocessing
from vit.data.scenes import CLASSES, SIDE, VERSION, Scenes, Task
from vit.data.source import Source
from vit.data.subset import carve

Size = tuple[int, int]
Split = Literal["train", "val", "test"]
DOWNLOADS = "data"  # where torchvision's sets go and are looked for unless a root is given
DIGITS_TEST_FRACTION, DIGITS_TEST_SEED = 0.2, 0
SCENES: dict[str, Task] = {"scenes_texture": "texture", "scenes_shape": "shape", "scenes_relation": "relation"}
SPREAD: dict[Task, float] = {"texture": 0.285, "shape": 0.285, "relation": 0.124}  # of a channel
STREAMS: dict[Split, tuple[int, int]] = {"train": (1, 1_000_000), "val": (2, 5_000), "test": (3, 10_000)}  # seed, count

FASHION = "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot"
CIFAR10 = "airplane,automobile,bird,cat,deer,dog,frog,horse,ship,truck"
CIFAR100 = (
    "apple,aquarium_fish,baby,bear,beaver,bed,bee,beetle,bicycle,bottle,bowl,boy,bridge,bus,butterfly,camel,can,castle,"
    "caterpillar,cattle,chair,chimpanzee,clock,cloud,cockroach,couch,crab,crocodile,cup,dinosaur,dolphin,elephant,flatfish,"
    "forest,fox,girl,hamster,house,kangaroo,keyboard,lamp,lawn_mower,leopard,lion,lizard,lobster,man,maple_tree,motorcycle,"
    "mountain,mouse,mushroom,oak_tree,orange,orchid,otter,palm_tree,pear,pickup_truck,pine_tree,plain,plate,poppy,porcupine,"
    "possum,rabbit,raccoon,ray,road,rocket,rose,sea,seal,shark,shrew,skunk,skyscraper,snail,snake,spider,squirrel,streetcar,"
    "sunflower,sweet_pepper,table,tank,telephone,television,tiger,tractor,train,trout,tulip,turtle,wardrobe,whale,"
    "willow_tree,wolf,woman,worm"
)


@dataclass(frozen=True)
class Description:
    """What a net has to know of a data set: its classes in the order of the labels, channels, and picture size."""

    name: str
    classes: tuple[str, ...]
    channels: int
    img_size: Size


@dataclass(frozen=True)
class Entry:
    """Facts of a set by name.

    Attributes:
        classes: In the order of the labels; a folder has its own.
        side: Pixels of its square pictures.
        mean: Per channel, of values in 0..1.
        std: Likewise.
        files: Where torchvision keeps it, below its root.
        flip: Whether a mirrored picture keeps its label.
    """

    classes: str
    side: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    files: str = ""
    flip: bool = True


ENTRIES = {
    "digits": Entry("0,1,2,3,4,5,6,7,8,9", 8, (0.305,), (0.376,), flip=False),
    "mnist": Entry("0,1,2,3,4,5,6,7,8,9", 28, (0.1307,), (0.3081,), "MNIST/raw", flip=False),
    "fashion_mnist": Entry(FASHION, 28, (0.2860,), (0.3530,), "FashionMNIST/raw"),
    "cifar10": Entry(CIFAR10, 32, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), "cifar-10-batches-py"),
    "cifar100": Entry(CIFAR100, 32, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762), "cifar-100-python"),
    **{name: Entry(",".join(CLASSES[task]), SIDE, (0.5,) * 3, (SPREAD[task],) * 3) for name, task in SCENES.items()},
    "folder": Entry("", 64, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),  # ImageNet's mean and std
}
TORCHVISION = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "cifar10": "CIFAR10", "cifar100": "CIFAR100"}


def resolve(dataset: str | None, root: str | None) -> str:
    """The name of a set in `ENTRIES`.

    Raises:
        ValueError: unknown name, a folder without its place, or a place for what is not read from one.
    """
    name = dataset or ("folder" if root else "digits")
    if name not in ENTRIES:
        near = difflib.get_close_matches(name, ENTRIES, n=1, cutoff=0.5)
        hint = f", did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown data set {name!r}, expected one of {', '.join(ENTRIES)}{hint}")
    if name == "folder" and not root:
        raise ValueError("data set 'folder' needs its place: --data.root FOLDER")
    if name in ("digits", *SCENES) and root:
        raise ValueError(f"data set {name!r} is read from no folder, got root {root}: leave one of the two out")
    return name


def preprocessing(
    dataset: str | None, root: str | None, img_size: int | Size | None = None, channels: int | None = None
) -> Preprocessing:
    """How pictures of a set are prepared; reads nothing, so it also works where the set no longer is.

    `img_size` None is the set's own size, or 64 for a folder; `channels` None the set's own number, or 3 for a folder.
    """
    entry = ENTRIES[resolve(dataset, root)]
    side = entry.side if img_size is None else img_size
    own = len(entry.mean)
    channels = own if channels is None else channels
    mean, std = entry.mean, entry.std
    if channels != own:  # grey made RGB, or RGB made grey
        mean, std = (sum(mean) / own,) * channels, (sum(std) / own,) * channels
    return Preprocessing((side, side) if isinstance(side, int) else (side[0], side[1]), channels, mean, std)


def describe(
    dataset: str | None, root: str | None, img_size: int | Size | None = None, channels: int | None = None
) -> Description:
    """Describe a set from its name or a listing of its folder: no picture is read, nothing is downloaded.

    Arguments are those of `Images`.

    Raises:
        ValueError: unknown set, or a folder that `scan` refuses.
    """
    name = resolve(dataset, root)
    prepared = preprocessing(dataset, root, img_size, channels)
    if name == "folder":
        folder = scan(str(root))
        return Description(folder.root.resolve().name, folder.classes, prepared.channels, prepared.img_size)
    return Description(name, tuple(ENTRIES[name].classes.split(",")), prepared.channels, prepared.img_size)


def load(dataset: str | None, root: str | None, split: Split) -> Source | None:
    """One split as it came; None for a validation split, where the set has none of its own.

    Raises:
        ValueError: the set is not where it should be and cannot be downloaded, or `scan` refuses the folder.
    """
    name = resolve(dataset, root)
    if name == "folder":
        splits = scan(str(root)).splits
        return Source(*splits[split]) if split in splits else None
    if name in SCENES:
        scenes = Scenes(SCENES[name], *STREAMS[split])
        return Source(scenes, scenes.labels)
    if split == "val":
        return None
    return _digits(split) if name == "digits" else _torchvision(name, Path(root or DOWNLOADS), split)


def manifest(dataset: str | None, root: str | None) -> str:
    """SHA-256 that identifies a set wherever it lies.

    Of the classes, then labels and pixels of train, or for a folder the labels, names and sizes of all files.  Of
    generated pictures the first 256 stand for all, which the generator's version and the seeds decide.
    """
    name = resolve(dataset, root)
    digest = hashlib.sha256("\n".join(describe(dataset, root).classes).encode())
    if name in SCENES:
        scenes = Scenes(SCENES[name], STREAMS["train"][0], 256)
        digest.update(f"{scenes.task} {VERSION} {STREAMS}".encode())
        digest.update(scenes.labels.tobytes())
        digest.update(scenes.pictures(range(256)).tobytes())
        return digest.hexdigest()
    if name != "folder":
        source = load(dataset, root, "train")
        assert source is not None and isinstance(source.pictures, np.ndarray)
        digest.update(source.labels.tobytes())
        digest.update(np.ascontiguousarray(source.pictures).data)
        return digest.hexdigest()
    folder = scan(str(root))
    for split, (files, labels) in sorted(folder.splits.items()):
        for path, label in zip(files, labels.tolist(), strict=True):
            digest.update(
                f"\n{split} {label} {path.stat().st_size} {path.relative_to(folder.root).as_posix()}".encode()
            )
    return digest.hexdigest()


def _digits(split: Split) -> Source:
    """1,797 digits, of which a fixed stratified fifth is the test split."""
    from sklearn.datasets import load_digits  # a second of imports that only this set needs

    pixels, labels = load_digits(return_X_y=True)
    index = carve(labels, DIGITS_TEST_FRACTION, DIGITS_TEST_SEED)[split == "test"]
    pictures = np.rint(pixels.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    return Source(pictures[index], labels[index].astype(np.int64))


def _torchvision(name: str, root: Path, split: Split) -> Source:
    from torchvision import datasets

    make = vars(datasets)[TORCHVISION[name]]
    try:
        data = make(root, train=split == "train", download=False)
    except RuntimeError:  # torchvision's way to say that it is not there
        try:
            with _patience(seconds=30):
                data = make(root, train=split == "train", download=True)
        except (OSError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"data set {name!r} not found: looked for {root / ENTRIES[name].files}, and downloading it failed"
                f" ({reason}); --data.root names the folder it lies in"
            ) from error
    pictures = np.asarray(data.data)
    return Source(pictures.reshape(*pictures.shape[:3], -1), np.asarray(data.targets, dtype=np.int64))


@contextmanager
def _patience(seconds: float) -> Iterator[None]:
    """A limit on network silence: without it a blocked connection hangs for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
