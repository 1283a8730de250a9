import numpy as np
import pytest
from matplotlib.text import Annotation

from vit.analysis import plots

POINTS = np.array([[0.0, 1.0], [2.0, 3.0], [4.0, -5.0], [1.0, 1.0]])
LABELS = [0, 1, 0, 1]


def test_each_class_has_its_points_colour_and_number() -> None:
    figure = plots.scatter([("PCA", POINTS), ("t-SNE", -POINTS)], LABELS, ["_cat", "猫", "none here"])
    first, second = figure.axes
    assert (first.get_title(loc="left"), second.get_title(loc="left")) == ("PCA", "t-SNE")
    for axes, points in ((first, POINTS), (second, -POINTS)):
        drawn = [np.asarray(group.get_offsets()) for group in axes.collections]
        assert [part.tolist() for part in drawn] == [points[[0, 2]].tolist(), points[[1, 3]].tolist(), []]
        assert len({tuple(group.get_facecolor()[0][:3]) for group in axes.collections if len(group.get_offsets())}) == 2
    (legend,) = figure.legends
    texts = [text.get_text() for text in legend.get_texts()]
    shown = [tuple(handle.get_facecolor()[0][:3]) for handle in legend.legend_handles[:2]]
    assert shown == [tuple(group.get_facecolor()[0][:3]) for group in first.collections[:2]]
    assert texts[0] == "0  _cat" and texts[2] == "2  none here" and texts[1].startswith("1  ")


def test_vectors_point_their_way_in_the_first_panel_only() -> None:
    vectors = np.array([[3.0, 4.0], [0.0, -0.5]])
    figure = plots.scatter([("PCA", POINTS), ("t-SNE", POINTS)], LABELS, ["cat", "dog"], vectors)
    arrows, numbers = [], []
    for text in figure.axes[0].texts:
        assert isinstance(text, Annotation)
        (numbers if text.get_text() else arrows).append(text)
    reach = np.quantile(np.linalg.norm(POINTS, axis=1), 0.9)
    assert np.allclose([arrow.xy for arrow in arrows], [[0.6 * reach, 0.8 * reach], [0, -0.1 * reach]])
    assert [number.get_text() for number in numbers] == ["0", "1"]
    assert not figure.axes[1].texts
    away = plots.scatter([("PCA", POINTS)], LABELS, ["cat", "dog"], [[-1.0, 0.0], [0.0, 1.0]]).axes[0]
    assert away.get_xlim()[0] < -1.1 * reach and away.get_ylim()[1] > 1.1 * reach  # else the number is cut off


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"panels": []}, "expected a panel or more, got none"),
        ({"panels": [("PCA", POINTS[:3])]}, r"expected points \(4, 2\), one for each label, got \(3, 2\)"),
        ({"labels": [0, 1, 2, 1]}, "expected labels 0 to 1, got 0 to 2"),
        ({"vectors": POINTS}, r"expected a vector \(2,\) for each of 2 classes, got \(4, 2\)"),
    ],
)
def test_bad_input(options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        plots.scatter(**{"panels": [("PCA", POINTS)], "labels": LABELS, "names": ["cat", "dog"], **options})
