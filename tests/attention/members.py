"""Every attention mechanism and what it can do: a new one joins the shared tests by one line in `MECHANISMS`."""

from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from tests.helpers import redrawn
from vit.attention import (
    Additive,
    BigBird,
    BlockGather,
    Dense,
    EdgeBias,
    Edges,
    Engine,
    EngineFactory,
    General,
    GlobalTokens,
    GridGraph,
    Local,
    Longformer,
    Mechanism,
    MechanismFactory,
    NearestNeighbors,
    Neighborhood,
    PatternFactory,
    PerHead,
    Projections,
    RelativeBias,
    Relu,
    ReluSum,
    ShiftedWindow,
    Softmax,
    Sparse,
    Strided,
    Window,
)
from vit.tokens import Grid, Layout


@dataclass(frozen=True)
class Member:
    """A trait that is False is one the mechanism has to refuse with a ValueError, or is known not to have."""

    factory: MechanismFactory
    keys: bool = True
    causal: bool = True
    pairs: bool = True
    cross: bool = True
    any_length: bool = True
    equivariant: bool = True
    simplex: bool = True
    subset: bool = True  # honours a kept subset of the patches
    placeless: bool = True  # does not ask where tokens lie
    borderless: bool = True  # padded is as alone: the end of the grid changes nothing before it
    positive: bool = True  # every key that a query may see weighs something

    def build(self, heads: int, head_dim: int, grid: Grid) -> Mechanism:
        mechanism = self.factory(heads, head_dim, grid)
        return redrawn(Twice(mechanism) if mechanism.second else mechanism)

    def __str__(self) -> str:
        return _name(self.factory)


class Twice(Mechanism):
    """A mechanism that wants a second set of projections, given the first once more."""

    def __init__(self, mechanism: Mechanism) -> None:
        super().__init__()
        self.mechanism = mechanism

    def forward(self, q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
        return self.mechanism(q, k, v, layout, Projections(q, k, v))


def _name(value: object) -> str:
    if isinstance(value, partial):
        return f"{_name(value.func)}({', '.join(f'{k}={_name(v)}' for k, v in value.keywords.items())})"
    if isinstance(value, list):
        return f"[{', '.join(map(_name, value))}]"
    return value.__name__ if isinstance(value, type) else str(value)


def sees(module: nn.Module, grid: Grid) -> Tensor:
    """(n n) who may see whom in its first head, without a mask."""
    engines = [part for part in module.modules() if isinstance(part, Engine)]
    return engines[0].pattern.allowed(grid)[0] if engines else torch.ones(grid.tokens, grid.tokens, dtype=torch.bool)


def _sparse(pattern: PatternFactory, engine: EngineFactory = BlockGather, **traits: bool) -> Member:
    subset = engine is not BlockGather
    traits = {"cross": False, "equivariant": False, "placeless": False, "subset": subset, **traits}
    return Member(partial(Sparse, pattern=pattern, engine=engine), **traits)


MECHANISMS = [
    Member(Additive),
    Member(EdgeBias, cross=False, any_length=False, subset=False, equivariant=False, placeless=False),
    Member(General),
    Member(partial(Longformer, width=1), cross=False, equivariant=False, subset=False, placeless=False),
    Member(partial(NearestNeighbors, neighbors=2), cross=False, placeless=False, positive=False),
    Member(RelativeBias, cross=False, equivariant=False, placeless=False, borderless=False),
    Member(Relu, simplex=False, positive=False),
    Member(ReluSum, simplex=False, positive=False),
    Member(Softmax),
    Member(partial(Softmax, scale=0.3)),
    _sparse(partial(BigBird, block_size=1, random=2), borderless=False, any_length=False),
    _sparse(partial(Edges, edges=[(0, 3), (5, 0), (2, 4)]), any_length=False),
    _sparse(partial(GlobalTokens, count=2, width=1)),
    _sparse(GridGraph),
    _sparse(partial(Local, width=2)),
    _sparse(partial(Local, width=2), Dense),
    _sparse(partial(Neighborhood, kernel_size=3), borderless=False),
    _sparse(partial(PerHead, patterns=[partial(Local, width=1)])),
    _sparse(partial(ShiftedWindow, size=6)),
    _sparse(partial(Strided, width=1, stride=3)),
    _sparse(partial(Window, size=3)),
]


def over(**traits: bool) -> pytest.MarkDecorator:
    """Parametrise a test over the members that have these traits."""
    chosen = [member for member in MECHANISMS if all(vars(member)[name] == has for name, has in traits.items())]
    return pytest.mark.parametrize("member", chosen, ids=str)
