"""What one head's mixing costs, projections left out."""

from collections.abc import Mapping, Sequence
from functools import partial

import torch

from vit.analysis.cost import macs_of, seconds
from vit.attention import MechanismFactory, Projections
from vit.tokens import Grid, Layout


def core_macs(
    mechanisms: Mapping[str, MechanismFactory], sides: Sequence[int], width: int = 32
) -> dict[str, list[int]]:
    """Multiply-adds of each mechanism, by name, on square grids of these sides."""
    return {name: [macs_of(_core(made, side, width)) for side in sides] for name, made in mechanisms.items()}


def core_seconds(
    mechanisms: Mapping[str, MechanismFactory], sides: Sequence[int], width: int = 32, repeats: int = 5
) -> dict[str, list[float]]:
    """Seconds of each mechanism's forward pass, the least of ``repeats`` after one to warm up."""
    found: dict[str, list[float]] = {}
    for name, made in mechanisms.items():
        cores = [_core(made, side, width) for side in sides]
        found[name] = [min([seconds(core) for _ in range(repeats + 1)][1:]) for core in cores]
    return found


def _core(mechanism: MechanismFactory, side: int, width: int) -> partial[torch.Tensor]:
    grid = Grid(side, side)
    made = mechanism(1, width, grid).eval().requires_grad_(False)
    q, k, v = torch.randn(3, 1, 1, grid.tokens, width).unbind()
    first = Projections(q if "q" in made.inputs else None, k if "k" in made.inputs else None, v)
    return partial(made, *first, Layout(grid), *((first,) if made.second else ()))
