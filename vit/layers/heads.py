"""Tokens to logits: a pool and a linear map."""

from collections.abc import Callable
from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from vit.layers.pooling import ClassToken, PoolFactory
from vit.tokens import Grid, Layout

HeadFactory = Callable[[int, Grid, int], nn.Module]
"""(dim, grid, num_classes) -> a head, called ``(tokens (b n c), layout) -> logits (b k)``."""


@final
class Head(nn.Module):
    """fc(drop(pool(tokens))).

    Args:
        dim: channels.
        grid: of the tokens.
        num_classes: logits.
        pool: tokens to one vector.
        drop: dropout before the linear map.
    """

    def __init__(
        self, dim: int, grid: Grid, num_classes: int, pool: PoolFactory = ClassToken, drop: float = 0.0
    ) -> None:
        super().__init__()
        self.pool = pool(dim, grid)
        self.drop = nn.Dropout(drop)
        self.fc = nn.Linear(dim, num_classes)

    def forward(self, tokens: Float[Tensor, "b n c"], layout: Layout) -> Float[Tensor, "b k"]:
        return self.fc(self.drop(self.pool(tokens, layout)))


@final
class DistilledHead(nn.Module):
    """Class token and distillation token, a linear map each; logits are their mean.  Touvron et al. 2021 (DeiT), 4.

    A distillation task reads the two apart with `both`. The backbone needs the prefix ``("cls", "dist")``.
    """

    def __init__(self, dim: int, grid: Grid, num_classes: int) -> None:
        super().__init__()
        self.cls, self.dist = ClassToken(dim, grid, "cls"), ClassToken(dim, grid, "dist")
        self.fc, self.fc_dist = nn.Linear(dim, num_classes), nn.Linear(dim, num_classes)

    def forward(self, tokens: Float[Tensor, "b n c"], layout: Layout) -> Float[Tensor, "b k"]:
        label, teacher = self.both(tokens, layout)
        return (label + teacher) / 2

    def both(self, tokens: Float[Tensor, "b n c"], layout: Layout) -> tuple[Float[Tensor, "b k"], Float[Tensor, "b k"]]:
        """Logits for the label and for the teacher's answer."""
        return self.fc(self.cls(tokens, layout)), self.fc_dist(self.dist(tokens, layout))
