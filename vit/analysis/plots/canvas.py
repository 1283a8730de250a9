"""What every figure of the project shares: paper, ink, and class names in any script. No pyplot, so no global state."""

from functools import cache
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager
from matplotlib.ft2font import FT2Font

INK, QUIET, PAPER = "#22252a", "#8b9098", "#ffffff"
BLUE, ORANGE, GREEN = "#2f6fb7", "#d9722e", "#3a9a68"
SANS = "DejaVu Sans"  # ships with matplotlib


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, size in inches, that saves at 150 dots per inch."""
    # compressed: also right for axes of fixed aspect, which pictures and matrices are
    return Figure(figsize=(width, height), dpi=150, layout="compressed", facecolor=PAPER)


def plain_axes(axes: Axes, title: str = "") -> Axes:
    """Light horizontal grid, no box, ``title`` on the left."""
    axes.set_title(title, loc="left", fontsize=11, color=INK, fontweight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(QUIET)
    axes.tick_params(colors=INK, labelsize=9, color=QUIET)
    axes.grid(axis="y", color=QUIET, alpha=0.25, linewidth=0.7)
    axes.set_axisbelow(True)
    return axes


def name_style(names: tuple[str, ...]) -> dict[str, Any]:
    """Keywords for matplotlib text holding names: fonts with their letters, no mathematics between dollar signs."""
    needed = sorted({ord(letter) for letter in "".join(names) if letter.isprintable()} - _letters(_sans()))
    return {"fontfamily": list(dict.fromkeys([SANS, *filter(None, map(_family, needed))])), "parse_math": False}


def printable(name: str, length: int = 24) -> str:
    """``name`` cut to ``length``, letters no installed font holds written as their code, such as \\u732b."""
    kept = name if len(name) <= length else name[: length - 1] + "…"
    return "".join(c if _drawable(c) else c.encode("unicode_escape").decode() for c in kept)


def _drawable(letter: str) -> bool:
    return letter.isprintable() and (ord(letter) in _letters(_sans()) or _family(ord(letter)) is not None)


@cache
def _sans() -> str:
    return findfont(FontProperties(family=SANS))


@cache
def _letters(path: str) -> frozenset[int]:
    return frozenset(FT2Font(path).get_charmap())


@cache
def _family(code: int) -> str | None:
    """An installed family with the letter. The last resort font has a box for every letter, so it does not count."""
    for font in fontManager.ttflist:
        if "Last Resort" not in font.name and font.fname.lower().endswith((".ttf", ".otf", ".ttc")):
            try:
                letters = _letters(font.fname)
            except RuntimeError:  # bitmap and broken fonts
                continue
            if code in letters:
                return font.name
    return None
