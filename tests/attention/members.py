"""Every attention mechanism and what it can do: a new one joins the shared tests by one line in `MECHANISMS`."""

from dataclasses import dataclass
from functools import partial

import pytest

from vit.attention import Mechanism, MechanismFactory, Softmax
from vit.tokens import Grid


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

    def build(self, heads: int, head_dim: int, grid: Grid) -> Mechanism:
        return self.factory(heads, head_dim, grid).double().eval()

    def __str__(self) -> str:
        factory = self.factory
        if isinstance(factory, partial):
            return f"{factory.func.__name__}({', '.join(f'{k}={v}' for k, v in factory.keywords.items())})"
        return factory.__name__


MECHANISMS = [
    Member(Softmax),
    Member(partial(Softmax, scale=0.3)),
]


def over(**traits: bool) -> pytest.MarkDecorator:
    """Parametrise a test over the members that have these traits."""
    chosen = [member for member in MECHANISMS if all(vars(member)[name] == has for name, has in traits.items())]
    return pytest.mark.parametrize("member", chosen, ids=str)
