"""The demo's flow, with a training too short to learn anything; that it learns is recorded in results/."""

import json
from pathlib import Path

import pytest
from PIL import Image

from vit import cli, demo, evaluate, run

SHORT = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2"]


@pytest.fixture
def short(monkeypatch) -> None:
    fit = run.fit
    monkeypatch.setattr(run, "fit", lambda args: fit([*args, *SHORT]))


@pytest.fixture
def good(monkeypatch) -> None:
    test = evaluate.test
    monkeypatch.setattr(evaluate, "test", lambda args: {**test(args), "acc": 0.98})


@pytest.mark.usefixtures("short", "good")
def test_demo_leaves_everything_it_names_and_can_be_repeated(tmp_path: Path, monkeypatch, capfd) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["demo"]) == 0
    out, err = capfd.readouterr()
    folder = tmp_path / "runs/demo"
    assert err == ""
    summary = (folder / "summary.txt").read_text()
    assert out.endswith(summary)
    assert len(summary.splitlines()) <= 22 and max(map(len, summary.splitlines())) <= 120
    assert "98.00%" in summary and summary.index("Next") < summary.index("vit fit -c quickstart --data.root")
    for names, _ in demo.FILES:
        assert all((folder / name.strip()).is_file() for name in names.split(",")), names
    with Image.open(folder / "digit.png") as picture:
        assert picture.size == (8, 8)
    assert json.loads((folder / "test.json").read_text())["n"] == 359
    (folder / "config.yaml").unlink()  # an earlier demo is replaced, whatever is left of it
    assert cli.main(["demo"]) == 0
    assert (folder / "config.yaml").is_file()


@pytest.mark.usefixtures("short")
def test_a_demo_that_learns_too_little_fails(tmp_path: Path, capsys) -> None:
    assert cli.main(["demo", "--run", str(tmp_path / "d")]) == 1
    assert "too low, expected at least 96%" in capsys.readouterr().out


def test_an_interrupted_demo_is_replaced_too(tmp_path: Path, monkeypatch) -> None:
    def interrupted(args: list[str]) -> None:
        (tmp_path / "d/checkpoints").mkdir(parents=True)
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "fit", interrupted)
    for _ in range(2):
        assert cli.main(["demo", "--run", str(tmp_path / "d")]) == cli.INTERRUPTED


def test_only_a_demo_is_replaced(tmp_path: Path, capsys) -> None:
    (tmp_path / "thesis.tex").write_text("two years")
    assert cli.main(["demo", "--run", str(tmp_path)]) == cli.WRONG_USE
    assert "is not empty and no earlier demo" in capsys.readouterr().err
    assert (tmp_path / "thesis.tex").read_text() == "two years"
