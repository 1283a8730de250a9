"""Known data sets: facts of each that need no reading, and how torchvision's and scikit-learn's are read."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vit.data.scenes import CLASSES, SIDE, Task
from vit.data.source import Source
from vit.data.subset import carve

DIGITS_TEST_FRACTION, DIGITS_TEST_SEED = 0.2, 0
SCENES: dict[str, Task] = {"scenes_texture": "texture", "scenes_shape": "shape", "scenes_relation": "relation"}
SPREAD: dict[Task, float] = {"texture": 0.285, "shape": 0.285, "relation": 0.124}  # of a channel
OWN = ("folder", "csv", "npz", "unlabelled")
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
    # Of what a user brings the mean and std of ImageNet; the side of an npz is its own.
    **dict.fromkeys(OWN, Entry("", 64, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))),
}
TORCHVISION = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "cifar10": "CIFAR10", "cifar100": "CIFAR100"}


def digits(split: str) -> Source:
    """1,797 digits, of which a fixed stratified fifth is the test split."""
    from sklearn.datasets import load_digits  # a second of imports that only this set needs

    pixels, labels = load_digits(return_X_y=True)
    index = carve(labels, DIGITS_TEST_FRACTION, DIGITS_TEST_SEED)[split == "test"]
    pictures = np.rint(pixels.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    return Source(pictures[index], labels[index].astype(np.int64))


def torchvision(name: str, root: Path, split: str) -> Source:
    """A set of torchvision's, downloaded to ``root`` where it is not there yet.

    Raises:
        ValueError: it is not there and cannot be downloaded.
    """
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
