"""Softmax attention over the pairs of a pattern."""

from typing import final

from jaxtyping import Float
from torch import Tensor

from vit.attention.block_gather import BlockGather
from vit.attention.engine import EngineFactory
from vit.attention.mechanism import Mechanism
from vit.attention.pattern import PatternFactory
from vit.attention.window import Window
from vit.checks import refuse_sizes, require_one_sequence
from vit.tokens import Grid, Layout


@final
class Sparse(Mechanism):
    """softmax(q k^T / sqrt(d)) v over the keys that a pattern lets a query see.  Child et al. 2019, eq. 2 and 3.

    Prefix tokens are global whatever the pattern: every token sees them and they see every token. A mask is obeyed
    besides the pattern.

    Args:
        pattern: who sees whom.
        engine: how it is computed; the same numbers from each.
        attn_drop: probability of dropping an attention weight in training.

    Raises:
        ValueError: when called with queries that are not the layout's tokens, or with pictures of different sizes and a
            pattern that follows the grid's width or borders.
    """

    def __init__(
        self,
        heads: int,
        head_dim: int,
        grid: Grid,
        pattern: PatternFactory = Window,
        engine: EngineFactory = BlockGather,
        attn_drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.engine = engine(pattern(heads, grid), grid)
        self.attn_drop = attn_drop

    def forward(
        self,
        q: Float[Tensor, "b h n d"],
        k: Float[Tensor, "b h m d"],
        v: Float[Tensor, "b h m e"],
        layout: Layout,
    ) -> Float[Tensor, "b h n e"]:
        require_one_sequence(self, layout, q, k)
        if not self.engine.pattern.honours_sizes:
            refuse_sizes(self.engine.pattern, layout)
        return self.engine(q, k, v, layout, self.attn_drop if self.training else 0.0)
