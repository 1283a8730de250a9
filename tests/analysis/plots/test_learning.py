"""Learning curves: every logged number at its place, whatever else the table lacks."""

from pathlib import Path

import pytest

from vit.analysis.plots import curves

ROWS = """epoch,step,train/loss_step,lr,val/loss,val/acc,train/loss
0,1,2.5,0.1,,,
0,3,2.0,0.2,,,
0,3,,,1.5,0.4,2.2
1,5,1.0,0.1,,,
1,7,,,1.2,0.9,1.1
2,11,,,1.3,0.8,nan
"""


def test_draws_each_column_over_epochs(tmp_path: Path):
    figure = curves(_table(tmp_path, ROWS))
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["Loss", "Accuracy", "Learning rate"]
    assert all(axes.get_xlabel() == "epoch" for axes in figure.axes)
    loss, accuracy, rate = figure.axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in loss.lines}
    assert lines["val"] == [[1, 1.5], [2, 1.2], [3, 1.3]]
    assert lines["train"][:2] == [[1, 2.2], [2, 1.1]]
    assert [0.5, 2.5] in loss.lines[0].get_xydata().tolist()
    assert accuracy.texts[0].get_text() == "best 90.0 % at epoch 2"
    assert rate.lines[0].get_xydata().tolist() == [[0.5, 0.1], [1, 0.2], [1.5, 0.1]]


@pytest.mark.parametrize(
    ("table", "titles"),
    [
        ("epoch,step,train/loss_step,train/loss,val/loss,val/acc,lr\n0,9,2.5,,,,\n", ["Loss"]),
        ("epoch,step,val/loss,val/acc\n0,9,0.5,0.1\n", ["Loss", "Accuracy"]),
        ("epoch,step,lr\n0,9,0.1\n0,19,0.2\n", ["Learning rate"]),
        ("step,epoch,val/loss,val/acc\n9,0,nan,nan\n", ["Loss", "Accuracy"]),
    ],
)
def test_a_table_with_holes_is_drawn_without_warnings(tmp_path: Path, table: str, titles: list[str]):
    figure = curves(_table(tmp_path, table))
    assert [axes.get_title(loc="left") for axes in figure.axes] == titles
    figure.savefig(tmp_path / "curves.png")


def test_counts_steps_where_nothing_was_validated(tmp_path: Path):
    figure = curves(_table(tmp_path, "epoch,step,train/loss\n0,9,2.5\n0,19,2.0\n"))
    assert figure.axes[0].get_xlabel() == "step"
    assert figure.axes[0].lines[0].get_xdata().tolist() == [10, 20]


@pytest.mark.parametrize("table", ["", "epoch,step,train/loss\n", "epoch,step,other\n0,1,2\n"])
def test_a_table_without_numbers_is_an_error_in_one_line(tmp_path: Path, table: str):
    with pytest.raises(ValueError, match=r"metrics.csv: expected rows with train/loss.*got columns"):
        curves(_table(tmp_path, table))


def _table(folder: Path, text: str) -> Path:
    (folder / "metrics.csv").write_text(text)
    return folder / "metrics.csv"
