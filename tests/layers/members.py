"""Every mixer and what it can do: a new one joins the shared tests of test_mixers.py by one line in `MIXERS`."""

from dataclasses import dataclass
from functools import partial

import pytest
from torch import nn

from tests.helpers import redrawn
from vit.layers import (
    AFTConv,
    AFTFull,
    AFTLocal,
    AFTSimple,
    BiLstm,
    Columns,
    ConvModule,
    DepthwiseConv1d,
    DepthwiseConv2d,
    Fourier,
    Identity,
    MixerFactory,
    NeighbourMean,
    Scan,
    SelfAttention,
    Snake,
    SpatialGating,
    SpatialReduction,
    TokenMlp,
)
from vit.tokens import Grid


@dataclass(frozen=True)
class Member:
    """What a mixer honours; a trait that is False it has to refuse with a ValueError, or is known not to have.

    Attributes:
        keys: padding.
        causal: a causal mask.
        both_ways: one with a prefix length.
        pairs: a mask of pairs.
        subset: kept patches only.
        any_grid: another grid than the constructor's.
        equivariant: permuting patches permutes the output.
        moves_prefix: prefix tokens take part.
    """

    factory: MixerFactory
    keys: bool = True
    causal: bool = True
    both_ways: bool = True
    pairs: bool = True
    subset: bool = True
    any_grid: bool = True
    equivariant: bool = True
    moves_prefix: bool = True

    def build(self, dim: int, grid: Grid) -> nn.Module:
        """In float64 and eval mode, every parameter drawn anew."""
        return redrawn(self.factory(dim, grid))

    def __str__(self) -> str:
        if not isinstance(self.factory, partial):
            return self.factory.__name__
        named = {key: getattr(value, "__name__", value) for key, value in self.factory.keywords.items()}
        return f"{self.factory.func.__name__}({', '.join(f'{key}={value}' for key, value in named.items())})"


PLAIN = {"causal": False, "both_ways": False, "pairs": False, "subset": False, "equivariant": False}
FIXED = {**PLAIN, "keys": False, "any_grid": False}
OUTSIDE = {**PLAIN, "moves_prefix": False}
IN_ORDER = {"both_ways": False, "pairs": False, "equivariant": False}

MIXERS = [
    Member(AFTConv, **PLAIN),
    Member(AFTFull, any_grid=False, equivariant=False),
    Member(partial(AFTLocal, window_size=3), any_grid=False, equivariant=False),
    Member(AFTSimple),
    Member(BiLstm, **IN_ORDER),
    Member(ConvModule, **OUTSIDE),
    Member(partial(DepthwiseConv1d, kernel_size=5), **IN_ORDER, subset=False, moves_prefix=False),
    Member(DepthwiseConv2d, **OUTSIDE),
    Member(Fourier, **PLAIN, keys=False),
    Member(Identity, moves_prefix=False),
    Member(NeighbourMean, **OUTSIDE),
    Member(partial(Scan, mixer=BiLstm, order=Snake), **IN_ORDER, causal=False),
    Member(partial(Scan, mixer=DepthwiseConv1d, order=Columns), **OUTSIDE),
    Member(SelfAttention),
    Member(SpatialGating, **FIXED),
    Member(partial(SpatialReduction, reduction=2), **PLAIN),
    Member(TokenMlp, **FIXED),
]


def over(**traits: bool) -> pytest.MarkDecorator:
    """Parametrise a test over the mixers that have these traits."""
    chosen = [member for member in MIXERS if all(vars(member)[name] == has for name, has in traits.items())]
    return pytest.mark.parametrize("member", chosen, ids=str)
