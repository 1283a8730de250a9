"""What a mechanism cannot honour, refused in one voice."""

from typing import Any

from torch import Tensor, nn

from vit.tokens import Grid, Layout


def refuse_causal(who: nn.Module, layout: Layout, why: str) -> None:
    """Raise ValueError when ``layout`` asks for a causal order."""
    if layout.mask is not None and layout.mask.causal:
        raise ValueError(f"{type(who).__name__} {why}: it cannot honour a causal mask")


def refuse_pairs(who: nn.Module, layout: Layout, why: str) -> None:
    """Raise ValueError when ``layout`` says pair by pair who sees whom."""
    if layout.mask is not None and layout.mask.pairs is not None:
        raise ValueError(f"{type(who).__name__} {why}: it cannot honour a mask of pairs")


def refuse_cross(who: nn.Module, q: Tensor | None, v: Tensor) -> None:
    """Raise ValueError when queries and values are of two sequences."""
    if q is not None and q.shape[2] != v.shape[2]:
        raise ValueError(
            f"{type(who).__name__} mixes one sequence: it needs as many queries as keys; "
            f"got {q.shape[2]} queries, {v.shape[2]} keys"
        )


def refuse_other_tokens(who: nn.Module, built: Grid, v: Tensor, layout: Layout) -> None:
    """Raise ValueError when the call has not the tokens, all and in order, that ``who`` has parameters for.

    A grid of as many patches has other places: row and column of a patch are not those that its parameters learned.
    """
    name, grid = type(who).__name__, layout.grid
    if v.shape[2] != built.tokens:
        raise ValueError(f"{name} was built for {built.tokens} tokens, got {v.shape[2]}")
    if grid[:2] != built[:2]:
        own, came = f"{built.height}x{built.width}", f"{grid.height}x{grid.width}"
        raise ValueError(f"{name} was built for {own} patches, got as many tokens of {came}")
    if layout.index is not None:
        kept = f"{layout.index.shape[1]} of {layout.grid.patches}"
        raise ValueError(f"{name} has weights for every patch in order, got a kept subset of {kept}")


def refuse_resizing(who: nn.Module, built: Grid, *names: str) -> None:
    """From now on ``who`` refuses, with a ValueError, state of parameters ``names`` that another token count shaped."""

    def check(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
        for name in names:
            came = state.get(prefix + name)
            wanted = getattr(module, name)
            if came is not None and came.shape != wanted.shape:
                raise ValueError(
                    f"{type(module).__name__} was built for {built.tokens} tokens, where {prefix}{name} is "
                    f"{tuple(wanted.shape)}; got {tuple(came.shape)}, learned for others: it cannot be resized"
                )

    who.register_load_state_dict_pre_hook(check)


def refuse_tokens(who: nn.Module, v: Tensor, layout: Layout) -> None:
    """Raise ValueError when the sequence has not as many tokens as ``layout`` says."""
    if v.shape[2] != layout.tokens:
        raise ValueError(f"{type(who).__name__} got {v.shape[2]} tokens, the layout has {layout.tokens}")
