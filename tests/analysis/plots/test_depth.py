"""Numbers per head, by depth."""

import pytest

from vit.analysis.plots import distances, heads


def test_a_dot_per_head_and_the_mean_and_the_level():
    figure = heads({"rank": ([[1, 3], [5, 7]], 4.0), "share": ([[0.5]], None)})
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["rank", "share"]
    first, second, mean, level = figure.axes[0].lines
    assert first.get_xydata().tolist() == [[1, 1], [1, 3]]
    assert second.get_xydata().tolist() == [[2, 5], [2, 7]]
    assert mean.get_xydata().tolist() == [[1, 2], [2, 6]]
    assert level.get_ydata()[0] == 4
    assert len(figure.axes[1].lines) == 2


def test_distances_are_in_pixels_and_nothing_is_refused():
    assert distances([[1, 2]], 3).axes[0].get_ylabel() == "pixels"
    with pytest.raises(ValueError, match="at least one panel"):
        heads({})
