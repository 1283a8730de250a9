"""What a part cannot take, refused in one voice: a ValueError that says what was expected and what came.

Of a layout: ``who`` refuses it, the ``layout``, and ``why``, words that follow the name of its class.
"""

from typing import Any

from torch import Tensor, nn

from vit.tokens import Grid, Layout


def require_at_least(least: int, value: int, name: str) -> int:
    """``value``, or ValueError if it is too small."""
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return value


def require_odd(value: int, name: str) -> int:
    """``value``, or ValueError if it has no middle."""
    if value < 1 or value % 2 == 0:
        raise ValueError(f"{name} must be odd and at least 1, got {value}")
    return value


def require_below_one(value: float, name: str) -> float:
    """``value``, or ValueError if it is no share that leaves something."""
    if not 0 <= value < 1:
        raise ValueError(f"{name} must lie in [0, 1), got {value}")
    return value


def require_tokens(who: nn.Module, layout: Layout, came: int) -> None:
    """Raise ValueError unless ``came`` tokens are as many as ``layout`` says."""
    if came != layout.tokens:
        raise ValueError(f"{_name(who)} got {came} tokens, the layout has {layout.tokens}")


def require_one_sequence(who: nn.Module, layout: Layout, q: Tensor, k: Tensor) -> None:
    """Raise ValueError unless queries and keys are the layout's tokens."""
    n, m = q.shape[2], k.shape[2]
    if n != layout.tokens or m != layout.tokens:
        raise ValueError(
            f"{_name(who)} needs queries and keys of the same {layout.tokens} tokens; got {n} queries, {m} keys"
        )


def require_grid(who: nn.Module, layout: Layout, built: Grid) -> None:
    """Raise ValueError unless the layout's grid, kept whole or not, is that which ``who`` has parameters for."""
    grid = layout.grid
    if grid[:2] != built[:2] or grid.num_prefix != built.num_prefix:
        raise ValueError(f"{_name(who)} was built for {_words(built)}, got {_words(grid)}")


def require_own_tokens(who: nn.Module, layout: Layout, built: Grid, v: Tensor) -> None:
    """Raise ValueError unless the call has the tokens, all and in order, that ``who`` has parameters for.

    A grid of as many patches has other places: row and column of a patch are not those that its parameters learned.
    """
    if v.shape[2] != built.tokens:
        raise ValueError(f"{_name(who)} was built for {built.tokens} tokens, got {v.shape[2]}")
    if layout.grid[:2] != built[:2]:
        own, came = (f"{grid.height}x{grid.width}" for grid in (built, layout.grid))
        raise ValueError(f"{_name(who)} was built for {own} patches, got as many tokens of {came}")
    refuse_subset(who, layout, "has weights for every patch in order")


def refuse_causal(who: nn.Module, layout: Layout, why: str = "sees tokens before and after") -> None:
    """Raise ValueError when ``layout`` asks for a causal order."""
    if layout.mask is not None and layout.mask.causal:
        raise ValueError(f"{_name(who)} {why}: it cannot honour a causal mask")


def refuse_prefix_length(who: nn.Module, layout: Layout, why: str = "looks one way or both") -> None:
    """Raise ValueError when ``layout`` asks for a causal order that first tokens are free of."""
    if layout.mask is not None and layout.mask.prefix is not None:
        raise ValueError(f"{_name(who)} {why}: it cannot honour a causal mask with a prefix length")


def refuse_pairs(who: nn.Module, layout: Layout, why: str = "does not choose who sees whom") -> None:
    """Raise ValueError when ``layout`` says pair by pair who sees whom."""
    if layout.mask is not None and layout.mask.pairs is not None:
        raise ValueError(f"{_name(who)} {why}: it cannot honour a mask of pairs")


def refuse_padding(who: nn.Module, layout: Layout, why: str = "mixes all tokens by fixed weights") -> None:
    """Raise ValueError when ``layout`` has padding."""
    if layout.keys is not None:
        raise ValueError(f"{_name(who)} {why}: it cannot honour a mask of keys")


def refuse_subset(who: nn.Module, layout: Layout, why: str = "needs every patch of the grid in order") -> None:
    """Raise ValueError when ``layout`` keeps only some patches."""
    if layout.index is not None:
        kept = f"{layout.index.shape[1]} of {layout.grid.patches}"
        raise ValueError(f"{_name(who)} {why}, got a kept subset of {kept}")


def refuse_sizes(who: nn.Module, layout: Layout, why: str = "follows the grid of the batch") -> None:
    """Raise ValueError for pictures padded to one grid: for what follows the width and the borders of the grid."""
    if layout.sizes is not None:
        raise ValueError(f"{_name(who)} {why}: it cannot honour pictures of different sizes in it")


def refuse_cross(who: nn.Module, q: Tensor | None, v: Tensor) -> None:
    """Raise ValueError when queries and values are of two sequences."""
    if q is not None:
        require_as_many(q, v, f"{_name(who)} mixes one sequence: it")


def require_as_many(q: Tensor, k: Tensor, what: str = "a causal or pairwise mask") -> None:
    """Raise ValueError when queries and keys are of two sequences, which ``what`` cannot be of."""
    n, m = q.shape[2], k.shape[2]
    if n != m:
        raise ValueError(f"{what} needs as many queries as keys; got {n} queries, {m} keys")


def refuse_resizing(who: nn.Module, built: Grid, *names: str) -> None:
    """From now on ``who`` refuses, with a ValueError, state of parameters ``names`` that another token count shaped."""

    def check(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
        for name in names:
            came = state.get(prefix + name)
            wanted = getattr(module, name)
            if came is not None and came.shape != wanted.shape:
                raise ValueError(
                    f"{_name(module)} was built for {built.tokens} tokens, where {prefix}{name} is "
                    f"{tuple(wanted.shape)}; got {tuple(came.shape)}, learned for others: it cannot be resized"
                )

    who.register_load_state_dict_pre_hook(check)


def _name(who: nn.Module) -> str:
    return type(who).__name__


def _words(grid: Grid) -> str:
    front = f" after {grid.num_prefix} prefix tokens" if grid.prefix else ""
    return f"{grid.tokens} tokens ({grid.height}x{grid.width} patches{front})"
