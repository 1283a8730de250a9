"""The data-size figure: every seed at its place, crossings marked, nothing drawn beyond twice the largest size."""

import numpy as np
import pytest

from vit.analysis.plots.scaling import Curve, Span, accuracy_by_size
from vit.analysis.scaling import fit_power_law
from vit.analysis.statistics import mean_interval

SIZES = (100, 300, 1000, 3000)


def _curve(name: str = "cnn") -> Curve:
    noise = np.random.default_rng(0).normal(0, 0.002, (7, 4))
    errors = 2.0 * np.array(SIZES) ** -0.5 + 0.03 + noise
    return Curve(name, SIZES, (1 - errors.T).tolist(), (1.0, 2.0, 3.0, 5.0), fit_power_law(SIZES, errors))


def test_draws_seeds_means_bands_and_cost():
    curve = _curve()
    accuracy, cost = accuracy_by_size([curve]).axes
    drawn = [line.get_xydata().tolist() for line in accuracy.lines]
    for size, values in zip(SIZES, curve.accuracies, strict=True):
        assert [[size, value] for value in values] in drawn
    (mean,) = [line for line in accuracy.lines if line.get_label() == "cnn"]
    np.testing.assert_allclose(mean.get_ydata(), [np.mean(values) for values in curve.accuracies])
    corners = accuracy.collections[0].get_paths()[0].vertices
    interval = mean_interval(curve.accuracies[0])
    for bound in (interval.low, interval.high):
        assert np.abs(corners - [100, bound]).max(axis=1).min() < 1e-9
    assert cost.lines[0].get_xydata().tolist() == [[100, 1], [300, 2], [1000, 3], [3000, 5]]


def test_a_fit_reaches_to_twice_the_largest_size_and_no_further():
    curve = _curve()
    accuracy = accuracy_by_size([curve]).axes[0]
    (dotted,) = [line for line in accuracy.lines if line.get_linestyle() == ":" and len(line.get_xdata())]
    assert (min(dotted.get_xdata()), max(dotted.get_xdata())) == pytest.approx((3000, 6000))
    assert curve.fit is not None
    assert dotted.get_ydata()[-1] == pytest.approx(1 - curve.fit.error(6000))
    assert max(max(line.get_xdata(), default=0) for line in accuracy.lines) <= 6000


def test_a_crossing_is_marked_at_its_place_above_and_shaded_below(tmp_path):
    spans = [Span("b overtakes a between 400 and 900 images", 400, 600, 900), Span("c overtakes a", None, None, 200)]
    figure = accuracy_by_size([_curve("a"), _curve("b")], spans)
    strip = figure.axes[0]
    assert [text.get_text() for text in strip.texts] == [span.label for span in spans]
    assert strip.lines[0].get_xdata().tolist() == [400, 900]
    assert strip.lines[1].get_xdata().tolist() == [600]
    assert strip.get_xlim() == figure.axes[2].get_xlim() and strip.get_xscale() == "log"
    assert strip.lines[2].get_xdata().tolist() == [strip.get_xlim()[0], 200]
    figure.savefig(tmp_path / "curves.png")
    boxes = [text.get_window_extent() for text in strip.texts]
    assert not boxes[0].overlaps(boxes[1])


def test_sizes_that_would_touch_have_no_label():
    sizes = (1000, 1010, 4000)
    axes = accuracy_by_size([Curve("a", sizes, ((0.5,), (0.6,), (0.7,)), (1, 1, 1))]).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1,010", "4,000"]


@pytest.mark.parametrize("curves", [[], [Curve("a", (100,), (), (1.0,))], [Curve("a", (100,), ((),), (1.0,))]])
def test_nothing_to_draw_is_refused(curves):
    with pytest.raises(ValueError, match="expected"):
        accuracy_by_size(curves)
