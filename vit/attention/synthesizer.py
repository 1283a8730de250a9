"""Attention matrices that are learned, or made from each token alone: no product of queries and keys.

Tay et al. 2021 (Synthesizer). All four have weights for each position: the number of tokens is fixed, and time and
memory stay quadratic in it. Of the n^2 d multiply-adds of softmax's scores the random forms save all or, with factors
of rank r, all but r of d; the factorized dense form nearly all, the dense form none. The values take as many as
softmax's. Masks are honoured as softmax attention honours them.
"""

import math
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vit.attention.mechanism import Mechanism
from vit.attention.numerics import masked_softmax
from vit.checks import refuse_cross, refuse_resizing, require_at_least, require_own_tokens
from vit.tokens import Grid, Layout


@final
class RandomSynthesizer(Mechanism):
    """softmax(R) v, R (n n) learned per head: the same matrix for every input.  Tay et al. 2021.

    Raises:
        ValueError: when called with another grid than built for or a kept subset, when loaded with weights of another
            number of tokens.
    """

    inputs: ClassVar[tuple[str, ...]] = ("v",)

    def __init__(self, heads: int, head_dim: int, grid: Grid) -> None:
        super().__init__()
        self.grid = grid
        self.scores = nn.Parameter(torch.randn(heads, grid.tokens, grid.tokens))
        refuse_resizing(self, grid, "scores")

    def forward(
        self,
        q: Float[Tensor, "b h n d"] | None,
        k: Float[Tensor, "b h m d"] | None,
        v: Float[Tensor, "b h m e"],
        layout: Layout,
    ) -> Float[Tensor, "b h m e"]:
        refuse_cross(self, q, v)
        require_own_tokens(self, layout, self.grid, v)
        return _mix(self.scores[None], v, layout)


@final
class FactorizedRandomSynthesizer(Mechanism):
    """softmax(R1 R2^T) v, R1 and R2 (n r) learned per head.  Tay et al. 2021.

    Args:
        rank: r, the most that the scores' rank can be.

    Raises:
        ValueError: ``rank`` below 1; when called or loaded as `RandomSynthesizer`.
    """

    inputs: ClassVar[tuple[str, ...]] = ("v",)

    def __init__(self, heads: int, head_dim: int, grid: Grid, rank: int = 8) -> None:
        super().__init__()
        require_at_least(1, rank, "rank")
        self.grid = grid
        self.rows = nn.Parameter(torch.randn(heads, grid.tokens, rank) * rank**-0.25)
        self.columns = nn.Parameter(torch.randn(heads, grid.tokens, rank) * rank**-0.25)
        refuse_resizing(self, grid, "rows", "columns")

    def forward(
        self,
        q: Float[Tensor, "b h n d"] | None,
        k: Float[Tensor, "b h m d"] | None,
        v: Float[Tensor, "b h m e"],
        layout: Layout,
    ) -> Float[Tensor, "b h m e"]:
        refuse_cross(self, q, v)
        require_own_tokens(self, layout, self.grid, v)
        return _mix((self.rows @ self.columns.mT)[None], v, layout)


@final
class DenseSynthesizer(Mechanism):
    """softmax(relu(q) W + b) v: row i is made from token i alone, by a layer d -> n per head.  Tay et al. 2021.

    Of the paper's two layers the first is the projection to q.

    Raises:
        ValueError: when called or loaded as `RandomSynthesizer`.
    """

    inputs: ClassVar[tuple[str, ...]] = ("q", "v")

    def __init__(self, heads: int, head_dim: int, grid: Grid) -> None:
        super().__init__()
        self.grid = grid
        self.weight = nn.Parameter(torch.randn(heads, head_dim, grid.tokens) * head_dim**-0.5)
        self.bias = nn.Parameter(torch.zeros(heads, 1, grid.tokens))
        refuse_resizing(self, grid, "weight", "bias")

    def forward(
        self,
        q: Float[Tensor, "b h n d"],
        k: Float[Tensor, "b h m d"] | None,
        v: Float[Tensor, "b h m e"],
        layout: Layout,
    ) -> Float[Tensor, "b h n e"]:
        refuse_cross(self, q, v)
        require_own_tokens(self, layout, self.grid, v)
        return _mix(q.relu() @ self.weight.to(q.dtype) + self.bias, v, layout)


@final
class FactorizedDenseSynthesizer(Mechanism):
    """As `DenseSynthesizer` with row scores s_j = f_(j // c) g_(j mod c), c = ceil(sqrt(n)).  Tay et al. 2021.

    f and g are made from the token by layers d -> ceil(n / c) and d -> c.

    Raises:
        ValueError: when called or loaded as `RandomSynthesizer`.
    """

    inputs: ClassVar[tuple[str, ...]] = ("q", "v")

    def __init__(self, heads: int, head_dim: int, grid: Grid) -> None:
        super().__init__()
        self.grid = grid
        columns = math.isqrt(grid.tokens - 1) + 1
        rows = -(-grid.tokens // columns)
        self.rows = nn.Parameter(torch.randn(heads, head_dim, rows) * head_dim**-0.5)
        self.columns = nn.Parameter(torch.randn(heads, head_dim, columns) * head_dim**-0.5)
        refuse_resizing(self, grid, "rows", "columns")

    def forward(
        self,
        q: Float[Tensor, "b h n d"],
        k: Float[Tensor, "b h m d"] | None,
        v: Float[Tensor, "b h m e"],
        layout: Layout,
    ) -> Float[Tensor, "b h n e"]:
        refuse_cross(self, q, v)
        require_own_tokens(self, layout, self.grid, v)
        hidden = q.relu()
        coarse, fine = hidden @ self.rows.to(q.dtype), hidden @ self.columns.to(q.dtype)
        scores = (coarse[..., :, None] * fine[..., None, :]).flatten(-2)[..., : self.grid.tokens]
        return _mix(scores, v, layout)


def _mix(scores: Float[Tensor, "#b h n n"], v: Float[Tensor, "b h n e"], layout: Layout) -> Float[Tensor, "b h n e"]:
    allowed = None if layout.mask is None else layout.mask.allowed(v.shape[2], v.device)[:, None]
    if allowed is not None:
        scores = scores.expand(max(len(scores), len(allowed)), -1, -1, -1)
    return masked_softmax(scores, allowed).to(v.dtype) @ v
