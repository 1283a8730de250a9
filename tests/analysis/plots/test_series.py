"""Lines over one axis."""

import pytest

from vit.analysis.plots import lines


def test_a_panel_for_each_title_and_a_line_for_each_name():
    figure = lines({"one": {"a": [1, 2], "b": [3, 5]}, "two": {"c": [7, 11]}}, [4, 16], "tokens", 0.5, log_x=True)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["one", "two"]
    drawn = {line.get_label(): line.get_xydata().tolist() for line in figure.axes[0].lines}
    assert drawn["b"] == [[4, 3], [16, 5]]
    assert [row[1] for row in drawn["chance"]] == [0.5, 0.5]
    assert [tick.get_text() for tick in figure.axes[1].get_xticklabels()] == ["4", "16"]
    assert figure.axes[0].get_ylim() == (0, 1.05)
    assert figure.axes[0].get_xscale() == "log"
    assert figure.axes[0].get_yscale() == "linear"


@pytest.mark.parametrize("panels", [{}, {"one": {"a": [1.0]}}])
def test_what_does_not_fit_the_axis_is_refused(panels):
    with pytest.raises(ValueError, match="2 values each"):
        lines(panels, [1, 2], "x")
