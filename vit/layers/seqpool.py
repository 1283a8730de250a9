"""A linear map's softmax as a readout."""

from typing import final

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from vit.layers.weighted import WeightedPool, shares, weighted_sum
from vit.tokens import Grid, Layout


@final
class SeqPool(WeightedPool):
    """sum_i alpha_i x_i with alpha = softmax(w x + b) over the patch tokens.  Hassani et al. 2021 (CCT), eq. 4.

    Args:
        dim: channels.
        grid: unused, any number of patches is pooled.
    """

    def __init__(self, dim: int, grid: Grid) -> None:
        super().__init__()
        self.score = nn.Linear(dim, 1)

    @override
    def weights(self, tokens: Float[Tensor, "b n c"], layout: Layout) -> Float[Tensor, "b p"]:
        scores = rearrange(self.score(tokens[:, layout.grid.num_prefix :]), "b p 1 -> b p")
        return shares(scores, layout.patch_keys)

    @override
    def forward(self, tokens: Float[Tensor, "b n c"], layout: Layout) -> Float[Tensor, "b c"]:
        return weighted_sum(self.weights(tokens, layout), tokens[:, layout.grid.num_prefix :])
