"""Attention from every token to a coarser grid."""

from typing import final

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from vit.checks import refuse_causal, refuse_pairs, refuse_subset, require_at_least, require_tokens
from vit.layers.attend import head_width
from vit.layers.norm import LayerNorm
from vit.tokens import Grid, Layout


@final
class SpatialReduction(nn.Module):
    """softmax(q k^T / sqrt(d)) v, k and v of norm(r x r patches convolved to one).  Wang et al. 2021 (PVT), eq. 1 to 3.

    The convolution mixes channels, so this is a mixer and no mechanism. Time n^2 c / r^2. Prefix tokens pass the
    convolution by: they attend, and are attended to, as they are (after the norm). A grid whose sides r does not divide
    goes on with zeros below and on the right. Padding lies outside too, and a square that is all padding is not seen.

    Args:
        dim: channels.
        grid: unused, the grid of the call is reduced.
        num_heads: heads, of width dim / num_heads.
        reduction: r, 1 keeps the grid.
        qkv_bias: bias on the projections.

    Raises:
        ValueError: ``dim`` is not divisible by ``num_heads``, ``num_heads`` or ``reduction`` is below 1. When called: a
            causal mask, a mask of pairs or a kept subset, or other than the layout's tokens.
    """

    def __init__(self, dim: int, grid: Grid, num_heads: int = 3, reduction: int = 2, qkv_bias: bool = True) -> None:
        super().__init__()
        head_width(dim, num_heads)
        self.num_heads, self.reduction = num_heads, require_at_least(1, reduction, "reduction")
        self.q = nn.Linear(dim, dim, bias=qkv_bias)
        self.kv = nn.Linear(dim, 2 * dim, bias=qkv_bias)
        self.reduce = nn.Conv2d(dim, dim, reduction, reduction)
        self.norm = LayerNorm(dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "b n c"], layout: Layout) -> Float[Tensor, "b n c"]:
        q, k, v, seen = self._project(x, layout)
        mixed = F.scaled_dot_product_attention(q, k, v, None if seen is None else seen[:, None, None])
        return self.proj(rearrange(mixed, "b h n d -> b n (h d)"))

    def matrix(self, x: Float[Tensor, "b n c"], layout: Layout) -> Float[Tensor, "b h n n"]:
        """What each token takes from each: its weight of a square, shared out by the size of the convolution's taps.

        Rows sum to one. It is the attention matrix where r is 1; beyond, no matrix of weights holds what the
        convolution does to values.
        """
        q, k, _, seen = self._project(x, layout)
        scores = q @ k.mT * q.shape[-1] ** -0.5
        if seen is not None:
            scores = scores.masked_fill(~seen[:, None, None], torch.finfo(scores.dtype).min)
        front, height, width = layout.grid.num_prefix, layout.grid.height, layout.grid.width
        weights, keys = scores.softmax(dim=-1), layout.keys
        patches = x.new_ones(1, layout.grid.patches, 1) if keys is None else keys[:, front:, None].to(x.dtype)
        side, image = self.reduction, self._image(patches, layout)
        inside = rearrange(image, "b 1 (y r) (x s) -> b y x r s", r=side, s=side)
        share = inside * self.reduce.weight.norm(dim=(0, 1))
        share = share / share.sum(dim=(-2, -1), keepdim=True).clamp(min=torch.finfo(share.dtype).tiny)
        squares = rearrange(weights[..., front:], "b h n (y x) -> b h n y x 1 1", y=share.shape[1])
        spread = rearrange(squares * share[:, None, None], "b h n y x r s -> b h n (y r) (x s)")[..., :height, :width]
        return torch.cat((weights[..., :front], spread.flatten(-2)), dim=-1)

    def _project(
        self, x: Float[Tensor, "b n c"], layout: Layout
    ) -> tuple[Float[Tensor, "b h n d"], Float[Tensor, "b h m d"], Tensor, Bool[Tensor, "b m"] | None]:
        """Queries of all tokens; keys and values of prefix tokens and squares, and which of these may be seen."""
        require_tokens(self, layout, x.shape[1])
        refuse_subset(self, layout)
        refuse_causal(self, layout)
        refuse_pairs(self, layout)
        front, keys = layout.grid.num_prefix, layout.keys
        patches, seen = x[:, front:], None
        if keys is not None:
            patches = patches.masked_fill(~keys[:, front:, None], 0.0)
            squares = F.max_pool2d(self._image(keys[:, front:, None].to(x.dtype), layout), self.reduction)
            seen = torch.cat((keys[:, :front], squares.flatten(1) > 0), dim=1)
        reduced = rearrange(self.reduce(self._image(patches, layout)), "b c y x -> b (y x) c")
        coarse = self.kv(self.norm(torch.cat((x[:, :front], reduced), dim=1)))
        k, v = rearrange(coarse, "b m (two h d) -> two b h m d", two=2, h=self.num_heads)
        return rearrange(self.q(x), "b n (h d) -> b h n d", h=self.num_heads), k, v, seen

    def _image(self, patches: Float[Tensor, "b n c"], layout: Layout) -> Float[Tensor, "b c y x"]:
        """Patches on their grid, continued with zeros to whole squares."""
        image = rearrange(patches, "b (y x) c -> b c y x", y=layout.grid.height)
        return F.pad(image, (0, -layout.grid.width % self.reduction, 0, -layout.grid.height % self.reduction))
