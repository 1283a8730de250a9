"""The steps of additive attention."""

import numpy as np
import pytest

from vit.analysis.plots import additive_steps


def test_every_step_is_drawn_over_the_tokens():
    figure = additive_steps(np.zeros((3, 5)), [1, 2, 3], [0.2, 0.3, 0.5])
    hidden, scores, weights = figure.axes[:3]
    assert hidden.images[0].get_array().shape == (5, 3)
    assert [bar.get_height() for bar in scores.patches] == [1, 2, 3]
    assert [bar.get_height() for bar in weights.patches] == [0.2, 0.3, 0.5]
    assert weights.lines[0].get_ydata()[0] == pytest.approx(1 / 3)


def test_numbers_of_tokens_that_differ_are_refused():
    with pytest.raises(ValueError, match="got 2 and 3 for 3 tokens"):
        additive_steps(np.zeros((3, 5)), [1, 2], [0.2, 0.3, 0.5])
