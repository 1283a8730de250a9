"""Mixing tokens by learned matrices over their places."""

from typing import cast, final

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vit.checks import refuse_causal, refuse_padding, refuse_pairs, refuse_subset, require_grid, require_tokens
from vit.layers.norm import LayerNorm
from vit.tokens import Grid, Layout


@final
class TokenMlp(nn.Module):
    """fc2(GELU(fc1 x^T))^T, the same for every channel.  Tolstikhin et al. 2021 (MLP-Mixer), eq. 1.

    Prefix tokens are tokens like the others.

    Args:
        dim: channels.
        grid: whose tokens the matrices are for.
        hidden_ratio: hidden width over the number of tokens; 2 is their Mixer-B/16's, nearly.

    Raises:
        ValueError: the hidden width is below 1. When called: another grid, any mask, a kept subset, or other than the
            layout's tokens.
    """

    def __init__(self, dim: int, grid: Grid, hidden_ratio: float = 2.0) -> None:
        super().__init__()
        hidden = int(grid.tokens * hidden_ratio)
        if hidden < 1:
            raise ValueError(f"hidden width must be at least 1, got {hidden} of {grid.tokens} tokens, {hidden_ratio=}")
        self.grid = grid
        self.fc1 = nn.Linear(grid.tokens, hidden)
        self.fc2 = nn.Linear(hidden, grid.tokens)

    def forward(self, x: Float[Tensor, "b n c"], layout: Layout) -> Float[Tensor, "b n c"]:
        _check(self, x, layout, self.grid)
        return self.fc2(F.gelu(self.fc1(x.mT))).mT


@final
class SpatialGating(nn.Module):
    """proj2(u * (W norm(v) + b)), (u, v) = GELU(proj1 x), W over tokens.  Liu et al. 2021 (gMLP), eq. 1 to 5.

    W starts near zero and b at one, so a fresh one works on each token alone. Prefix tokens are tokens like the others.
    The published network has no other MLP; in a `Block` one follows.

    Args:
        dim: channels.
        grid: whose tokens W is for.
        hidden_ratio: width of u and v together, over ``dim``.

    Raises:
        ValueError: u has no channels. When called: another grid, any mask, a kept subset, or other than the layout's
            tokens.
    """

    def __init__(self, dim: int, grid: Grid, hidden_ratio: float = 2.0) -> None:
        super().__init__()
        half = int(dim * hidden_ratio) // 2
        if half < 1:
            raise ValueError(f"gate width must be at least 1, got {half} of dim {dim} and {hidden_ratio=}")
        self.grid = grid
        self.proj1 = nn.Linear(dim, 2 * half)
        self.norm = LayerNorm(half)
        # tokens as channels: a Linear would be drawn anew by the backbone, and larger
        self.spatial = nn.Conv1d(grid.tokens, grid.tokens, 1)
        nn.init.normal_(self.spatial.weight, std=1e-3 / grid.tokens)
        nn.init.ones_(cast(Tensor, self.spatial.bias))
        self.proj2 = nn.Linear(half, dim)

    def forward(self, x: Float[Tensor, "b n c"], layout: Layout) -> Float[Tensor, "b n c"]:
        _check(self, x, layout, self.grid)
        u, v = F.gelu(self.proj1(x)).chunk(2, dim=-1)
        return self.proj2(u * self.spatial(self.norm(v)))


def _check(mixer: nn.Module, x: Tensor, layout: Layout, built: Grid) -> None:
    require_tokens(mixer, layout, x.shape[1])
    require_grid(mixer, layout, built)
    refuse_subset(mixer, layout)
    refuse_padding(mixer, layout)
    refuse_causal(mixer, layout)
    refuse_pairs(mixer, layout)
