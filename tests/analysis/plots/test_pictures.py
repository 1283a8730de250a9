"""Pictures and the heat over them: in the right place, in multiples of the uniform share, flat where it is flat."""

from io import BytesIO
from itertools import pairwise

import numpy as np
import pytest

from vit.analysis.plots import distances, overlay, overlays, reconstructions, samples, visible

RNG = np.random.default_rng(0)


def test_heat_is_in_multiples_of_the_uniform_share_and_covers_the_picture():
    heat = np.array([[1.0, 1.0, 2.0], [1.0, 4.0, 3.0]])
    figure = overlay(RNG.random((8, 12, 3)), heat, "bee 98.3%", "small print")
    seen, under = figure.axes[:2]
    picture, layer = under.images
    assert seen.images[0].get_extent() == picture.get_extent() == layer.get_extent() == [-0.5, 11.5, 7.5, -0.5]
    np.testing.assert_allclose(layer.get_array(), heat / 2)
    assert figure.axes[2].get_ylabel() == "times the uniform share, 1/6"
    assert figure.get_suptitle() == "bee 98.3%"


def test_the_scale_of_heat_does_not_matter():
    picture, heat = RNG.random((8, 12)), RNG.random((2, 3))
    one, other = (overlay(picture, scale * heat).axes[1].images[1] for scale in (1, 7))
    np.testing.assert_allclose(one.get_array(), other.get_array())
    assert one.get_clim() == pytest.approx(other.get_clim())


@pytest.mark.parametrize("heat", [np.ones((2, 3)), np.zeros((2, 3)), 1 + 1e-6 * RNG.random((2, 3))])
def test_a_flat_map_looks_flat(heat):
    assert overlay(RNG.random((8, 12)), heat).axes[1].images[1].get_clim() == (0.8, 1.25)


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1), (8, 8, 3), (8, 8, 4), (4, 40, 3), (40, 4, 3)])
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_pictures_of_all_kinds_are_drawn(shape, kind):
    picture = (RNG.random(shape) * (255 if kind is np.uint8 else 1)).astype(kind)
    figure = overlay(picture, np.ones((2, 2)), "猫 " * 60 + "$x$", "small print " * 30)
    figure.savefig(BytesIO())
    assert 0 <= figure.axes[0].images[0].get_array().min() <= figure.axes[0].images[0].get_array().max() <= 1


def test_contact_sheets_share_one_scale():
    pictures, heats = RNG.random((5, 8, 8, 1)), RNG.random((5, 2, 2))
    titles = ["ant", "$", "猫", "", "cow"]
    figure = overlays(pictures, heats, titles, columns=3)
    assert {axes.images[1].get_clim() for axes in figure.axes if len(axes.images) > 1} == {
        figure.axes[0].images[1].get_clim()
    }
    assert [axes.get_title() for axes in samples(pictures, titles).axes][:2] == ["ant", "$"]
    figure.savefig(BytesIO())
    with pytest.raises(ValueError, match="a title for each of 5 pictures, got 1"):
        samples(pictures, ["ant"])


@pytest.mark.parametrize("shape", [(5, 8, 8, 1), (1, 8, 12, 3), (3, 8, 8)])
def test_hidden_pixels_are_grey_and_all_others_as_they_are(shape):
    pictures = RNG.random(shape)
    hidden = pictures.copy()
    hidden[:, :4, 2:6] = np.nan
    figure = reconstructions(pictures, hidden, 1 - pictures)
    figure.savefig(BytesIO())
    assert [axes.get_title(loc="left") for axes in figure.axes[:: shape[0]]] == [
        "pictures",
        "what is left",
        "prediction",
    ]
    first, left, filled = (figure.axes[row * shape[0]].images[0].get_array() for row in range(3))
    assert np.ptp(left[:4, 2:6].reshape(-1, 3), axis=0).max() == 0 and 0.4 < left[0, 3].mean() < 0.7
    np.testing.assert_allclose(left[4:], first[4:])
    np.testing.assert_allclose(filled, 1 - first)


def test_long_titles_are_broken_and_cut_to_the_width_of_a_picture():
    titles = ["Ankle boot, not Sandal (85%)", "Lesser spotted woodpecker of the north\nnot fig (5%)", "ant"]
    figure = samples(RNG.random((3, 8, 8)), titles)
    assert [axes.get_title() for axes in figure.axes] == [
        "Ankle boot, not\nSandal (85%)",
        "Lesser spotted\nwoodpecker of the…\nnot fig (5%)",
        "ant",
    ]
    figure.draw_without_rendering()
    boxes = [axes.title.get_window_extent() for axes in figure.axes]
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


@pytest.mark.parametrize(("channels", "shown"), [(1, [0]), (2, [0, 1]), (3, None), (4, None), (6, None)])
def test_channels_beyond_three_have_no_colour(channels: int, shown: list[int] | None):
    picture = RNG.random((4, 5, channels))
    expected = picture[..., :3] if shown is None else picture[..., shown].mean(axis=-1)
    seen, under = overlay(picture, np.ones((2, 2))).axes[:2]
    for axes in (samples([picture], ["ant"]).axes[0], seen):
        np.testing.assert_allclose(axes.images[0].get_array(), expected)
    grey = expected.mean(axis=-1) if expected.ndim == 3 else expected
    np.testing.assert_allclose(under.images[0].get_array(), grey)


def test_visible_undoes_the_normalisation():
    pictures = RNG.random((2, 4, 6, 3))
    mean, std = np.array([0.1, 0.2, 0.3]), np.array([0.5, 0.6, 0.7])
    images = np.moveaxis((pictures - mean) / std, -1, 1)
    np.testing.assert_allclose(visible(images, mean.tolist(), std.tolist()), pictures)


def test_distances_show_each_head_at_its_depth():
    figure = distances([[1.0, 2.0], [3.0, 5.0]], uniform=4.0)
    first, second, mean, level = figure.axes[0].lines
    assert first.get_xydata().tolist() == [[1, 1], [1, 2]]
    assert second.get_xydata().tolist() == [[2, 3], [2, 5]]
    assert mean.get_ydata().tolist() == [1.5, 4.0]
    assert set(level.get_ydata()) == {4.0}
    figure.savefig(BytesIO())
