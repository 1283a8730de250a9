"""Additive attention as a readout."""

from typing import final

from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from vit.layers.weighted import AdditiveScore, WeightedPool, shares, weighted_sum
from vit.tokens import Grid, Layout


@final
class AdditivePool(WeightedPool):
    """sum_i alpha_i x_i with alpha = softmax(u^T tanh(W x + b)) over the patch tokens.  Yang et al. 2016, eq. 5-7.

    Args:
        dim: channels.
        grid: unused, any number of patches is pooled.
        hidden: width inside the score, ``dim`` when None.
    """

    def __init__(self, dim: int, grid: Grid, hidden: int | None = None) -> None:
        super().__init__()
        self.score = AdditiveScore(dim, hidden)

    @override
    def weights(self, tokens: Float[Tensor, "b n c"], layout: Layout) -> Float[Tensor, "b p"]:
        return shares(self.score(tokens[:, layout.grid.num_prefix :]), layout.patch_keys)

    @override
    def forward(self, tokens: Float[Tensor, "b n c"], layout: Layout) -> Float[Tensor, "b c"]:
        return weighted_sum(self.weights(tokens, layout), tokens[:, layout.grid.num_prefix :])
