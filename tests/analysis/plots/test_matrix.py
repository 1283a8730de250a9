"""The confusion matrix says how often, of which class, and keeps any name readable."""

import warnings
from io import BytesIO

import numpy as np
import pytest

from vit.analysis.plots import confusion
from vit.analysis.plots.canvas import printable


def test_shows_counts_shares_and_the_worst_mistakes():
    figure = confusion([[8, 2, 0], [1, 9, 0], [0, 5, 5]], ["ant", "bee", "cow"])
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["ant", "bee", "cow"]
    assert sorted(text.get_text() for text in axes.texts) == ["1", "2", "5", "5", "8", "9"]
    assert axes.images[0].get_array()[0].tolist() == [0.8, 0.2, 0]
    title = axes.get_title(loc="left").splitlines()
    assert title == ["73.3 % of 30 right", "cow taken for bee: 5", "ant taken for bee: 2", "bee taken for ant: 1"]


def test_a_class_without_pictures_is_not_drawn_as_always_wrong():
    shares = confusion([[3, 0], [0, 0]], ["ant", "bee"]).axes[0].images[0].get_array()
    assert np.ma.getmaskarray(shares).tolist() == [[False, False], [True, True]]


@pytest.mark.parametrize("count", [2, 10, 20, 21, 100, 250])
def test_every_size_is_drawn_and_has_names(count: int):
    figure = confusion(np.eye(count), [f"class {i}" for i in range(count)])
    axes = figure.axes[0]
    assert bool(axes.texts) == (count <= 20)
    assert len(axes.get_yticks()) == min(count, 84 if count == 250 else 100)
    if count <= 20:
        figure.savefig(BytesIO())
        assert _overlapping(figure) == []


def test_names_of_any_script_raise_no_font_warnings_and_no_mathematics():
    names = ["猫", "🐱 kitty", "Ångström", "кот", "قط", "$x_$", "_hidden", "x" * 200, "tab\there", "\udcff"]
    picture = BytesIO()
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        confusion(np.eye(len(names)), names).savefig(picture)
    assert raised == [] and picture.getvalue().startswith(b"\x89PNG")


def test_letters_no_font_holds_become_their_code():
    assert printable("Ångström") == "Ångström"
    assert printable("a\tb\U0010fffd") == "a\\tb\\U0010fffd"
    assert printable("x" * 30) == "x" * 23 + "…"


def test_wrong_size_is_refused():
    with pytest.raises(ValueError, match=r"3 x 3 confusion matrix for 3 classes, got shape \(2, 2\)"):
        confusion(np.eye(2), ["ant", "bee", "cow"])


def _overlapping(figure) -> list[tuple[str, str]]:
    """Neighbouring class names that run into each other."""
    labels = figure.axes[0].get_yticklabels()
    boxes = [label.get_window_extent() for label in labels]
    return [
        (one.get_text(), other.get_text())
        for one, other, a, b in zip(labels, labels[1:], boxes, boxes[1:], strict=False)
        if a.overlaps(b)
    ]
