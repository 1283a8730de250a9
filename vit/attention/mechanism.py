"""The seam every attention mechanism implements."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from vit.tokens import Grid, Layout


class Projections(NamedTuple):
    """One set of queries, keys and values; None for what a mechanism does not take."""

    q: Float[Tensor, "b h n d"] | None
    k: Float[Tensor, "b h m d"] | None
    v: Float[Tensor, "b h m e"]


class Mechanism(nn.Module, ABC):
    """Mix values across tokens by scalar weights per head: linear in ``v``, token count kept.

    Built as ``Mechanism(heads, head_dim, grid, ...own options)``; ``grid`` only sizes parameters. A mechanism that
    cannot honour a layout (its mask, kept subset or token count) raises ValueError; none ignores one.
    Linearity in ``v`` is what lets `vit.analysis.maps` read any mechanism's exact matrix by probing.
    """

    inputs: ClassVar[tuple[str, ...]] = ("q", "k", "v")
    """The projections it wants; those it leaves out arrive as None."""

    second: ClassVar[bool] = False
    """Whether it wants a second set of them, projected by weights of its own: the argument after ``layout``. It has to
    be linear in both sets' values together."""

    @abstractmethod
    def forward(
        self,
        q: Float[Tensor, "b h n d"],
        k: Float[Tensor, "b h m d"],
        v: Float[Tensor, "b h m e"],
        layout: Layout,
    ) -> Float[Tensor, "b h n e"]:
        """Mixed values, one row per query. ``layout`` is that of the keys."""


MechanismFactory = Callable[[int, int, Grid], Mechanism]
