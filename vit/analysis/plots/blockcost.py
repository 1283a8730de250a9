"""Where a block's multiply-adds and time go as tokens are added, what heads cost, and how each mixer's core grows."""

from collections.abc import Sequence
from typing import Any, Protocol

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vit.analysis.plots.canvas import INK, QUIET, new_figure, plain_axes
from vit.analysis.plots.scaling import COLOURS, MARKERS
from vit.analysis.plots.tradeoff import Line, growth


class Part(Protocol):
    """One part of a net at N tokens."""

    @property
    def name(self) -> str: ...
    @property
    def tokens(self) -> int: ...
    @property
    def depth(self) -> int: ...
    @property
    def macs(self) -> int: ...
    @property
    def seconds(self) -> float: ...


class Heads(Protocol):
    """One number of heads."""

    @property
    def heads(self) -> int: ...
    @property
    def tokens(self) -> int: ...
    @property
    def seconds(self) -> float: ...


def block_cost(embed_dim: int, parts: Sequence[Part], heads: Sequence[Heads], lines: Sequence[Line]) -> Figure:
    """Shares of the deepest net's parts with the line N = 6C, time over heads, and each core's time and memory.

    Raises:
        ValueError: no parts.
    """
    if not parts:
        raise ValueError("expected the parts of a block at one number of tokens or more, got none")
    legend = 0.17 * -(-len(lines) // 3)
    figure = new_figure(10.0, 7.2 + legend)
    halves: Any = figure.subfigures(2, 1, height_ratios=(3.6, 3.6 + legend))
    upper, lower = halves
    shares, time = upper.subplots(1, 2, width_ratios=(3, 2))
    _draw_shares(plain_axes(shares, "Share of multiply-adds (dashed) and of time"), embed_dim, parts)
    if heads:
        plain_axes(time, "Softmax's core, ms per image")
        milliseconds = [1e3 * row.seconds for row in heads]
        time.plot([row.heads for row in heads], milliseconds, color=COLOURS[0], marker=MARKERS[0], linewidth=1.6)
        time.set_xticks([row.heads for row in heads])
        time.set_ylim(0, 1.15 * max(milliseconds))
        time.set_xlabel(f"heads, {embed_dim} channels in all, {heads[0].tokens:,} tokens", color=INK, fontsize=9)
    else:
        time.axis("off")
    growth(lower, lines)
    return figure


def _draw_shares(axes: Axes, embed_dim: int, parts: Sequence[Part]) -> None:
    deepest = [part for part in parts if part.depth == max(part.depth for part in parts)]
    tokens = sorted({part.tokens for part in deepest})
    for place, name in enumerate(dict.fromkeys(part.name for part in deepest)):
        style = {"color": COLOURS[place], "linewidth": 1.6}
        for column, kind in (("seconds", "-"), ("macs", "--")):
            whole = {n: sum(getattr(part, column) for part in deepest if part.tokens == n) for n in tokens}
            mine = {part.tokens: getattr(part, column) for part in deepest if part.name == name}
            marker = MARKERS[place] if kind == "-" else ""
            label = name if kind == "-" else None
            values = [mine[n] / whole[n] for n in tokens]
            axes.plot(tokens, values, kind, marker=marker, markersize=5, label=label, **style)
    axes.set_xscale("log", base=2)
    axes.set_xticks(tokens, [f"{n:,}" for n in tokens])
    axes.minorticks_off()
    axes.set_xlabel("tokens N", color=INK, fontsize=9)
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    if tokens[0] <= 6 * embed_dim <= tokens[-1]:
        axes.axvline(6 * embed_dim, color=QUIET, linewidth=0.8, linestyle=":")
        place = (6 * embed_dim, 0.98)
        style = {"fontsize": 7.5, "color": QUIET, "rotation": 90, "va": "top", "ha": "right"}
        axes.annotate(f"N = 6C = {6 * embed_dim:,}", place, xycoords=("data", "axes fraction"), **style)
    axes.legend(frameon=False, fontsize=8, labelcolor=INK)
