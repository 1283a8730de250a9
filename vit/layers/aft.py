"""Attention-free transformers: sigmoid(q) times a mean of values weighted by exp(key + position), per channel.

Zhai et al. 2021, eq. 2. Sums run in float32 or better with maxima subtracted, so that no key overflows. Padding never
counts; a token that may see no other gets zero from the mean.
"""

from typing import final

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from vit.checks import refuse_causal, refuse_pairs, refuse_subset, require_grid, require_odd, require_tokens
from vit.layers.patches import Size, pair
from vit.tokens import Grid, Layout

ROWS = 32
"""Queries whose masked weights (b rows n c) exist at once."""
SMALLEST = 1e-6
"""Least sum of weights of `AFTConv`: its differences of sums keep no digits below."""


@final
class AFTFull(nn.Module):
    """sigmoid(q_i) * sum_j exp(k_j + w_ij) v_j / sum_j exp(k_j + w_ij), w = row column^T.  Zhai et al. 2021, eq. 2.

    Time n^2 c, memory n c without a causal mask or a mask of pairs, which take n^2 c and 32 n c. Prefix tokens are
    tokens like the others, with positions of their own in w. A kept subset takes its rows and columns of w.

    Args:
        dim: channels.
        grid: whose pairs of tokens w is for.
        rank: of w.

    Raises:
        ValueError: called on another grid, or on other than the layout's tokens.
    """

    def __init__(self, dim: int, grid: Grid, rank: int = 32) -> None:
        super().__init__()
        self.grid = grid
        self.q, self.v, self.proj = (nn.Linear(dim, dim) for _ in range(3))
        self.k = nn.Linear(dim, dim, bias=False)  # a bias would cancel
        self.row = nn.Parameter(torch.randn(grid.tokens, rank) * 0.02)
        self.column = nn.Parameter(torch.randn(grid.tokens, rank) * 0.02)

    def forward(self, x: Float[Tensor, "b n c"], layout: Layout) -> Float[Tensor, "b n c"]:
        require_tokens(self, layout, x.shape[1])
        require_grid(self, layout, self.grid)
        k, v = self.k(x), self.v(x)
        with torch.autocast(x.device.type, enabled=False):
            mixed = _weighted_mean(k, v, _pairwise(self.row, self.column, layout), layout)
        return self.proj(self.q(x).sigmoid() * mixed.to(x.dtype))


@final
class AFTSimple(nn.Module):
    """sigmoid(q_i) * sum_j exp(k_j) v_j / sum_j exp(k_j): no positions.  Zhai et al. 2021, eq. 4.

    Time and memory n c, except under a causal mask or a mask of pairs (see `AFTFull`). All tokens take part, prefix
    tokens too, and any number of them.

    Raises:
        ValueError: called on other than the layout's tokens.
    """

    def __init__(self, dim: int, grid: Grid) -> None:
        super().__init__()
        self.q, self.v, self.proj = (nn.Linear(dim, dim) for _ in range(3))
        self.k = nn.Linear(dim, dim, bias=False)  # a bias would cancel

    def forward(self, x: Float[Tensor, "b n c"], layout: Layout) -> Float[Tensor, "b n c"]:
        require_tokens(self, layout, x.shape[1])
        k, v = self.k(x), self.v(x)
        with torch.autocast(x.device.type, enabled=False):
            mixed = _weighted_mean(k, v, None, layout)
        return self.proj(self.q(x).sigmoid() * mixed.to(x.dtype))


@final
class AFTLocal(nn.Module):
    """`AFTFull` with w_ij = 0 outside a window: positions near by, content everywhere.  Zhai et al. 2021, eq. 3.

    The window is one of rows and columns of the grid (theirs is of a sequence). A prefix token has no place: every
    token lies in its window, and it in theirs.

    Args:
        dim: channels.
        grid: whose pairs of tokens w is for.
        window_size: sides of the window with the query in the middle, (height, width) or one, odd.
        rank: of w before the window.

    Raises:
        ValueError: a side of the window is even or below 1. When called: another grid, or other than the layout's
            tokens.
    """

    def __init__(self, dim: int, grid: Grid, window_size: int | Size = 7, rank: int = 32) -> None:
        super().__init__()
        self.grid = grid
        self.reach = _half(window_size, "window_size")
        self.q, self.v, self.proj = (nn.Linear(dim, dim) for _ in range(3))
        self.k = nn.Linear(dim, dim, bias=False)  # a bias would cancel
        self.row = nn.Parameter(torch.randn(grid.tokens, rank) * 0.02)
        self.column = nn.Parameter(torch.randn(grid.tokens, rank) * 0.02)

    def forward(self, x: Float[Tensor, "b n c"], layout: Layout) -> Float[Tensor, "b n c"]:
        require_tokens(self, layout, x.shape[1])
        require_grid(self, layout, self.grid)
        k, v = self.k(x), self.v(x)
        with torch.autocast(x.device.type, enabled=False):
            bias = _pairwise(self.row, self.column, layout).masked_fill(~self._near(layout, x.device), 0.0)
            mixed = _weighted_mean(k, v, bias, layout)
        return self.proj(self.q(x).sigmoid() * mixed.to(x.dtype))

    def _near(self, layout: Layout, device: torch.device) -> Bool[Tensor, "p n n"]:
        where = layout.coordinates(device)
        apart = (where[:, :, None] - where[:, None, :]).abs()
        near = (apart <= torch.tensor(self.reach, device=device)).all(dim=-1)
        return F.pad(near, (layout.grid.num_prefix, 0, layout.grid.num_prefix, 0), value=True)


@final
class AFTConv(nn.Module):
    """`AFTSimple` whose w_ij is a learned kernel at j - i, one per channel.  Zhai et al. 2021, section 3.2.

    Both sums are a depthwise convolution by exp(w) - 1 plus the sum over all tokens: time n k^2 c on any grid. Prefix
    tokens have no place, so w = 0 towards and from them: they take part in the sum over all.

    Args:
        dim: channels.
        grid: unused, the grid of the call is convolved over.
        kernel_size: sides of the kernel, (height, width) or one, odd.

    Raises:
        ValueError: a side of the kernel is even or below 1. When called: a causal mask, a mask of pairs or a kept
            subset, or other than the layout's tokens.
    """

    def __init__(self, dim: int, grid: Grid, kernel_size: int | Size = 7) -> None:
        super().__init__()
        self.reach = _half(kernel_size, "kernel_size")
        self.q, self.v, self.proj = (nn.Linear(dim, dim) for _ in range(3))
        self.k = nn.Linear(dim, dim, bias=False)  # a bias would cancel
        self.kernel = nn.Parameter(torch.zeros(dim, 1, *(2 * half + 1 for half in self.reach)))

    def forward(self, x: Float[Tensor, "b n c"], layout: Layout) -> Float[Tensor, "b n c"]:
        require_tokens(self, layout, x.shape[1])
        refuse_subset(self, layout)
        refuse_causal(self, layout)
        refuse_pairs(self, layout)
        k, v = self.k(x), self.v(x)
        with torch.autocast(x.device.type, enabled=False):
            weights, v = _weights(k, v, layout.keys)
            mixed = self._sums(weights * v, layout) / self._sums(weights, layout).clamp(min=SMALLEST)
        return self.proj(self.q(x).sigmoid() * mixed.to(x.dtype))

    def _sums(self, x: Float[Tensor, "b n c"], layout: Layout) -> Float[Tensor, "b n c"]:
        front = layout.grid.num_prefix
        image = rearrange(x[:, front:], "b (y x) c -> b c y x", y=layout.grid.height)
        near = F.conv2d(image, self.kernel.to(x.dtype).expm1(), padding=self.reach, groups=x.shape[2])
        return x.sum(dim=1, keepdim=True) + F.pad(rearrange(near, "b c y x -> b (y x) c"), (0, 0, front, 0))


def _half(window: int | Size, name: str) -> Size:
    height, width = (require_odd(side, name) // 2 for side in pair(window))
    return height, width


def _pairwise(row: Float[Tensor, "n r"], column: Float[Tensor, "n r"], layout: Layout) -> Float[Tensor, "p m m"]:
    """row column^T in float32 or better, of the tokens that are there."""
    dtype, front = torch.promote_types(row.dtype, torch.float32), layout.grid.num_prefix
    tables = torch.stack((row, column)).to(dtype)[:, None]
    if layout.index is not None:
        kept = tables[:, 0, front:][:, layout.index]
        tables = torch.cat((tables[:, :, :front].expand(-1, len(layout.index), -1, -1), kept), dim=2)
    return tables[0] @ tables[1].mT


def _weights(
    k: Float[Tensor, "b n c"], v: Float[Tensor, "b n c"], keys: Bool[Tensor, "b n"] | None
) -> tuple[Float[Tensor, "b n c"], Float[Tensor, "b n c"]]:
    """exp(k) up to a factor per channel, and the values, in float32 or better; padding has zero of both."""
    dtype = torch.promote_types(k.dtype, torch.float32)
    k, v = k.to(dtype), v.to(dtype)
    if keys is not None:
        k, v = k.masked_fill(~keys[..., None], -torch.inf), v.masked_fill(~keys[..., None], 0.0)
    largest = k.detach().amax(dim=1, keepdim=True).clamp(min=torch.finfo(dtype).min)
    return (k - largest).exp(), v


def _weighted_mean(
    k: Float[Tensor, "b n c"], v: Float[Tensor, "b n c"], bias: Float[Tensor, "p n n"] | None, layout: Layout
) -> Float[Tensor, "b n c"]:
    """sum_j exp(k_j + bias_ij) v_j / sum_j exp(k_j + bias_ij) over the tokens j that i may see."""
    mask = layout.mask
    if mask is not None and (mask.causal or mask.pairs is not None):
        return _masked_mean(k, v, bias, mask.allowed(k.shape[1], k.device))
    weights, v = _weights(k, v, layout.keys)
    smallest = torch.finfo(v.dtype).tiny
    if bias is None:
        mean = (weights * v).sum(dim=1, keepdim=True) / weights.sum(dim=1, keepdim=True).clamp(min=smallest)
        return mean.expand_as(v)
    rows = (bias - bias.detach().amax(dim=-1, keepdim=True)).exp()
    return (rows @ (weights * v)) / (rows @ weights).clamp(min=smallest)


def _masked_mean(
    k: Float[Tensor, "b n c"],
    v: Float[Tensor, "b n c"],
    bias: Float[Tensor, "p n n"] | None,
    allowed: Bool[Tensor, "q n n"],
) -> Float[Tensor, "b n c"]:
    """The same where each query has keys of its own: no common maximum would do, so every weight is written out."""
    dtype = torch.promote_types(k.dtype, torch.float32)
    k = k.to(dtype)
    v = v.to(dtype).masked_fill(~allowed.any(dim=1)[..., None], 0.0)  # what nobody sees may be anything
    means = []
    for start in range(0, k.shape[1], ROWS):
        seen = allowed[:, start : start + ROWS, :, None]
        scores = k[:, None] if bias is None else k[:, None] + bias[:, start : start + ROWS, :, None]
        weights = scores.masked_fill(~seen, torch.finfo(dtype).min).softmax(dim=2) * seen
        means.append((weights * v[:, None]).sum(dim=2))
    return torch.cat(means, dim=1)
