"""Pictures of one set are found in another, wherever both lie, and nothing else is."""

from pathlib import Path

import numpy as np
import pytest

from vit.data import catalog
from vit.data.prints import ENDS, Prints, contents, joined


def flat(root: Path, counts: dict[str, int], first: int = 0) -> Path:
    """Class folders of arrays that differ in one value."""
    for label, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for number in range(count):
            np.save(root / name / f"{number}.npy", np.full((3, 5), first + 20 * label + number, np.uint8))
    return root


def test_files_are_known_by_their_content_alone(tmp_path: Path) -> None:
    one = [tmp_path / f"{number}.jpg" for number in range(5)]
    for number, path in enumerate(one):
        path.write_bytes(bytes([number]) * 100)
    one[1].write_bytes(bytes(ENDS) + b"x" + bytes(2 * ENDS))  # of a large compressed file the middle is not looked at
    other = [tmp_path / "copy.png", tmp_path / "longer.jpg", tmp_path / "middle.jpg"]
    other[0].write_bytes(bytes([3]) * 100)
    other[1].write_bytes(bytes([2]) * 101)
    other[2].write_bytes(bytes(ENDS) + b"y" + bytes(2 * ENDS))
    first, second = (Prints.of_files(contents(paths)) for paths in (one, other))
    assert first.kind == "files" and first.values.dtype == np.uint64 and len(first.values) == 5
    assert second.among(first).tolist() == [0, 2] and first.among(second).tolist() == [1, 3]
    assert joined([second, first]).among(second).tolist() == [0, 1, 2, 4, 6]


def test_a_file_that_cannot_be_read_is_known_by_its_name_and_the_error(tmp_path: Path) -> None:
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "there.jpg").write_bytes(b"x")
        (tmp_path / folder / "gone.jpg").symlink_to(tmp_path / "nowhere")
        (tmp_path / folder / "lost.jpg").symlink_to(tmp_path / "nowhere")
        (tmp_path / folder / "folder.jpg").mkdir()
    names = ["there.jpg", "gone.jpg", "lost.jpg", "folder.jpg"]
    one, other = (contents([tmp_path / folder / name for name in names]) for folder in ("one", "other"))
    assert one == other and len(set(one)) == 4
    (tmp_path / "other" / "gone.jpg").unlink()
    (tmp_path / "other" / "gone.jpg").mkdir()
    assert contents([tmp_path / "other" / "gone.jpg"]) != one[1:2]


def test_arrays_are_known_by_their_values() -> None:
    pictures = np.arange(5 * 2 * 3, dtype=np.uint8).reshape(5, 2, 3)
    assert Prints.of_arrays(pictures[::-1]).among(Prints.of_arrays(pictures[1:3])).tolist() == [2, 3]


def test_a_set_without_splits_can_be_taken_whole(tmp_path: Path) -> None:
    root = flat(tmp_path / "flat", {"a": 7, "b": 5})
    source, prints = catalog.whole(None, str(root)), catalog.identify(None, str(root)).prints
    assert sorted(source.pictures) == sorted(root.rglob("*.npy")) and source.labels.tolist().count(1) == 5
    assert [path.parent.name for path in source.pictures] == ["ab"[label] for label in source.labels]
    assert not source.drawn and prints.keys() == {"train", "test"}
    assert (joined([prints["train"], prints["test"]]).values == Prints.of_files(contents(source.pictures)).values).all()


def test_arrays_without_splits_too(tmp_path: Path) -> None:
    images, labels = np.arange(10 * 4, dtype=np.uint8).reshape(10, 2, 2), np.arange(10) % 2
    np.savez(tmp_path / "flat.npz", train_images=images, train_labels=labels)
    source = catalog.whole(None, str(tmp_path / "flat.npz"))
    order = source.pictures[:, 0, 0, 0] // 4
    assert sorted(order) == list(range(10)) and (labels[order] == source.labels).all()


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_set_with_splits_is_not_taken_whole(tmp_path: Path, split: str) -> None:
    for part in ("train", split):
        flat(tmp_path / "set" / part, {"a": 3, "b": 3})
    with pytest.raises(ValueError, match="set has splits of its own: expected a set without"):
        catalog.whole(None, str(tmp_path / "set"))
