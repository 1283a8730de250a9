"""Sheets of matrices."""

import numpy as np
import pytest

from vit.analysis.plots import matrices


def test_each_has_its_own_scale_and_signed_ones_are_centred():
    figure = matrices({"shares\nof one": [[0, 0.5], [0.25, 0]], "signed": [[-3, 1]], "nothing": np.zeros((2, 2))}, 2)
    first, second, third, empty = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["shares\nof one", "signed", "nothing", ""]
    assert first.images[0].get_clim() == (0, 0.5)
    assert first.get_xlabel() == "max 0.5"
    assert second.images[0].get_clim() == (-3, 3)
    assert first.images[0].get_cmap() != second.images[0].get_cmap()
    assert third.images[0].get_clim() == (0, 1)
    assert not empty.images
    assert not empty.axison


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="at least one matrix"):
        matrices({})
