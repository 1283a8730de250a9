"""A survey finds what was planted."""

import multiprocessing
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vit.data import catalog, survey
from vit.data.images import Bands
from vit.data.survey import Survey, look_at, workers


def picture(path: Path, colour: int, mode: str = "RGB", size: tuple[int, int] = (7, 5)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three classes: b/9 twice in train, a/0 in test as well under another class, c without a picture in test."""
    for label, name in enumerate("abc"):
        for i in range(4 + 4 * label):
            picture(tmp_path / "train" / name / f"{i}.png", 1000 * label + i)
    picture(tmp_path / "train" / "b" / "9.bmp", 1000)  # other bytes, the pixels of b/0
    picture(tmp_path / "test" / "b" / "x.png", 0)  # those of a/0
    picture(tmp_path / "test" / "a" / "y.png", 77, "L", (20, 30))
    (tmp_path / "train" / "c" / "0.png").write_bytes(b"no picture")
    (tmp_path / "train" / "c" / "notes.txt").touch()
    return tmp_path


def surveyed(root: Path) -> tuple[Survey, int]:
    listing = catalog.LAYOUTS["folder"](str(root))
    splits = {name: listing.splits[name] for name in ("train", "test")}
    steps = []
    with workers(splits) as pool:
        seen = look_at(splits, listing.root, lambda: steps.append(1), pool)
    return Survey("mine", listing.classes, tuple(splits), seen, listing.ignored), len(steps)


def test_many_files_are_read_in_processes_with_the_same_result(root: Path, monkeypatch: pytest.MonkeyPatch):
    frames = [Image.new("L", (6, 4), colour) for colour in (0, 99)]
    frames[0].save(root / "train" / "a" / "moving.gif", save_all=True, append_images=frames[1:])
    expected, steps = surveyed(root)
    used = multiprocessing.Value("i")
    decode = survey.decode

    def counted(path: Path, channels: int, value_range: None) -> Bands:
        with used.get_lock():
            used.value += multiprocessing.parent_process() is not None
        return decode(path, channels)

    monkeypatch.setattr(survey, "decode", counted)
    monkeypatch.setattr(survey, "MANY", 10)
    assert surveyed(root) == (expected, steps)
    assert used.value == steps == len(expected.seen)


def test_processes_end_with_their_parent(root: Path):
    code = f"""if True:
        import os
        from vit.data import catalog, survey
        survey.MANY = 1
        pool = survey.workers(catalog.LAYOUTS["folder"]({str(root)!r}).splits)
        print(pool.submit(os.getpid).result() != os.getpid(), flush=True)
        os._exit(0)
    """
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert ran.stdout == "True\n"  # and the pipe was closed, which each of the processes held open


def test_counts_and_facts(root: Path):
    found, steps = surveyed(root)
    assert steps == len(found.seen) == 4 + 9 + 12 + 2
    assert found.counts == {"train": [4, 9, 12], "test": [1, 1, 0]}
    assert found.imbalance == 3 and found.missing == [("test", "c")]
    facts = found.to_dict()
    assert facts["modes"] == {"PNG RGB": 24, "BMP RGB": 1, "PNG L": 1}
    assert facts["sizes"] == [[7, 5, 25], [20, 30, 1]] and facts["ignored"]["not a picture"] == 1


def test_what_cannot_be_read_is_named(root: Path):
    (bad,) = surveyed(root)[0].unreadable
    assert bad.name == "train/c/0.png" and bad.error.startswith("expected a picture (JPEG, ") and not bad.pixels


def test_a_damaged_array_is_named_as_decoding_names_it(tmp_path: Path):
    for name in ("a/0", "a/1", "b/0", "b/1"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        np.save(tmp_path / name, np.ones((4, 5)))
    whole = (tmp_path / "a" / "0.npy").read_bytes()
    (tmp_path / "a" / "0.npy").write_bytes(whole[:10] + b"{('descr'".ljust(len(whole) - 10))
    (bad,) = surveyed(tmp_path)[0].unreadable
    assert bad.name == "a/0.npy" and bad.error.startswith("cannot be read as a picture: ")


def test_an_array_is_read_as_training_reads_it(tmp_path: Path):
    arrays = {"a/0": np.ones((4, 5, 7)), "a/1": np.zeros(5), "b/0": np.zeros((4, 5)), "b/1": -np.ones((4, 5, 7))}
    for name, array in arrays.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        np.save(tmp_path / name, array)
    found, _ = surveyed(tmp_path)
    assert {picture.mode for picture in found.seen} == {"float64 (7 channels)", "float64 (1 channels)", ""}
    negative, flat = sorted(
        picture.error.partition("expected ")[2].partition(": --")[0] for picture in found.unreadable
    )
    assert (flat, negative) == ("numbers (h w) or (h w c), got float64 (5,)", "float64 values within 0..1, got -1..-1")


def test_duplicates_by_pixel_leaks_and_conflicts(root: Path):
    found, _ = surveyed(root)
    groups = {frozenset(picture.name for picture in group) for group in found.duplicates}
    assert groups == {
        frozenset({"train/b/0.png", "train/b/9.bmp"}),
        frozenset({"train/a/0.png", "test/b/x.png"}),
    }
    (leak,), (conflict,) = found.leaks, found.conflicts
    assert leak == conflict and {picture.split for picture in leak} == {"train", "test"}
    twice = next(group for group in found.duplicates if group not in (leak, conflict))
    assert twice[0].file != twice[1].file


def test_equal_files_that_cannot_be_read_are_duplicates_and_empty_ones_are_not(root: Path):
    for name, content in {"train/a/x": b"torn", "test/b/y": b"torn", "train/a/e": b"", "train/b/e": b""}.items():
        (root / f"{name}.png").write_bytes(content)
    found, _ = surveyed(root)
    assert {picture.name for group in found.leaks for picture in group} >= {"train/a/x.png", "test/b/y.png"}
    assert not any(picture.name.endswith("e.png") for group in found.duplicates for picture in group)


def test_what_train_has_twice_may_be_validated_on_unless_pictures_for_that_came(root: Path):
    found, _ = surveyed(root)
    assert [[picture.name for picture in group] for group in found.divisible] == [["train/b/0.png", "train/b/9.bmp"]]
    assert not replace(found, splits=("train", "val", "test")).divisible


def test_what_a_group_has_twice_is_not_divided(tmp_path: Path):
    lines = ["path,label,split,group"]
    train = [("a", "train", 9, "p"), ("b", "train", 9, "p"), ("a", "train", 7, "q"), ("b", "train", 7, "r")]
    for number, (label, split, colour, group) in enumerate([*train, ("a", "test", 3, "s"), ("b", "test", 4, "s")]):
        picture(tmp_path / f"{number}.png", colour)
        lines.append(f"{number}.png,{label},{split},{group}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    listing = catalog.LAYOUTS["csv"](str(tmp_path))
    with workers(listing.splits) as pool:
        seen = look_at(listing.splits, listing.root, lambda: None, pool)
    found = Survey("mine", listing.classes, tuple(listing.splits), seen, {})
    assert len(found.duplicates) == 2
    assert [[picture.name for picture in group] for group in found.divisible] == [["2.png", "3.png"]]


def test_arrays_without_a_test_split_are_named_by_their_rows(tmp_path: Path):
    images = np.arange(20, dtype=np.uint8).reshape(20, 1, 1).repeat(5, axis=1)
    np.savez(tmp_path / "x.npz", train_images=images, train_labels=np.arange(20) % 2)
    listing = catalog.LAYOUTS["npz"](str(tmp_path / "x.npz"))
    with workers(listing.splits) as pool:
        seen = look_at(listing.splits, tmp_path, lambda: None, pool)
    assert {picture.split for picture in seen} == {"train", "test"}
    assert sorted(picture.name for picture in seen) == sorted(f"#{row}" for row in range(20))
    assert all(picture.label == int(picture.name[1:]) % 2 for picture in seen)


def test_orientation_is_part_of_the_picture_and_size_of_the_file(tmp_path: Path):
    pixels = np.random.default_rng(0).integers(0, 255, (6, 9, 3), dtype=np.uint8)
    for name, degrees in (("a", 0), ("b", 90)):
        (tmp_path / "train" / name).mkdir(parents=True)
        (tmp_path / "test" / name).mkdir(parents=True)
        picture(tmp_path / "test" / name / "1.png", degrees)
        exif = Image.Exif()
        exif[0x0112] = {0: 1, 90: 6}[degrees]  # 6: turn by 90 degrees clockwise to see it upright
        Image.fromarray(np.rot90(pixels, degrees // 90)).save(tmp_path / "train" / name / "1.png", exif=exif)
    (group,) = surveyed(tmp_path)[0].duplicates
    assert {picture.size for picture in group} == {(9, 6), (6, 9)}


def test_arrays(tmp_path: Path):
    images = np.zeros((6, 4, 5, 3), np.uint8)
    images[:, 0, 0, 0] = [0, 1, 2, 3, 0, 4]
    np.savez(
        tmp_path / "some.npz",
        train_images=images[:4],
        train_labels=np.arange(4) % 2,
        test_images=images[4:],
        test_labels=np.arange(2),
    )
    listing = catalog.LAYOUTS["npz"](str(tmp_path / "some.npz"))
    with workers(listing.splits) as pool:
        seen = look_at(listing.splits, listing.root, lambda: None, pool)
    found = Survey("some", listing.classes, tuple(listing.splits), seen, {})
    assert [[picture.name for picture in group] for group in found.leaks] == [["#0", "#0"]]
    assert found.seen[0].size == (5, 4) and found.seen[0].mode == "uint8 (3 channels)"
