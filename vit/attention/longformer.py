"""A band for most tokens, and a few global ones with projections of their own."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vit.attention.block_gather import BlockGather
from vit.attention.engine import EngineFactory
from vit.attention.global_tokens import GlobalTokens
from vit.attention.mechanism import Mechanism, Projections
from vit.checks import refuse_sizes, require_at_least, require_one_sequence
from vit.tokens import Grid, Layout


@final
class Longformer(Mechanism):
    """`GlobalTokens`, whose global rows use queries, keys and values of their own.  Beltagy et al. 2020, section 3.1.

    The others see the global tokens by the first projections. Memory n (width + global tokens).

    Args:
        width: of the band, to either side.
        dilation: of the band, see `Local`.
        global_tokens: the first tokens of the sequence. All prefix tokens are global; without any the first patch is.
        engine: how the band is computed.
        attn_drop: probability of dropping an attention weight in training.

    Raises:
        ValueError: ``global_tokens`` is below 1; when called without the second set of projections, or with queries
            that are not the layout's tokens, or with pictures of different sizes.
    """

    second = True

    def __init__(
        self,
        heads: int,
        head_dim: int,
        grid: Grid,
        width: int = 4,
        dilation: int = 1,
        global_tokens: int = 1,
        engine: EngineFactory = BlockGather,
        attn_drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.global_tokens = require_at_least(1, global_tokens, "global_tokens")
        self.engine = engine(GlobalTokens(heads, grid, global_tokens, width, dilation), grid)
        self.attn_drop = attn_drop

    def forward(
        self,
        q: Float[Tensor, "b h n d"],
        k: Float[Tensor, "b h m d"],
        v: Float[Tensor, "b h m e"],
        layout: Layout,
        second: Projections | None = None,
    ) -> Float[Tensor, "b h n e"]:
        require_one_sequence(self, layout, q, k)
        refuse_sizes(self, layout)
        if second is None or second.q is None or second.k is None:
            raise ValueError("Longformer needs a second set of projections for its global tokens, as SelfAttention has")
        dropout = self.attn_drop if self.training else 0.0
        count = max(self.global_tokens, layout.grid.num_prefix)
        if layout.index is not None and count > layout.grid.num_prefix:
            raise ValueError(f"a kept subset need not hold the {count} global tokens; expected as many prefix tokens")
        mask = None
        if layout.mask is not None:
            everyone = torch.arange(layout.tokens, device=q.device)
            mask = layout.mask.between(everyone[:count], everyone)[:, None]
        first = F.scaled_dot_product_attention(second.q[:, :, :count], second.k, second.v, mask, dropout)
        return torch.cat((first, self.engine(q, k, v, layout, dropout)[:, :, count:]), dim=2)
