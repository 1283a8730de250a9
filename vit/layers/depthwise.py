"""Mixing with neighbours: depthwise convolutions and the mean of a neighbourhood, each channel on its own.

Prefix tokens lie outside grid and sequence: these mixers give zero for them, so that the residual carries them past
unchanged (pool means, a class token would learn nothing). Padding lies outside the picture: a padded picture gets the
values it has alone.
"""

from typing import final

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vit.checks import refuse_causal, refuse_pairs, refuse_prefix_length, refuse_subset, require_odd, require_tokens
from vit.layers.patches import Size, pair
from vit.layers.scan import padding_last, reordered
from vit.tokens import Grid, Layout


@final
class DepthwiseConv1d(nn.Module):
    """y_i = b + sum_t w_t x_(i + t) along the sequence of patches, zeros beyond its ends; `Scan` sets another order.

    In raster order the last patch of a row neighbours the first of the next. Padded tokens are taken out of the
    sequence. Under a causal mask the kernel's later half is left out.

    Args:
        dim: channels.
        grid: unused, the sequence of the call is convolved over.
        kernel_size: tokens seen, odd.

    Raises:
        ValueError: ``kernel_size`` is even or below 1. When called: a mask of pairs, a prefix length or a kept subset,
            or other than the layout's tokens.
    """

    def __init__(self, dim: int, grid: Grid, kernel_size: int = 9) -> None:
        super().__init__()
        require_odd(kernel_size, "kernel_size")
        self.depthwise = nn.Conv1d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim)

    def forward(self, x: Float[Tensor, "b n c"], layout: Layout) -> Float[Tensor, "b n c"]:
        require_tokens(self, layout, x.shape[1])
        refuse_subset(self, layout)
        refuse_pairs(self, layout)
        refuse_prefix_length(self, layout)
        front, keys = layout.grid.num_prefix, layout.keys
        if keys is None:
            mixed = self._convolve(x[:, front:], layout)
        else:
            order = padding_last(keys[:, front:])
            patches = x[:, front:].masked_fill(~keys[:, front:, None], 0.0)
            mixed = reordered(self._convolve(reordered(patches, order), layout), order.argsort(dim=1))
        return F.pad(mixed, (0, 0, front, 0))

    def _convolve(self, x: Float[Tensor, "b n c"], layout: Layout) -> Float[Tensor, "b n c"]:
        weight, reach = self.depthwise.weight, self.depthwise.kernel_size[0] // 2
        if layout.mask is not None and layout.mask.causal:
            weight = F.pad(weight[..., : reach + 1], (0, reach))
        mixed = F.conv1d(x.mT.to(weight.dtype), weight, self.depthwise.bias, padding=reach, groups=x.shape[2])
        return mixed.mT


@final
class DepthwiseConv2d(nn.Module):
    """y_i = b + sum_t w_t x_(i + t) over the patch grid, zeros beyond its borders: attention's plainest rival.

    Args:
        dim: channels.
        grid: unused, the grid of the call is convolved over.
        kernel_size: patches seen, (height, width) or one side, odd.

    Raises:
        ValueError: a side of the kernel is even or below 1. When called: a causal mask, a mask of pairs or a kept
            subset, or other than the layout's tokens.
    """

    def __init__(self, dim: int, grid: Grid, kernel_size: int | Size = 3) -> None:
        super().__init__()
        height, width = (require_odd(side, "kernel_size") for side in pair(kernel_size))
        self.depthwise = nn.Conv2d(dim, dim, (height, width), padding=(height // 2, width // 2), groups=dim)

    def forward(self, x: Float[Tensor, "b n c"], layout: Layout) -> Float[Tensor, "b n c"]:
        _check_grid_mixer(self, x, layout)
        patches, _ = _patches(x, layout)
        return _tokens(self.depthwise(patches), layout)


@final
class NeighbourMean(nn.Module):
    """mean(x over the neighbourhood) - x: no parameters.  Yu et al. 2022 (PoolFormer), eq. 4.

    The neighbourhood is what of it lies inside the picture (``count_include_pad=False``). Taking x away undoes the
    residual of the block, as theirs does.

    Args:
        dim: channels.
        grid: unused, the grid of the call is pooled over.
        pool_size: patches averaged, (height, width) or one side, odd.

    Raises:
        ValueError: a side is even or below 1. When called: a causal mask, a mask of pairs or a kept subset, or other
            than the layout's tokens.
    """

    def __init__(self, dim: int, grid: Grid, pool_size: int | Size = 3) -> None:
        super().__init__()
        self.pool_size = pair(pool_size)
        for side in self.pool_size:
            require_odd(side, "pool_size")

    def forward(self, x: Float[Tensor, "b n c"], layout: Layout) -> Float[Tensor, "b n c"]:
        _check_grid_mixer(self, x, layout)
        patches, inside = _patches(x, layout)
        reach, both = (self.pool_size[0] // 2, self.pool_size[1] // 2), torch.cat((patches, inside), dim=1)
        sums = F.avg_pool2d(both, self.pool_size, 1, reach, divisor_override=1)
        mean = sums[:, :-1] / sums[:, -1:].clamp(min=1)
        return _tokens(mean - patches, layout)


def _check_grid_mixer(mixer: nn.Module, x: Tensor, layout: Layout) -> None:
    require_tokens(mixer, layout, x.shape[1])
    refuse_subset(mixer, layout)
    refuse_causal(mixer, layout)
    refuse_pairs(mixer, layout)


def _patches(x: Float[Tensor, "b n c"], layout: Layout) -> tuple[Float[Tensor, "b c y x"], Float[Tensor, "b 1 y x"]]:
    """The patches on their grid, zero where they are padding, and one where they are not."""
    front, keys = layout.grid.num_prefix, layout.keys
    patches, inside = x[:, front:], x.new_ones(x.shape[0], layout.grid.patches, 1)
    if keys is not None:
        patches = patches.masked_fill(~keys[:, front:, None], 0.0)
        inside = keys[:, front:, None].to(x.dtype)
    height = layout.grid.height
    return rearrange(patches, "b (y x) c -> b c y x", y=height), rearrange(inside, "b (y x) 1 -> b 1 y x", y=height)


def _tokens(image: Float[Tensor, "b c y x"], layout: Layout) -> Float[Tensor, "b n c"]:
    return F.pad(rearrange(image, "b c y x -> b (y x) c"), (0, 0, layout.grid.num_prefix, 0))
