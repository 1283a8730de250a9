"""A folder of class folders: one class map, by name; everything else is an error or is counted."""

from pathlib import Path

import numpy as np
import pytest

from vit.data.folder import expand, scan


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
        (["1.png", "2.png"], "2 files but no folder"),
        (["a/1.png", "a/2.png"], "at least two class folders, found one: a"),
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
