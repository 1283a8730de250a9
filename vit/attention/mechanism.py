"""The seam every attention mechanism implements."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from vit.tokens import Grid, Layout


class Mechanism(nn.Module, ABC):
    """Mix values across tokens by scalar weights per head: linear in ``v``, token count kept.

    Built as ``Mechanism(heads, head_dim, grid, ...own options)``; ``grid`` only sizes parameters. A mechanism that
    cannot honour a layout (its mask, kept subset or token count) raises ValueError; none ignores one.
    Linearity in ``v`` is what lets `vit.analysis.maps` read any mechanism's exact matrix by probing.
    """

    inputs: ClassVar[tuple[str, ...]] = ("q", "k", "v")
    """The projections it wants; those it leaves out arrive as None."""

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
