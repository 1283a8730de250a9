"""A study's folder: one owner, rows only added, nothing of another study overwritten."""

import json
from pathlib import Path

import pytest

from tests.experiments.studies import study
from vit.experiments.ledger import ROWS, STUDY, Ledger, claimed, fingerprint, read


def row(key: str, **values: object) -> dict[str, object]:
    return {"key": key, "status": "done", **values}


def test_rows_survive_and_the_last_of_a_key_counts(tmp_path: Path):
    with claimed(tmp_path / "s", study().to_dict()) as book:
        book.append(row("a", acc=0.1))
        book.append(row("b", acc=0.2))
        book.append(row("a", acc=0.3))
    again = Ledger(tmp_path / "s", fingerprint(study().to_dict()))
    assert "a" in again and "c" not in again and again["a"]["acc"] == 0.3
    assert len((tmp_path / "s" / ROWS).read_text().splitlines()) == 3


def test_a_line_cut_short_by_a_crash_is_dropped(tmp_path: Path):
    path = tmp_path / ROWS
    path.write_text(json.dumps(row("a", study="x")) + "\n" + json.dumps(row("b"))[:-5])
    book = Ledger(tmp_path, "x")
    assert "a" in book and "b" not in book
    book.append(row("c"))
    assert [line["key"] for line in read(path)] == ["a", "c"]
    path.write_text("{\n" + json.dumps(row("a")) + "\n")
    with pytest.raises(ValueError, match=rf"{ROWS}:1 is no row of a study"):
        read(path)


def test_two_processes_cannot_share_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("vit.experiments.ledger.PATIENCE", 0.1)
    with (
        claimed(tmp_path, study().to_dict()),
        pytest.raises(ValueError, match="another process is running the study in"),
        claimed(tmp_path, study().to_dict()),
    ):
        pass


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"amount": 41}, "holds a study with amount 40, asked for 41: choose another --out"),
        ({"sizes": (30,)}, r"with sizes \[30, 100\], asked for \[30\]"),
        (
            {"data": {**study().data, "manifest_hash": "cd"}},
            'with data manifest_hash "ab", asked for manifest_hash "cd"',
        ),
        ({"arms": study().arms[:1]}, "holds a study with arms"),
        ({"recipes": {"vit": "12", "cnn": "35"}}, "whose runs had other options or another configuration"),
    ],
)
def test_another_study_is_refused_and_left_as_it_was(tmp_path: Path, changes: dict, words: str):
    with claimed(tmp_path, study().to_dict()) as book:
        book.append(row("a"))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=words), claimed(tmp_path, study(**changes).to_dict()):
        pass
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_rows_of_another_study_are_refused(tmp_path: Path):
    with claimed(tmp_path, study().to_dict()):
        pass
    Ledger(tmp_path, fingerprint(study(recipes={"vit": "12", "cnn": "35"}).to_dict())).append(row("a"))
    with (
        pytest.raises(ValueError, match="run 'a' is of another study"),
        claimed(tmp_path, study().to_dict()),
    ):
        pass


def test_more_seeds_sizes_or_a_second_precision_continue_a_study(tmp_path: Path):
    with claimed(tmp_path, study().to_dict()) as book:
        book.append(row("a"))
    grown = study(seeds=(0, 1, 2), sizes=(30, 100, 300), compare_precision="bf16-mixed")
    with claimed(tmp_path, grown.to_dict()) as book:
        assert "a" in book
    assert json.loads((tmp_path / STUDY).read_text())["seeds"] == [0, 1, 2]


def test_another_version_and_a_foreign_folder_are_refused(tmp_path: Path):
    (tmp_path / STUDY).write_text(json.dumps({**study().to_dict(), "version": 0}))
    with pytest.raises(ValueError, match="of version 0, this is data-size 1"), claimed(tmp_path, study().to_dict()):
        pass
    (tmp_path / STUDY).rename(tmp_path / "mine.txt")
    with pytest.raises(ValueError, match="holds no study"), claimed(tmp_path, study().to_dict()):
        pass
    assert (tmp_path / "mine.txt").is_file()
