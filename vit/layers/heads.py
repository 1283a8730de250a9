"""Tokens to logits: a pool and a linear map."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from vit.layers.pooling import ClassToken, PoolFactory
from vit.tokens import Grid, Layout


class LinearHead(nn.Module, ABC):
    """Tokens to features, and these to logits by a linear map."""

    @abstractmethod
    def features(self, tokens: Float[Tensor, "b n c"], layout: Layout) -> Float[Tensor, "b d"]:
        """What the linear map sees."""

    @abstractmethod
    def classify(self, features: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        """The linear map."""

    def forward(self, tokens: Float[Tensor, "b n c"], layout: Layout) -> Float[Tensor, "b k"]:
        return self.classify(self.features(tokens, layout))


HeadFactory = Callable[[int, Grid, int], LinearHead]
"""(dim, grid, num_classes) -> a head, called ``(tokens (b n c), layout) -> logits (b k)``."""


@final
class Head(LinearHead):
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

    @override
    def features(self, tokens: Float[Tensor, "b n c"], layout: Layout) -> Float[Tensor, "b c"]:
        return self.drop(self.pool(tokens, layout))

    @override
    def classify(self, features: Float[Tensor, "b c"]) -> Float[Tensor, "b k"]:
        return self.fc(features)


@final
class DistilledHead(LinearHead):
    """Class token and distillation token, a linear map each; logits are their mean.  Touvron et al. 2021 (DeiT), 4.

    A distillation task reads the two apart with `both`. The backbone needs the prefix ``("cls", "dist")``.
    """

    def __init__(self, dim: int, grid: Grid, num_classes: int) -> None:
        super().__init__()
        self.cls, self.dist = ClassToken(dim, grid, "cls"), ClassToken(dim, grid, "dist")
        self.fc, self.fc_dist = nn.Linear(dim, num_classes), nn.Linear(dim, num_classes)

    @override
    def features(self, tokens: Float[Tensor, "b n c"], layout: Layout) -> Float[Tensor, "b two_c"]:
        """The two tokens side by side: each map sees its half."""
        return torch.cat((self.cls(tokens, layout), self.dist(tokens, layout)), dim=-1)

    @override
    def classify(self, features: Float[Tensor, "b two_c"]) -> Float[Tensor, "b k"]:
        label, teacher = self._maps(features)
        return (label + teacher) / 2

    def both(self, tokens: Float[Tensor, "b n c"], layout: Layout) -> tuple[Float[Tensor, "b k"], Float[Tensor, "b k"]]:
        """Logits for the label and for the teacher's answer."""
        return self._maps(self.features(tokens, layout))

    def _maps(self, features: Tensor) -> tuple[Tensor, Tensor]:
        label, teacher = features.chunk(2, dim=-1)
        return self.fc(label), self.fc_dist(teacher)
