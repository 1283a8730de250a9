"""Arrays in MedMNIST's layout."""

from pathlib import Path

import numpy as np
import pytest

from vit.data.arrays import scan, shape

RNG = np.random.default_rng(0)


def saved(root: Path, **arrays: np.ndarray) -> Path:
    np.savez(root / "some.npz", **arrays)  # pyright: ignore[reportArgumentType]
    return root / "some.npz"


def images(count: int, *rest: int) -> np.ndarray:
    return RNG.integers(0, 256, (count, *rest), dtype=np.uint8)


def test_splits_shapes_and_class_names(tmp_path: Path):
    train, test = images(6, 5, 7), images(3, 5, 7)
    labels = np.array([[2], [10], [2], [10], [2], [5]])
    path = saved(tmp_path, train_images=train, train_labels=labels, test_images=test, test_labels=np.array([5, 2, 10]))
    listing = scan(path)
    assert listing.classes == ("2", "5", "10") and listing.splits.keys() == {"train", "test"}
    assert listing.splits["train"].labels.tolist() == [0, 2, 0, 2, 0, 1]
    assert listing.splits["test"].labels.tolist() == [1, 0, 2]
    assert np.array_equal(listing.splits["train"].pictures, train[..., None])
    assert shape(path) == shape(tmp_path) == (5, 7, 1) and scan(tmp_path).classes == listing.classes


def test_without_test_images_a_fixed_fifth_is_test(tmp_path: Path):
    path = saved(tmp_path, train_images=images(50, 4, 4, 3), train_labels=np.arange(50) % 2)
    splits = scan(path).splits
    assert {split: np.bincount(source.labels).tolist() for split, source in splits.items()} == {
        "train": [20, 20],
        "test": [5, 5],
    }
    assert shape(path) == (4, 4, 3)


def test_a_changed_file_is_read_again(tmp_path: Path):
    scan(saved(tmp_path, train_images=images(4, 3, 3), train_labels=np.array([0, 1, 0, 1])))
    again = scan(saved(tmp_path, train_images=images(6, 3, 3), train_labels=np.array([0, 1, 2, 0, 1, 2])))
    assert again.classes == ("0", "1", "2")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"train_images": images(2, 3, 3)}, "train_labels, found train_images$"),
        (
            {"train_images": images(2, 3), "train_labels": np.arange(2)},
            r"train_images \(n h w\) or \(n h w c\), got \(2, 3\)",
        ),
        ({"train_images": images(2, 3, 3), "train_labels": np.arange(3)}, r"each of 2 images, got int64 \(3,\)"),
        ({"train_images": images(2, 3, 3), "train_labels": np.eye(2, dtype=int)}, r"got int64 \(2, 2\)"),
        ({"train_images": images(2, 3, 3), "train_labels": np.ones(2)}, r"got float64 \(2,\)"),
        ({"train_images": images(2, 3, 3), "train_labels": np.array([1, 1])}, "two classes in train, found 1"),
        ({"train_images": np.array([None, 1]), "train_labels": np.arange(2)}, "cannot be read as npz of plain arrays"),
        (
            {
                "train_images": images(2, 3, 3),
                "train_labels": np.arange(2),
                "val_images": images(1, 3, 3),
                "val_labels": np.array([7]),
            },
            "class 7 of val is not a training class, expected one of 0, 1",
        ),
    ],
)
def test_bad_arrays(tmp_path: Path, arrays: dict[str, np.ndarray], message: str):
    path = saved(tmp_path, **arrays)
    with pytest.raises(ValueError, match=message) as caught:
        scan(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_classes_are_named_where_names_came(tmp_path: Path):
    known = {"train_images": images(4, 3, 3), "train_labels": np.array([0, 2, 2, 0])}
    assert scan(saved(tmp_path, **known, classes=np.array(["cat", "dog", "owl"]))).classes == ("cat", "owl")
    for wrong in (np.array(["cat", "dog"]), np.array(["cat", "dog", "cat"]), np.arange(3), np.array("cat")):
        with pytest.raises(ValueError, match=r"expected classes, a name of its own for each label up to 2, got"):
            scan(saved(tmp_path, **known, classes=wrong))


def test_no_file_and_no_zip(tmp_path: Path):
    with pytest.raises(ValueError, match="expected an npz file"):
        scan(tmp_path / "absent.npz")
    (tmp_path / "text.npz").write_text("no zip")
    with pytest.raises(ValueError, match="cannot be read as npz"):
        scan(tmp_path / "text.npz")
    assert shape(tmp_path / "text.npz") is None and shape(tmp_path / "absent.npz") is None
