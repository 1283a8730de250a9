"""The files of predictions, and the options that say what is in them."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest

from vit.commandline.predictions import Predicted, included_of, write

CLASSES = ("cat", 'a "b", c', "鳥")
RANDOM = np.random.default_rng(0)


def predictions() -> list[Predicted]:
    """A file that cannot be read between two that can."""
    top = {"cat": 0.5, "鳥": 0.25}
    logits = RANDOM.normal(size=(2, 3)).astype("f4") * np.float32(10) ** np.array([[-30, 0, 30]], "f4")
    embeddings = RANDOM.normal(size=(2, 5)).astype("f4")
    one, other = (Predicted(f"{n}.png", "cat", 0.5, top, "", logits[n], embeddings[n]) for n in range(len(logits)))
    return [one, Predicted("bad.png", error="expected a picture, got text"), other]


def without(entries: list[Predicted], *names: str) -> list[Predicted]:
    return [entry._replace(**dict.fromkeys(names)) for entry in entries]


def test_json_comes_back_bit_for_bit(tmp_path: Path) -> None:
    given = predictions()
    write(tmp_path / "p.json", given, CLASSES)
    text = (tmp_path / "p.json").read_text()
    assert len(text.splitlines()) == 5, "a line for each picture"
    for entry, prediction in zip(json.loads(text), given, strict=True):
        for name in ("logits", "embedding"):
            numbers, expected = entry.pop(name), getattr(prediction, name)
            assert (numbers is None) == (expected is None)
            assert expected is None or np.array_equal(np.array(numbers, "f4"), expected)
        assert Predicted(**entry) == without([prediction], "logits", "embedding")[0]


def test_csv_comes_back_bit_for_bit(tmp_path: Path) -> None:
    given = predictions()
    write(tmp_path / "p.csv", given, CLASSES)
    with (tmp_path / "p.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    numbers = [*(f"logit_{name}" for name in CLASSES), *(f"embedding_{place}" for place in range(5))]
    assert rows[0] == ["file", "label", "probability", "label_2", "probability_2", "error", *numbers]
    assert {len(row) for row in rows} == {14}
    for row, prediction in zip(rows[1:], given, strict=True):
        assert row[0] == prediction.file and row[5] == prediction.error
        if prediction.error:
            assert row[6:] == [""] * 8
        else:
            expected = [*prediction.logits, *prediction.embedding]
            assert [np.float32(cell) for cell in row[6:]] == expected


@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_a_name_that_is_no_text_is_written(tmp_path: Path, suffix: str) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    write(tmp_path / f"p.{suffix}", [Predicted(name, "cat", 0.5, {"cat": 0.5}, "")], CLASSES)
    assert "caf\\udce9.png" in (tmp_path / f"p.{suffix}").read_text(encoding="utf-8")


@pytest.mark.parametrize("absent", [("logits",), ("embedding",), ("logits", "embedding")])
def test_what_was_not_asked_for_is_not_there(tmp_path: Path, absent: tuple[str, ...]) -> None:
    given = without(predictions(), *absent)
    write(tmp_path / "p.json", given, CLASSES)
    write(tmp_path / "p.csv", given, CLASSES)
    for entry in json.loads((tmp_path / "p.json").read_text()):
        assert entry.keys() == {*Predicted._fields} - {*absent}
    header = (tmp_path / "p.csv").read_text().splitlines()[0]
    assert ("logit_" in header, "embedding_" in header) == ("logits" not in absent, "embedding" not in absent)


def test_decimals_are_short(tmp_path: Path) -> None:
    write(tmp_path / "p.json", [Predicted("x", "cat", 0.5, {"cat": 0.5}, "", np.array([0.1], "f4"))], ("cat",))
    assert '"logits": [0.1]}' in (tmp_path / "p.json").read_text()


@pytest.mark.parametrize(
    ("given", "expected"),
    [(None, ()), ("logits", ("logits",)), ("embeddings, logits", ("embeddings", "logits"))],
)
def test_one_or_both_are_included(given: str | None, expected: tuple[str, ...]) -> None:
    assert included_of(given, Path("p.csv")) == expected


@pytest.mark.parametrize("given", ["probabilities", "logits,", "logits;embeddings", "embedding"])
def test_unknown_names_are_told(given: str) -> None:
    wrong = given.split(",")[-1]
    with pytest.raises(ValueError, match=f"^--include expects logits or embeddings, or both; got '{wrong}'$"):
        included_of(given, Path("p.csv"))


def test_numbers_need_a_file() -> None:
    with pytest.raises(ValueError, match=r"^--include logits expects a file for the numbers: --out predictions\.csv"):
        included_of("logits", None)
