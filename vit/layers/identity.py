"""No mixing at all."""

from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from vit.tokens import Grid, Layout


@final
class Identity(nn.Module):
    """No mixing: the block becomes a per-token MLP, the baseline that shows what mixing adds."""

    def __init__(self, dim: int, grid: Grid) -> None:
        super().__init__()

    def forward(self, x: Float[Tensor, "b n c"], layout: Layout) -> Float[Tensor, "b n c"]:
        return x
