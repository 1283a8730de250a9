"""A folder of class folders: one class map, by name; everything else is an error or is counted."""

from pathlib import Path

import numpy as np
import pytest

from vit.data import catalog
from vit.data.folder import expand, scan, unlabelled


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def held(root: Path, split: str) -> set[tuple[str, int]]:
    source = scan(root).splits[split]
    pairs = zip(source.pictures, source.labels.tolist(), strict=True)  # pyright: ignore[reportArgumentType]
    return {(path.relative_to(root).as_posix(), label) for path, label in pairs}


def test_flat_folder_gives_a_fixed_stratified_test_split(tmp_path: Path):
    touch(tmp_path, *[f"{name}/{i}.png" for name in ("10", "9", "b ö") for i in range(20)])
    folder = scan(tmp_path)
    assert folder.classes == ("9", "10", "b ö")
    assert np.bincount(folder.splits["test"].labels).tolist() == [4, 4, 4]
    assert np.bincount(folder.splits["train"].labels).tolist() == [16, 16, 16]
    assert len({path for source in folder.splits.values() for path in source.pictures}) == 60
    assert held(tmp_path, "test") == held(tmp_path, "test")


def test_splits_are_matched_by_name(tmp_path: Path):
    touch(tmp_path, "train/a/1.png", "train/b/1.png", "train/c/1.JPG", "val/c/7.png", "test/b/8.png", "test/c/9.png")
    folder = scan(tmp_path)
    assert folder.classes == ("a", "b", "c") and folder.splits.keys() == {"train", "val", "test"}
    assert held(tmp_path, "val") == {("val/c/7.png", 2)}
    assert held(tmp_path, "test") == {("test/b/8.png", 1), ("test/c/9.png", 2)}


def test_test_is_carved_where_only_val_has_a_folder(tmp_path: Path):
    touch(tmp_path, *[f"train/{c}/{i}.png" for c in "ab" for i in range(10)], "val/a/1.png")
    sizes = {split: len(source) for split, source in scan(tmp_path).splits.items()}
    assert sizes == {"train": 16, "val": 1, "test": 4}


def test_a_class_may_be_called_train(tmp_path: Path):
    touch(tmp_path, "train/1.png", "bus/1.png")
    assert scan(tmp_path).classes == ("bus", "train")


def test_what_is_not_a_picture_is_counted(tmp_path: Path):
    touch(
        tmp_path, "a/1.png", "a/._1.png", "a/.ipynb_checkpoints/1-copy.png", "a/notes.txt", "a/deeper/2.png", "b/1.png"
    )
    touch(tmp_path, ".ipynb_checkpoints/x.png", "README.md", "__MACOSX/a/1.png")
    (tmp_path / "b" / "folder.png").mkdir()
    folder = scan(tmp_path)
    assert folder.classes == ("a", "b")
    assert folder.ignored == {"hidden": 4, "not a picture": 2, "folder": 2}
    assert sum(map(len, folder.splits.values())) == 2


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "an empty folder"),
        (["1.png", "2.png"], "2 files but no folder; without labels, pretraining takes -c data/unlabelled$"),
        (["a/1.png", "a/2.png"], "at least two class folders, found one: a; without labels, .* -c data/unlabelled$"),
        (["a/1.png", "b/notes.txt"], r"b: expected pictures .* found none"),
        (
            ["a/x/1.png", "a/y/1.png"],
            r"found folders: if x, y are the classes, --data\.root .*a$",
        ),
        (["val/a/1.png", "test/a/1.png"], "val and test but no train"),
        (["train/a/1.png", "train/b/1.png", "val/B/1.png"], r"val: has classes .* not have: 'B'; expected a, b"),
        (["train/a/1.png", "train/b/1.png", "test/c/1.png", "test/d/1.png"], r"test: has classes .* have: 'c', 'd';"),
    ],
)
def test_bad_folders(tmp_path: Path, names: list[str], message: str):
    touch(tmp_path, *names)
    with pytest.raises(ValueError, match=message) as caught:
        scan(tmp_path)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_no_folder(tmp_path: Path):
    with pytest.raises(ValueError, match="found nothing"):
        scan(tmp_path / "absent")
    touch(tmp_path, "file")
    with pytest.raises(ValueError, match="found a file"):
        scan(tmp_path / "file")


def test_pictures_without_labels_are_one_class_to_train_on(tmp_path: Path):
    names = ["2.png", "9/1.png", "10.JPG", "10/a/3.npy"]
    touch(tmp_path, *names, ".no/4.png", "10/.5.png", "10/notes.txt")
    found = unlabelled(tmp_path)
    assert found.classes == ("unlabelled",) and found.splits.keys() == {"train"} and found.root == tmp_path
    train = found.splits["train"]
    paths = [path.relative_to(tmp_path).as_posix() for path in train.pictures]  # pyright: ignore[reportGeneralTypeIssues]
    assert paths == ["2.png", "9/1.png", "10.JPG", "10/a/3.npy"] and train.labels.tolist() == [0] * 4
    assert found.ignored == {"hidden": 2, "not a picture": 1}
    described = catalog.describe("unlabelled", str(tmp_path))
    assert described == catalog.Description(tmp_path.name, ("unlabelled",), 3, (64, 64))
    assert catalog.preprocessing("unlabelled", str(tmp_path)).mean == (0.485, 0.456, 0.406)


def test_pictures_without_labels_are_identified_as_files_are(tmp_path: Path):
    touch(tmp_path, "1.png", "a/2.png")
    first = catalog.identify("unlabelled", str(tmp_path))
    assert first.prints.keys() == {"train"} and len(first.prints["train"].values) == 2
    (tmp_path / "a" / "2.png").write_bytes(b"other")
    second = catalog.manifest("unlabelled", str(tmp_path))
    (tmp_path / "a" / "2.png").rename(tmp_path / "2.png")
    assert len({first.manifest_hash, second, catalog.manifest("unlabelled", str(tmp_path))}) == 3


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("absent", "expected a folder of pictures, found nothing"),
        ("some/notes.txt", "expected a folder of pictures, found a file"),
        ("some", r"expected pictures in it or below \(.*\.png.*\), found none among 1 files"),
        ("empty", "found no file"),
    ],
)
def test_no_pictures_to_pretrain_on(tmp_path: Path, place: str, message: str):
    touch(tmp_path, "some/notes.txt", "some/.1.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=message) as caught:
        unlabelled(tmp_path / place)
    assert str(tmp_path / place) in str(caught.value) and "\n" not in str(caught.value)


def test_pictures_without_labels_are_named_as_such_whatever_their_folder_is_called(tmp_path: Path):
    touch(tmp_path / "my.unlabelled", "a/1.png", "b/1.png")
    assert catalog.resolve(None, str(tmp_path / "my.unlabelled")) == "folder"
    with pytest.raises(ValueError, match=r"'unlabelled' needs its place: --data\.root FOLDER"):
        catalog.resolve("unlabelled", None)


def test_expand_files_folders_and_patterns(tmp_path: Path):
    touch(
        tmp_path,
        ".hidden/p/9.png",
        ".hidden/p/10.png",
        ".hidden/p/deep/1.jpg",
        ".hidden/p/.no/2.png",
        ".hidden/p/x.txt",
    )
    root = tmp_path / ".hidden" / "p"
    everything = [root / "9.png", root / "10.png", root / "deep" / "1.jpg"]
    with pytest.warns(UserWarning, match=r"p: passed over, being no pictures that vit reads: 1 \.txt$"):
        assert expand([str(root)]) == everything
    assert expand([str(root / "*.png")]) == everything[:2]
    (root / "x.txt").unlink()
    assert expand([str(root / "10.png"), str(root)]) == [everything[1], everything[0], everything[2]]
    touch(root, "x.txt")
    assert expand([str(root / "x.txt")]) == [root / "x.txt"]  # named by the user: the decoder will say what it is
    for absent in (root / "absent.png", root / "*.gif", root / ".no" / "empty"):
        with pytest.raises(ValueError, match="found none"):
            expand([str(absent)])
