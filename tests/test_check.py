"""`vit check`: the report on the terminal, in JSON and as a picture."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vit import cli


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes in three splits; one picture of train is in test too."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 9), ("val", 2), ("test", 3)):
        for name in ("cat", "dög [x]"):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for i in range(count if name == "cat" else 2):
                Image.fromarray(rng.integers(0, 255, (9, 12, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    (tmp_path / "data" / "test" / "cat" / "0.png").write_bytes((tmp_path / "data/train/cat/3.png").read_bytes())
    return tmp_path / "data"


def test_the_report(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    table, sheet = tmp_path / "check.json", tmp_path / "samples.png"
    assert cli.main(["check", str(root), "--json", str(table), "--picture", str(sheet)]) == 0
    said = capsys.readouterr().out
    assert "data: 20 pictures" in said and "│ dög [x] │ 2 " in said and "width x height: 12x9 to 12x9" in said
    assert "smallest class to train on: dög [x], 2; the largest has 4.5 times as many" in said
    assert "same picture in several splits (leak): 1\n  train/cat/3.png (train), test/cat/0.png (test)" in said
    assert "unreadable: none" in said and "same picture in several classes: none" in said
    facts = json.loads(table.read_text())
    assert facts["counts"] == {"train": [9, 2], "val": [2, 2], "test": [3, 2]}
    assert facts["leaks"] == [["train/cat/3.png (train)", "test/cat/0.png (test)"]]
    with Image.open(sheet) as picture:
        assert picture.format == "PNG" and picture.width > 300


def test_pictures_without_labels_are_looked_through(root: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["check", f"data/unlabelled={root}", "--strict"]) == 0
    said = capsys.readouterr().out
    assert "data: 20 pictures" in said and "│ unlabelled │ 20 " in said and "smallest class" not in said
    assert "same picture more than once: 1" in said


def test_strict_fails_on_leaks_only(root: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["check", "--strict", str(root)]) == 1
    (root / "test" / "cat" / "0.png").unlink()
    assert cli.main(["check", str(root), "--strict"]) == 0
    assert "(leak): none" in capsys.readouterr().out


def test_a_known_set_and_what_cannot_be_checked(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["check", "digits"]) == 0
    assert "digits: 1,797 pictures" in capsys.readouterr().out
    for args, words in (
        (["scenes_shape"], "scenes_shape is generated"),
        ([], "[--strict], got nothing"),
        (["absent"], "found nothing"),
    ):
        assert cli.main(["check", *args]) == 2
        assert words in capsys.readouterr().err


def test_pictures_of_five_channels_are_looked_at_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(3):
            pixels = np.random.default_rng(number + 3 * (name == "b")).integers(0, 255, (7, 11, 5), dtype=np.uint8)
            np.save(tmp_path / "data" / name / f"{number}.npy", pixels)
    (tmp_path / "data" / "a" / "empty.npy").touch()
    (tmp_path / "data" / "b" / "zip.npy").write_bytes(b"PK\x03\x04 and so on")
    assert cli.main(["check", str(tmp_path / "data"), "--picture", str(tmp_path / "sheet.png")]) == 0
    out = capsys.readouterr().out
    assert "uint8 (5 channels) 6" in out and "a/empty.npy: " in out and "b/zip.npy: " in out
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size[0] > 100


@pytest.fixture(params=["npy", "npz"])
def counted(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Whole numbers of 32 bits up to 4095, as files or as arrays: nothing says which of them is white."""
    images = np.full((8, 7, 11), 4095, np.int32)
    images[:, 0] = np.arange(8)[:, None]
    if request.param == "npz":
        np.savez(tmp_path / "x-ray.npz", train_images=images, train_labels=np.arange(8) % 2)
        return tmp_path / "x-ray.npz"
    for number, picture in enumerate(images):
        (tmp_path / "data" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / "data" / "ab"[number % 2] / f"{number}.npy", picture)
    return tmp_path / "data"


def test_pixels_are_read_within_the_range_that_is_given(counted: Path, tmp_path: Path, capsys) -> None:
    sheet = tmp_path / "sheet.png"
    assert cli.main(["check", str(counted)]) == 0
    assert "unreadable: 8" in (said := capsys.readouterr().out) and "expected a range for int32 values" in said
    assert cli.main(["check", str(counted), "--value_range", "[0,4095]", "--picture", str(sheet)]) == 0
    assert "unreadable: none" in (said := capsys.readouterr().out) and "int32 (1 channels) 8" in said
    with Image.open(sheet) as picture:
        assert (np.asarray(picture.convert("L")) == 0).sum() > 1000  # the row of black in each
    assert cli.main(["check", str(counted), "--value_range=0,4000"]) == 0
    assert "unreadable: 8" in (said := capsys.readouterr().out) and "within 0..4000, got" in said


@pytest.mark.parametrize(
    ("given", "words"), [("4095", "black and white (0,4095), got '4095'"), ("4,4", "black and white, got (4.0, 4.0)")]
)
def test_a_range_has_two_ends(root: Path, given: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", str(root), "--value_range", given]) == 2
    assert words in capsys.readouterr().err
