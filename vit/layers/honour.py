"""What mixers ask of a layout, and one wording for each thing that one cannot honour."""

from jaxtyping import Bool
from torch import Tensor, nn

from vit.tokens import Grid, Layout


def keys_of(layout: Layout) -> Bool[Tensor, "b n"] | None:
    """Which tokens are no padding, None where none is."""
    return None if layout.mask is None else layout.mask.keys


def check_tokens(x: Tensor, layout: Layout) -> None:
    if x.shape[1] != layout.tokens:
        raise ValueError(f"the layout has {layout.tokens} tokens, got {x.shape[1]}")


def check_grid(mixer: nn.Module, built: Grid, layout: Layout) -> None:
    """For a mixer whose parameters belong to the tokens of one grid."""
    grid = layout.grid
    if grid[:2] != built[:2] or grid.num_prefix != built.num_prefix:
        raise ValueError(f"{_name(mixer)} was built for {_words(built)}, got {_words(grid)}")


def refuse_subset(mixer: nn.Module, layout: Layout) -> None:
    if layout.index is not None:
        kept = f"{layout.index.shape[1]} of {layout.grid.patches}"
        raise ValueError(f"{_name(mixer)} needs every patch of the grid in order, got a kept subset of {kept}")


def refuse_padding(mixer: nn.Module, layout: Layout) -> None:
    if keys_of(layout) is not None:
        raise ValueError(f"{_name(mixer)} mixes all tokens by fixed weights: it cannot honour a mask of keys")


def refuse_order(mixer: nn.Module, layout: Layout) -> None:
    """For a mixer that looks both ways."""
    if layout.mask is not None and layout.mask.causal:
        raise ValueError(f"{_name(mixer)} sees tokens before and after: it cannot honour a causal mask")


def refuse_prefix_length(mixer: nn.Module, layout: Layout) -> None:
    """For a mixer that looks one way under a causal mask, and then only one way."""
    if layout.mask is not None and layout.mask.prefix is not None:
        raise ValueError(f"{_name(mixer)} cannot honour a causal mask with a prefix length")


def refuse_pairs(mixer: nn.Module, layout: Layout) -> None:
    if layout.mask is not None and layout.mask.pairs is not None:
        raise ValueError(f"{_name(mixer)} does not choose who sees whom: it cannot honour a mask of pairs")


def _name(mixer: nn.Module) -> str:
    return type(mixer).__name__


def _words(grid: Grid) -> str:
    front = f" after {grid.num_prefix} prefix tokens" if grid.prefix else ""
    return f"{grid.tokens} tokens ({grid.height}x{grid.width} patches{front})"
