"""Pictures, with and without heat on top. Heat is drawn in multiples of the uniform baseline: 1 x is 1/N."""

from collections.abc import Sequence
from math import ceil
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import ArrayLike, NDArray

from vit.analysis.plots.canvas import INK, QUIET, name_style, new_figure, printable

Range = tuple[float, float]
Pictures = Sequence[ArrayLike] | NDArray[Any]
"""Pictures of any sizes, or one array (b h w c)."""
LETTERS = 18  # of a line above a picture of a sheet
COLOURS = "plasma"  # perceptually even, and its dark end still shows on a black picture


def samples(pictures: Pictures, titles: Sequence[str], columns: int = 6) -> Figure:
    """A contact sheet of pictures (h w) or (h w c), numbers in 0..1 or 8-bit.

    Of 4 channels and more the first three are shown as red, green and blue, of 2 the mean.
    """
    figure, sheet = _sheet(pictures, titles, columns)
    for axes, picture in zip(sheet, pictures, strict=False):
        _show(axes, picture)
    return figure


def overlays(pictures: Pictures, heats: ArrayLike, titles: Sequence[str], columns: int = 6) -> Figure:
    """A contact sheet of pictures under their heat maps (b gh gw), one colour scale for all."""
    multiples = [_multiples(heat) for heat in np.asarray(heats, dtype=np.float64)]
    scale = _range(np.stack(multiples))
    figure, sheet = _sheet(pictures, titles, columns)
    drawn = [
        _lay_over(axes, picture, heat, scale) for axes, picture, heat in zip(sheet, pictures, multiples, strict=False)
    ]
    _colorbar(figure, drawn[-1], sheet, multiples[-1].size)
    return figure


def overlay(picture: ArrayLike, heat: ArrayLike, title: str = "", caption: str = "") -> Figure:
    """A picture as the model sees it, and again under its heat map.

    Args:
        picture: (h w) or (h w c), numbers in 0..1 or 8-bit; of 4 channels and more the first three are shown as red,
            green and blue, of 2 the mean.
        heat: (gh gw), at least 0; stretched over the whole picture.
        title: above; class names of any script are fine.
        caption: below, in small print.
    """
    multiples = _multiples(heat)
    height, width = np.shape(picture)[:2]
    figure = new_figure(7.4, float(np.clip(3.1 * height / width, 1.6, 6)) + 0.9)
    left, right = figure.subplots(1, 2)
    _show(left, picture)
    drawn = _lay_over(right, picture, multiples, _range(multiples))
    _colorbar(figure, drawn, [right], multiples.size)
    title = "\n".join(printable(line, 80) for line in wrap(title, 66))
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, color=INK, fontweight="bold", **name_style((title,)))
    if caption:
        caption = "\n".join(printable(line, 120) for line in wrap(caption, 110))
        figure.supxlabel(caption, x=0.01, ha="left", fontsize=8, color=QUIET, **name_style((caption,)))
    return figure


def reconstructions(pictures: Pictures, hidden: Pictures, filled: Pictures) -> Figure:
    """Three rows: pictures (h w c), what is left of them, and what was made of that.

    Hidden pixels are not a number in ``hidden``, and drawn grey. Channels are shown as by `samples`.
    """
    rows = {"pictures": pictures, "what is left": hidden, "prediction": filled}
    figure = new_figure(1.2 * len(pictures) + 0.2, 4.2)
    sheet = figure.subplots(len(rows), len(pictures), squeeze=False)
    for axes, (name, row) in zip(sheet, rows.items(), strict=True):
        axes[0].set_title(name, loc="left", fontsize=9, color=INK)
        for place, picture in zip(axes, row, strict=True):
            _show(place, _grey_where_hidden(picture))
    return figure


def visible(images: ArrayLike, mean: Sequence[float], std: Sequence[float]) -> NDArray[np.float64]:
    """Normalised images (b c h w) as pictures (b h w c) in 0..1."""
    pictures = np.moveaxis(np.asarray(images, dtype=np.float64), 1, -1)
    return np.clip(pictures * np.asarray(std) + np.asarray(mean), 0, 1)


def _sheet(pictures: Pictures, titles: Sequence[str], columns: int) -> tuple[Figure, list[Axes]]:
    if len(pictures) != len(titles):
        raise ValueError(f"expected a title for each of {len(pictures)} pictures, got {len(titles)}")
    columns = min(columns, len(pictures))
    rows = ceil(len(pictures) / columns)
    names = [_lines(title) for title in titles]
    deepest = max(name.count("\n") for name in names)
    figure = new_figure(1.6 * columns + 0.8, (1.85 + 0.15 * deepest) * rows)
    sheet = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, name in zip(sheet, names, strict=False):
        axes.set_title(name, fontsize=9, color=INK, **name_style((name,)))
    for axes in sheet:
        axes.set_axis_off()
    return figure, sheet


def _lines(title: str) -> str:
    """Each line of a title as at most two that are no wider than a picture of a sheet."""
    broken = (wrap(line, LETTERS, max_lines=2, placeholder="…") for line in title.splitlines())
    return "\n".join(printable(part, LETTERS) for lines in broken for part in lines)


def _show(axes: Axes, picture: ArrayLike) -> None:
    axes.set_axis_off()
    axes.imshow(_in_unit_range(picture), cmap="gray", vmin=0, vmax=1, interpolation="nearest")


def _grey_where_hidden(picture: ArrayLike) -> NDArray[np.float64]:
    """(h w 3), with the paper's grey in place of what is not a number: a picture may be black, or white."""
    shown = _in_unit_range(picture)
    colours = shown if shown.ndim == 3 else np.repeat(shown[..., None], 3, axis=-1)
    return np.where(np.isnan(colours), to_rgb(QUIET), colours)


def _lay_over(axes: Axes, picture: ArrayLike, multiples: NDArray[np.float64], scale: Range) -> AxesImage:
    grey = _in_unit_range(picture)
    grey = grey.mean(axis=-1) if grey.ndim == 3 else grey
    height, width = grey.shape
    axes.set_axis_off()
    axes.imshow(grey, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    return axes.imshow(
        multiples, cmap=COLOURS, vmin=scale[0], vmax=scale[1], alpha=0.6, extent=extent, interpolation="bicubic"
    )


def _in_unit_range(picture: ArrayLike) -> NDArray[np.float64]:
    """(h w) or (h w 3): of further channels none has a colour, and 2 are as their mean."""
    shown = np.asarray(picture)
    shown = shown / 255 if shown.dtype == np.uint8 else np.clip(shown.astype(np.float64), 0, 1)
    if shown.ndim == 2:
        return shown
    return shown[..., :3] if shown.shape[-1] >= 3 else shown.mean(axis=-1)


def _multiples(heat: ArrayLike) -> NDArray[np.float64]:
    """``heat`` over its mean, which is what every patch would have if all had the same."""
    heat = np.asarray(heat, dtype=np.float64)
    mean = heat.mean()
    return heat / mean if mean > 0 else np.ones_like(heat)


def _range(multiples: NDArray[np.float64]) -> Range:
    """The extremes, but never so close together that a flat map looks structured."""
    return min(float(multiples.min()), 0.8), max(float(multiples.max()), 1.25)


def _colorbar(figure: Figure, drawn: AxesImage, axes: Sequence[Axes], patches: int) -> None:
    bar = figure.colorbar(drawn, ax=list(axes), shrink=0.8, aspect=20, format=lambda value, _: f"{value:g} x")
    bar.ax.axhline(1.0, color="white", linewidth=1.5)
    bar.ax.tick_params(labelsize=8)
    bar.set_label(f"times the uniform share, 1/{patches}", fontsize=8, color=INK)
