"""Softmax attention with a learned bias per offset."""

from typing import final

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from vit.attention.masks import biased_attention
from vit.attention.mechanism import Mechanism
from vit.checks import refuse_sizes, require_one_sequence
from vit.tokens import Grid, Layout


@final
class RelativeBias(Mechanism):
    """softmax(q k^T / sqrt(d) + b) v, b learned per head and offset of two patches.  Liu et al. 2021 (Swin), eq. 4.

    Pairs with a prefix token have no offset and no bias. Another grid than the constructor's resizes the table
    bicubically, as timm does with Swin's. Starts as `Softmax`, with zeros. Memory n^2 where no kernel fuses a bias.

    Args:
        attn_drop: probability of dropping an attention weight in training.

    Raises:
        ValueError: when called with queries that are not the layout's tokens, or with pictures of different sizes.
    """

    offsets: Int[Tensor, "1 p p"]

    def __init__(self, heads: int, head_dim: int, grid: Grid, attn_drop: float = 0.0) -> None:
        super().__init__()
        self.grid, self.attn_drop = Grid(grid.height, grid.width), attn_drop
        self.table = nn.Parameter(torch.zeros(heads, 2 * grid.height - 1, 2 * grid.width - 1))
        self.register_buffer("offsets", _offsets(Layout(self.grid), torch.device("cpu")), persistent=False)

    def forward(
        self,
        q: Float[Tensor, "b h n d"],
        k: Float[Tensor, "b h m d"],
        v: Float[Tensor, "b h m e"],
        layout: Layout,
    ) -> Float[Tensor, "b h n e"]:
        require_one_sequence(self, layout, q, k)
        refuse_sizes(self, layout)
        dropout = self.attn_drop if self.training else 0.0
        return biased_attention(q, k, v, self._bias(layout), layout, dropout)

    def _bias(self, layout: Layout) -> Float[Tensor, "p h n n"]:
        same = (layout.grid.height, layout.grid.width) == (self.grid.height, self.grid.width)
        table = self.table if same else _resized(self.table, layout.grid)
        offsets = self.offsets if same and layout.index is None else _offsets(layout, self.table.device)
        bias = rearrange(table.flatten(1)[:, offsets], "h p i j -> p h i j")
        front = layout.grid.num_prefix
        return F.pad(bias, (front, 0, front, 0))


def _offsets(layout: Layout, device: torch.device) -> Int[Tensor, "p n n"]:
    """Where in the flat table each pair of patches looks."""
    places = layout.coordinates(device).long()
    down, right = (places[:, :, None] - places[:, None]).unbind(-1)
    height, width = layout.grid.height, layout.grid.width
    return (down + height - 1) * (2 * width - 1) + right + width - 1


def _resized(table: Float[Tensor, "h y x"], grid: Grid) -> Float[Tensor, "h y2 x2"]:
    image = table[None].to(torch.promote_types(table.dtype, torch.float32))
    size = (2 * grid.height - 1, 2 * grid.width - 1)
    return F.interpolate(image, size, mode="bicubic", antialias=True, align_corners=False)[0].to(table.dtype)
