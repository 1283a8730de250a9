"""A CSV file of pictures: columns path and label, and optionally split and group."""

import csv
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vit.data.images import SUFFIXES
from vit.data.listing import Listing, natural, shown, with_test
from vit.data.source import Source

SPLITS = ("train", "val", "test")
NEEDED = {"path", "label"}


class Row(NamedTuple):
    """A line of the table: ``where`` names it in messages; ``group`` is "" where there is none."""

    where: str
    path: Path
    label: str
    split: str
    group: str


def find(folder: Path) -> Path | None:
    """The table in a folder: the one CSV file with the columns of one.

    Raises:
        ValueError: there are several.
    """
    tables = [path for path in sorted(folder.glob("*.csv")) if set(_columns(path)) >= NEEDED]
    if len(tables) > 1:
        raise ValueError(f"{folder}: found the tables {shown([path.name for path in tables])}: --data.root names one")
    return tables[0] if tables else None


def scan(root: str | Path) -> Listing:
    """List the pictures of a table; none is opened.

    Paths are relative to the table's folder. Without a column ``split``, test is a fixed stratified fifth; without
    rows of ``val``, the data module holds some of train out. Pictures of one ``group`` (a patient, a video) stay
    together in either case, and a table that splits one is refused.

    Raises:
        ValueError: no such table, column, value or file; a picture listed twice; the message names the line.
    """
    root = Path(root)
    path = find(root) if root.is_dir() else root
    if path is None or not path.is_file():
        raise ValueError(f"{root}: expected a CSV file with columns path and label, found none")
    rows = list(_rows(path))
    _check_pictures(path, rows)
    _check_unique(rows)
    train = [row for row in rows if row.split == "train"]
    classes = tuple(sorted({row.label for row in train}, key=natural))
    if len(classes) < 2:
        raise ValueError(f"{path}: expected at least two classes to train on, found {shown(classes) or 'no picture'}")
    numbers = {name: number for number, name in enumerate(classes)}
    _check_groups(rows)
    splits = {}
    for split in SPLITS:
        mine = [row for row in rows if row.split == split]
        unknown: dict[str, str] = {}
        for row in mine:
            if row.label not in numbers:
                unknown.setdefault(row.label, row.where.rpartition(":")[2])
        if unknown:
            first = [f"{label!r} (line {line})" for label, line in unknown.items()]
            raise ValueError(
                f"{path}: in {split} are classes that train does not have: {shown(first)}; expected {shown(classes)}"
            )
        if mine:
            labels = np.array([numbers[row.label] for row in mine], dtype=np.int64)
            groups = np.array([row.group for row in mine]) if any(row.group for row in mine) else None
            splits[split] = Source([row.path for row in mine], labels, groups)
    drawn = with_test(splits)
    if splits["train"].groups is not None and not len(drawn["test"]):
        raise ValueError(
            f"{path}: nothing to test on: no group can be held out and leave every class one to train on"
            f" (classes: {shown(classes)}); give more groups or a column split"
        )
    return Listing(path.parent, classes, drawn, Counter())


def _columns(path: Path) -> list[str]:
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        try:
            return next(csv.reader(file), [])
        except csv.Error:  # of a field that is longer than any of ours: another's file
            return []


def _rows(path: Path) -> Iterator[Row]:
    """Each line, checked by itself."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, strict=True)
        columns = reader.fieldnames or []
        if not set(columns) >= NEEDED:
            raise ValueError(f"{path}: expected columns path and label, got {shown(columns) or 'an empty file'}")
        try:
            for line in reader:
                yield _row(f"{path}:{reader.line_num}", path.parent, columns, line)
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: cannot be read as a table in UTF-8: {error}") from error


def _row(where: str, folder: Path, columns: Sequence[str], line: dict[str, str | None]) -> Row:
    values = {name: (line[name] or "").strip() for name in (*NEEDED, "split", "group") if name in columns}
    for name, value in values.items():
        if not value:
            raise ValueError(f"{where}: expected a {name}, got nothing")
    split = values.get("split", "train")
    if split not in SPLITS:
        raise ValueError(f"{where}: expected a split of {', '.join(SPLITS)}, got {split!r}")
    return Row(where, folder / values["path"], values["label"], split, values.get("group", ""))


def _check_pictures(table: Path, rows: list[Row]) -> None:
    absent = [row for row in rows if row.path.suffix.lower() not in SUFFIXES or not row.path.is_file()]
    if absent:
        places = shown([f"{row.path} (line {row.where.rpartition(':')[2]})" for row in absent])
        expected = f"expected a picture ({', '.join(sorted(SUFFIXES))}) in each row"
        raise ValueError(f"{table}: {expected}, found none in {len(absent):,} of {len(rows):,}: {places}")


def _check_unique(rows: list[Row]) -> None:
    seen: dict[str, Row] = {}
    for row in rows:
        before = seen.setdefault(os.path.realpath(row.path), row)
        if before is not row:
            raise ValueError(f"{row.where}: {row.path} is listed already, at {before.where}")


def _check_groups(rows: list[Row]) -> None:
    seen: dict[str, Row] = {}
    for row in rows:
        before = seen.setdefault(row.group, row) if row.group else row
        if before.split != row.split:
            raise ValueError(
                f"{row.where}: group {row.group!r} is in {row.split}, and in {before.split} at {before.where}:"
                " expected the pictures of a group in one split"
            )
