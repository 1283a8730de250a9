"""Every attention mechanism and what it can do: a new one joins the shared tests by one line in `MECHANISMS`."""

from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from tests.helpers import redrawn
from vit.attention import (
    LSH,
    RFA,
    Additive,
    BigBird,
    BlockGather,
    Dense,
    DenseSynthesizer,
    EdgeBias,
    Edges,
    Efficient,
    EfficientScaling,
    Engine,
    EngineFactory,
    FactorizedDenseSynthesizer,
    FactorizedRandomSynthesizer,
    GatedPositional,
    General,
    GlobalTokens,
    GridGraph,
    Linear,
    Linformer,
    Local,
    Longformer,
    Mechanism,
    MechanismFactory,
    NearestBias,
    NearestNeighbors,
    Neighborhood,
    Nystrom,
    PatternFactory,
    Performer,
    PerHead,
    Projections,
    RandomSynthesizer,
    RelativeBias,
    Relu,
    ReluSum,
    Routing,
    ShiftedWindow,
    Sinkhorn,
    Softmax,
    Sparse,
    Strided,
    Superpixels,
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


NEITHER = {"causal": False, "pairs": False}
LEARNED = {"cross": False, "any_length": False, "subset": False, "equivariant": False}

MECHANISMS = [
    Member(Additive),
    Member(EdgeBias, cross=False, any_length=False, subset=False, equivariant=False, placeless=False),
    Member(General),
    Member(partial(Longformer, width=1), cross=False, equivariant=False, subset=False, placeless=False),
    Member(partial(NearestBias, neighbors=2, start=1.0), cross=False, placeless=False),
    Member(partial(NearestNeighbors, neighbors=2), cross=False, placeless=False, positive=False),
    Member(RelativeBias, cross=False, equivariant=False, placeless=False, borderless=False),
    Member(Relu, simplex=False, positive=False),
    Member(ReluSum, simplex=False, positive=False),
    Member(DenseSynthesizer, **LEARNED),
    Member(Efficient, **NEITHER),
    Member(EfficientScaling, **NEITHER, simplex=False),
    Member(FactorizedDenseSynthesizer, **LEARNED),
    Member(FactorizedRandomSynthesizer, **LEARNED),
    Member(GatedPositional, cross=False, equivariant=False, placeless=False),
    Member(LSH, pairs=False, cross=False, positive=False),
    Member(partial(LSH, buckets=2, chunk=2), pairs=False, cross=False, equivariant=False, positive=False),
    Member(Linear, pairs=False),
    Member(partial(Linformer, rank=5), **NEITHER, any_length=False, subset=False, equivariant=False, simplex=False),
    Member(Nystrom, **NEITHER, cross=False, simplex=False),
    Member(partial(Nystrom, landmarks=3), **NEITHER, cross=False, equivariant=False, simplex=False),
    Member(Performer, pairs=False),
    Member(RFA, pairs=False, simplex=False),
    Member(RandomSynthesizer, **LEARNED),
    Member(partial(Routing, clusters=2), **NEITHER, positive=False),
    Member(partial(Sinkhorn, block_size=3), **NEITHER, cross=False, equivariant=False),
    Member(Softmax),
    Member(partial(Softmax, scale=0.3)),
    Member(
        partial(Superpixels, side=2),
        causal=False,
        cross=False,
        equivariant=False,
        placeless=False,
        borderless=False,
        positive=False,
    ),
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
