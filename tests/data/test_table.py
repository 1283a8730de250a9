"""A CSV of pictures: every line is taken, or refused with its number."""

from pathlib import Path

import numpy as np
import pytest

from vit.data.module import Images
from vit.data.table import find, scan


def table(root: Path, *lines: str, header: str = "path,label", touch: bool = True) -> Path:
    """A table of these lines, and an empty file for the first entry of each."""
    root.mkdir(parents=True, exist_ok=True)
    for line in lines if touch else ():
        (root / line.partition(",")[0].strip()).touch()
    path = root / "labels.csv"
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def names(root: Path, split: str) -> list[tuple[str, int]]:
    source = scan(root).splits[split]
    return [(path.name, label) for path, label in zip(source.pictures, source.labels.tolist(), strict=True)]  # pyright: ignore


def test_splits_of_a_table_are_taken_as_they_are(tmp_path: Path):
    lines = ["1.png,cat,train", "2.png,dog 10,train", "3.png,dog 9,train", "4.png,cat,val", "5 ö.png,dog 10,test"]
    root = table(tmp_path, *lines, header="path,label,split")
    listing = scan(root)
    assert listing.classes == ("cat", "dog 9", "dog 10") and listing.root == tmp_path
    assert names(tmp_path, "train") == [("1.png", 0), ("2.png", 2), ("3.png", 1)]
    assert names(tmp_path, "val") == [("4.png", 0)] and names(tmp_path, "test") == [("5 ö.png", 2)]


def test_columns_come_in_any_order_and_a_byte_order_mark_is_no_part_of_one(tmp_path: Path):
    path = table(tmp_path, touch=False)
    for name in ("1.png", "2.png"):
        (tmp_path / name).touch()
    path.write_text("﻿age,label,path\n3,a, 1.png\n4,b,2.png\n", encoding="utf-8")
    assert find(tmp_path) == path and scan(path).classes == ("a", "b")


def test_without_splits_a_fixed_stratified_fifth_is_test(tmp_path: Path):
    path = table(tmp_path, *[f"{i}.png,{'ab'[i % 2]}" for i in range(40)])
    counts = {split: np.bincount(source.labels).tolist() for split, source in scan(path).splits.items()}
    assert counts == {"train": [16, 16], "test": [4, 4]}
    assert names(tmp_path, "test") == names(tmp_path, "test")


def test_a_patient_is_on_one_side(tmp_path: Path):
    lines = [f"{i}.png,{'ab'[i % 2]},p{i // 5}" for i in range(100)]
    splits = scan(table(tmp_path, *lines, header="path,label,group")).splits
    train, test = splits["train"].groups, splits["test"].groups
    assert train is not None and test is not None and not {*train} & {*test}
    assert len(train) + len(test) == 100 and 15 <= len(test) <= 25


@pytest.mark.parametrize(
    ("header", "lines", "message"),
    [
        ("file,label", ["1.png,a"], "expected columns path and label, got file, label"),
        ("path,label", ["1.png,a", "2.png,"], "labels.csv:3: expected a label, got nothing"),
        (
            "path,label",
            ["1.png,a", "2.txt,b"],
            r"labels.csv: expected a picture .* found none in 1 of 2: .*2.txt \(line 3\)",
        ),
        (
            "path,label",
            ["1.png,a", "2.png,b", "./1.png,b"],
            "labels.csv:4: .*1.png is listed already, at .*labels.csv:2",
        ),
        ("path,label", ["1.png,a", "2.png,a"], "expected at least two classes to train on, found a"),
        (
            "path,label,split",
            ["1.png,a,train", "2.png,b,dev"],
            "labels.csv:3: expected a split of train, val, test, got 'dev'",
        ),
        ("path,label,split", ["1.png,a,train", "2.png,b,"], "labels.csv:3: expected a split, got nothing"),
        ("path,label,split", ["1.png,a,test", "2.png,b,val"], "two classes to train on, found no picture"),
        (
            "path,label,split",
            ["1.png,a,train", "2.png,b,train", "3.png,c,test", "4.png,d,test", "5.png,c,test"],
            r"labels.csv: in test are classes .* not have: 'c' \(line 4\), 'd' \(line 5\); expected a, b",
        ),
        (
            "path,label,split,group",
            ["1.png,a,train,p", "2.png,b,train,q", "3.png,a,test,p"],
            "labels.csv:4: group 'p' is in test, and in train at .*labels.csv:2",
        ),
    ],
)
def test_bad_tables(tmp_path: Path, header: str, lines: list[str], message: str):
    path = table(tmp_path, *lines, header=header)
    with pytest.raises(ValueError, match=message) as caught:
        scan(path)
    assert "\n" not in str(caught.value)


def test_groups_of_which_none_can_be_held_out_are_named_as_the_reason(tmp_path: Path):
    lines = [f"{name}{i}.png,{name},p{name}" for name in "ab" for i in range(5)]
    path = table(tmp_path, *lines, header="path,label,group")
    with pytest.raises(ValueError, match=r"labels.csv: nothing to test on: no group can be held out .*a, b.* split$"):
        scan(path)
    lines = [f"{name}{i}.png,{name},train,p{name}" for name in "ab" for i in range(5)]
    path = table(tmp_path, *lines, "t.png,a,test,q", header="path,label,split,group")
    with pytest.raises(ValueError, match=r"nothing to validate on: no group can be held out .* give rows of val"):
        Images(root=str(path)).setup("fit")


def test_missing_files_are_named(tmp_path: Path):
    path = table(tmp_path, "absent.png,a", "gone.png,b", touch=False)
    with pytest.raises(ValueError, match=r"labels.csv: .* in 2 of 2: .*absent.png \(line 2\), .*gone.png \(line 3\)"):
        scan(path)


def test_of_several_tables_one_has_to_be_named(tmp_path: Path):
    table(tmp_path, "1.png,a", "2.png,b")
    (tmp_path / "notes.csv").write_text("when,what\n")
    assert find(tmp_path) == tmp_path / "labels.csv"
    (tmp_path / "more.csv").write_text("path,label\n")
    with pytest.raises(ValueError, match=r"found the tables labels.csv, more.csv: --data.root names one"):
        find(tmp_path)


def test_another_table_with_an_endless_field_is_passed_over(tmp_path: Path):
    path = table(tmp_path, "1.png,a", "2.png,b")
    (tmp_path / "another.csv").write_text("x" * 200_000 + ",y\n")
    assert find(tmp_path) == path
