"""A sparse pattern as one boolean matrix."""

from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from vit.attention.engine import Engine, Tables
from vit.tokens import Grid, Layout


@final
class Dense(Engine):
    """The pattern's full matrix, given to torch's kernels: the reference, and the faster one up to about 1,000 tokens.

    Time n^2 d whatever the pattern. Takes every mask, and a kept subset of the patches.
    """

    def plan(self, grid: Grid) -> Tables:
        return {"allowed": self.pattern.allowed(grid)[None]}

    def forward(
        self,
        q: Float[Tensor, "b h n d"],
        k: Float[Tensor, "b h n d"],
        v: Float[Tensor, "b h n e"],
        layout: Layout,
        dropout: float,
    ) -> Float[Tensor, "b h n e"]:
        allowed = self._of(layout, q.device)
        if layout.mask is not None:
            allowed = allowed & layout.mask.allowed(layout.tokens, q.device)[:, None]
        return F.scaled_dot_product_attention(q, k, v, allowed, dropout)

    def _of(self, layout: Layout, device: torch.device) -> Bool[Tensor, "p g n n"]:
        allowed = self.tables(layout.grid, device)["allowed"]
        assert allowed is not None
        if layout.index is None:
            return allowed
        front = torch.arange(layout.grid.num_prefix, device=device).expand(len(layout.index), -1)
        kept = torch.cat((front, layout.index + layout.grid.num_prefix), dim=1)
        return allowed[0][:, kept[:, :, None], kept[:, None, :]].transpose(0, 1)
