"""Names, descriptions, and how each set arrives."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
from PIL import Image

from vit.data import catalog
from vit.data.catalog import SCENES, describe, load, manifest, preprocessing
from vit.data.scenes import Scenes
from vit.data.source import Source

SHARED = Path(__file__).parents[3] / "shared" / "data"


def folder(root: Path, colour: int = 0) -> Path:
    for name in ("a", "b"):
        for i in range(5):
            (root / name).mkdir(parents=True, exist_ok=True)
            Image.new("L", (9, 9), colour + i).save(root / name / f"{i}.png")
    return root


def test_defaults(tmp_path: Path):
    assert describe(None, None) == catalog.Description("digits", tuple("0123456789"), 1, (8, 8))
    mine = describe(None, str(folder(tmp_path / "mine")))
    assert mine == catalog.Description("mine", ("a", "b"), 3, (64, 64))
    assert describe("folder", str(tmp_path / "mine"), img_size=(32, 48), channels=1).img_size == (32, 48)


@pytest.mark.parametrize(("name", "count"), [("mnist", 10), ("fashion_mnist", 10), ("cifar10", 10), ("cifar100", 100)])
def test_known_sets_are_described_unseen(name: str, count: int, tmp_path: Path):
    description = describe(name, str(tmp_path / "absent"))
    assert len(set(description.classes)) == count and not (tmp_path / "absent").exists()
    assert list(description.classes) == sorted(description.classes) or name == "fashion_mnist"


def test_channels_and_size_can_be_changed():
    grey = preprocessing("cifar10", None, channels=1)
    assert grey.mean == pytest.approx((0.4734,), abs=1e-4) and grey.img_size == (32, 32)
    assert preprocessing("mnist", None, img_size=32, channels=3).std == (0.3081,) * 3


def test_mean_and_deviation_can_be_given():
    own = preprocessing("mnist", None, mean=[0.25], std=[0.5])
    assert (own.mean, own.std) == ((0.25,), (0.5,))
    assert preprocessing("mnist", None, channels=3, mean=[0.25]).mean == (0.25,) * 3
    assert preprocessing("mnist", None, mean=[0.25, 0.5, 0.75]).mean == (0.5,)
    with pytest.raises(ValueError, match=r"std must be above 0 in each channel, got \[0\.0\]"):
        preprocessing("mnist", None, std=[0.0])
    for nothing in ("mean", "std"):
        with pytest.raises(ValueError, match=rf"{nothing} must be .* each channel, got \[\]"):
            preprocessing("mnist", None, **{nothing: []})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fashion-mnist", None), "did you mean 'fashion_mnist'"),
        (("imagenet", None), "expected one of digits, mnist"),
        (("folder", None), "--data.root"),
        (("digits", "somewhere"), "read from no folder"),
        (("scenes_shape", "somewhere"), "'scenes_shape' is read from no folder, got root somewhere"),
        ((None, "no/such/folder"), "found nothing"),
        ((None, "no/such.csv"), "expected a CSV file"),
        ((None, "no/such.npz"), "expected an npz file"),
        (("npz", None), "'npz' needs its place: --data.root FILE"),
        (("mnist", None, 0), "0x0"),
        (("mnist", None, None, 0), "got 0"),
    ],
)
def test_bad_requests_are_one_line(arguments: tuple, message: str):
    with pytest.raises(ValueError, match=message) as caught:
        describe(*arguments)
    assert "\n" not in str(caught.value)


def test_digits_have_a_fixed_stratified_test_split():
    train, test = load("digits", None, "train"), load("digits", None, "test")
    assert train is not None and test is not None and load("digits", None, "val") is None
    assert (len(train), len(test)) == (1438, 359) and np.bincount(test.labels).min() >= 35
    assert isinstance(train.pictures, np.ndarray) and isinstance(test.pictures, np.ndarray)
    assert train.pictures.shape == (1438, 8, 8, 1) and train.pictures.max() == 255
    overlap = {p.tobytes() for p in train.pictures} & {p.tobytes() for p in test.pictures}
    assert not overlap
    entry = catalog.ENTRIES["digits"]
    assert train.pictures.mean() / 255 == pytest.approx(entry.mean[0], abs=1e-3)
    assert train.pictures.std() / 255 == pytest.approx(entry.std[0], abs=1e-3)


@pytest.mark.skipif(not (SHARED / "FashionMNIST" / "raw").is_dir(), reason="Fashion-MNIST is not beside the checkout")
def test_torchvision_sets_are_read_from_a_root_without_download():
    train, test = load("fashion_mnist", str(SHARED), "train"), load("fashion_mnist", str(SHARED), "test")
    assert train is not None and test is not None and isinstance(train.pictures, np.ndarray)
    assert train.pictures.shape == (60000, 28, 28, 1) and len(test) == 10000
    assert np.bincount(train.labels).tolist() == [6000] * 10
    assert train.pictures.mean() / 255 == pytest.approx(0.2860, abs=1e-3)


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_absent_and_no_network_is_one_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def blocked(*_: object, **__: object) -> None:
        raise URLError("network is unreachable")

    import torchvision.datasets

    for module in ("mnist", "cifar"):
        monkeypatch.setattr(
            sys.modules[f"{torchvision.datasets.__name__}.{module}"], "download_and_extract_archive", blocked
        )
    with pytest.raises(ValueError, match=r"downloading it failed.*unreachable") as caught:
        load(name, str(tmp_path), "train")
    assert str(tmp_path / catalog.ENTRIES[name].files) in str(caught.value) and "\n" not in str(caught.value)


def test_a_set_is_recognised_by_what_lies_there(tmp_path: Path):
    def name(root: Path) -> str:
        return catalog.resolve(None, str(root))

    mine = folder(tmp_path / "mine")
    assert name(mine) == name(tmp_path / "absent") == "folder"
    (mine / "notes.csv").write_text("when,what\n")
    assert name(mine) == "folder"
    (mine / "labels.csv").write_text("path,label\na/0.png,x\nb/0.png,y\n")
    assert name(mine) == name(mine / "labels.csv") == "csv" and describe(None, str(mine)).classes == ("x", "y")
    (tmp_path / "arrays").mkdir()
    np.savez(tmp_path / "arrays" / "some.npz", train_images=np.zeros((2, 3, 3), np.uint8), train_labels=np.arange(2))
    assert name(tmp_path / "arrays") == name(tmp_path / "arrays" / "some.npz") == "npz"
    assert describe(None, str(tmp_path / "arrays" / "some.npz")) == catalog.Description("some", ("0", "1"), 1, (3, 3))
    (tmp_path / "known" / "MNIST" / "raw").mkdir(parents=True)
    assert name(tmp_path / "known") == "mnist"
    (tmp_path / "known" / "cifar-10-batches-py").mkdir()
    with pytest.raises(ValueError, match=r"holds mnist and cifar10: --data.dataset names one"):
        name(tmp_path / "known")


def test_manifest_of_a_table_and_of_arrays(tmp_path: Path):
    mine = folder(tmp_path / "mine")
    (mine / "labels.csv").write_text("path,label\na/0.png,x\nb/0.png,y\n")
    first = manifest(None, str(mine))
    (mine / "labels.csv").write_text("path,label\na/0.png,y\nb/0.png,x\n")
    assert manifest(None, str(mine)) != first != manifest("folder", str(mine))
    images = np.zeros((4, 3, 3), np.uint8)
    np.savez(tmp_path / "one.npz", train_images=images, train_labels=np.arange(4) % 2)
    images[0, 0, 0] = 1
    np.savez(tmp_path / "two.npz", train_images=images, train_labels=np.arange(4) % 2)
    assert manifest(None, str(tmp_path / "one.npz")) != manifest(None, str(tmp_path / "two.npz"))


def test_manifest_identifies_the_set_not_its_place(tmp_path: Path):
    one = manifest(None, str(folder(tmp_path / "x" / "mine")))
    assert one == manifest("folder", str(folder(tmp_path / "y" / "mine")))
    assert len(one) == 64 and one != manifest(None, None) and manifest(None, None) == manifest("digits", None)
    Image.new("L", (50, 50)).save(tmp_path / "y" / "mine" / "a" / "0.png")
    assert one != manifest(None, str(tmp_path / "y" / "mine"))
    (tmp_path / "x" / "mine" / "a").rename(tmp_path / "x" / "mine" / "c")
    assert one != manifest(None, str(tmp_path / "x" / "mine"))


def test_manifest_covers_names_that_are_no_text(tmp_path: Path):
    root = folder(tmp_path / "x")
    before = catalog.manifest(None, str(root))
    picture = next(root.rglob("*.png"))
    picture.rename(picture.with_name(os.fsdecode(b"caf\xe9.png")))
    assert catalog.manifest(None, str(root)) != before


def test_manifest_sees_what_pictures_show(tmp_path: Path):
    """Two files of one size change places, and a large one its first or its last byte: nothing is renamed."""
    root = folder(tmp_path / "mine")
    large = root / "a" / "0.npy"
    np.save(large, np.zeros((300, 300), np.uint8))
    one, other = (root / name / "9.npy" for name in "ab")
    for value, path in enumerate((one, other)):
        np.save(path, np.full((9, 9), value, np.uint8))
    hashes = [manifest("folder", str(root))]
    content = one.read_bytes(), other.read_bytes()
    assert len(content[0]) == len(content[1])
    one.write_bytes(content[1])
    other.write_bytes(content[0])
    hashes.append(manifest("folder", str(root)))
    for place in (0, 128, -1):
        changed = bytearray(large.read_bytes())
        changed[place] ^= 1
        large.write_bytes(changed)
        hashes.append(manifest("folder", str(root)))
    assert len({*hashes}) == len(hashes)


@pytest.mark.parametrize("name", ["0.npy", "0.bmp", "0.TIF", "0.tiff"])
def test_manifest_sees_one_pixel_in_the_middle_of_a_large_file(tmp_path: Path, name: str):
    root, pixels = folder(tmp_path / "mine"), np.zeros((700, 1100, 3), np.uint8)
    large = root / "a" / name
    hashes, sizes = set(), set()
    for shade in (0, 1):
        pixels[350, 550] = shade
        np.save(large, pixels) if name.endswith("npy") else Image.fromarray(pixels).save(large)
        hashes.add(manifest("folder", str(root)))
        sizes.add(large.stat().st_size)
    assert len(hashes) == 2 and len(sizes) == 1 and sizes.pop() > 2 * 2**20


def test_manifest_of_a_table_knows_its_groups(tmp_path: Path):
    mine = folder(tmp_path / "mine")
    rows = [f"{name}/{i}.png,{name},{i}" for name in "ab" for i in range(5)]
    (mine / "labels.csv").write_text("\n".join(["path,label,group", *rows]))
    first = manifest(None, str(mine))
    (mine / "labels.csv").write_text("\n".join(["path,label,group", *rows[:-1], "b/4.png,b,3"]))
    assert manifest(None, str(mine)) != first


def test_manifest_covers_the_test_pictures(monkeypatch: pytest.MonkeyPatch):
    first, load_digits = manifest("digits", None), catalog.known.digits

    def changed(split: str) -> Source:
        source = load_digits(split)
        return replace(source, labels=source.labels[::-1].copy()) if split == "test" else source

    monkeypatch.setattr(catalog.known, "digits", changed)
    assert manifest("digits", None) != first


@pytest.mark.parametrize("name", SCENES)
def test_scenes_have_three_splits_without_a_picture_in_common(name: str):
    sources = [load(name, None, split) for split in ("train", "val", "test")]
    assert [len(source) for source in sources if source] == [1_000_000, 5_000, 10_000]
    drawn = []
    for source in sources:
        assert source is not None and isinstance(source.pictures, Scenes)
        assert np.bincount(source.labels).tolist() == [len(source) // 4] * 4
        drawn.append(source.pictures.pictures(range(1000)))
    assert len({picture.tobytes() for picture in np.concatenate(drawn)}) == 3000
    entry, values = catalog.ENTRIES[name], np.concatenate(drawn).reshape(-1, 3) / 255
    assert values.mean(0) == pytest.approx(entry.mean, abs=0.02)  # backgrounds differ much: 3,000 leave 0.005 of error
    assert values.std(0) == pytest.approx(entry.std, abs=0.01)
    assert len(describe(name, None).classes) == 4 and describe(name, None).img_size == (32, 32)


def test_manifest_of_scenes_draws_few_and_knows_the_generator(monkeypatch: pytest.MonkeyPatch):
    asked, original = [], Scenes.pictures
    monkeypatch.setattr(Scenes, "pictures", lambda self, which: asked.append(len(which)) or original(self, which))
    hashes = {manifest(name, None) for name in SCENES}
    assert len(hashes) == 3 and asked == [256] * 3
    monkeypatch.setattr(catalog, "VERSION", catalog.VERSION + 1)
    assert hashes.isdisjoint({manifest(name, None) for name in SCENES})
