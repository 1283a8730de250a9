"""Attention pooling in two levels: patches to regions, regions to the image."""

from typing import final

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from vit.checks import require_at_least
from vit.layers.block import Block, BlockFactory
from vit.layers.encoder import Encoder
from vit.layers.patches import Size, pair
from vit.layers.weighted import AdditiveScore, WeightedPool, shares, weighted_sum
from vit.tokens import Grid, Layout, Mask


@final
class HierarchicalPool(WeightedPool):
    """A small encoder and `AdditivePool`'s weighted sum within each region, then again over the regions.

    Yang et al. 2016 (hierarchical attention networks), section 2.2, where words are patches and sentences regions. The
    share of a patch is alpha_region alpha_patch. Regions tile the grid from its top left; those that reach over its
    border, or hold padded or dropped patches, count what is there.

    Args:
        dim: channels.
        grid: unused, regions follow the grid of the call.
        region: patches of a region, (height, width) or one side; one that holds the whole grid makes pooling flat.
        block: of both encoders, each of its own weights; a mask of keys reaches it where a region is not full.
        depth: blocks in each encoder, 0 for none.
        hidden: width inside the scores, ``dim`` when None.

    Raises:
        ValueError: a side of the region is below 1, or ``depth`` below 0. When called: what ``block`` refuses.
    """

    def __init__(
        self,
        dim: int,
        grid: Grid,
        region: int | Size = 4,
        block: BlockFactory = Block,
        depth: int = 1,
        hidden: int | None = None,
    ) -> None:
        super().__init__()
        self.region = pair(region)
        if min(self.region) < 1:
            raise ValueError(f"region sides must be at least 1, got {self.region[0]}x{self.region[1]}")
        require_at_least(0, depth, "depth")
        self.patch_encoder = Encoder(dim, Grid(*self.region), [(block, depth)])
        self.patch_score = AdditiveScore(dim, hidden)
        over = Grid(-(-grid.height // self.region[0]), -(-grid.width // self.region[1]))
        self.region_encoder = Encoder(dim, over, [(block, depth)])
        self.region_score = AdditiveScore(dim, hidden)

    @override
    def weights(self, tokens: Float[Tensor, "b n c"], layout: Layout) -> Float[Tensor, "b p"]:
        return self._pool(tokens, layout)[1]

    @override
    def forward(self, tokens: Float[Tensor, "b n c"], layout: Layout) -> Float[Tensor, "b c"]:
        return self._pool(tokens, layout)[0]

    def _pool(
        self, tokens: Float[Tensor, "b n c"], layout: Layout
    ) -> tuple[Float[Tensor, "b c"], Float[Tensor, "b p"]]:
        image, there = _on_grid(tokens, layout)
        rows, columns = (min(side) for side in zip(self.region, image.shape[1:3], strict=True))
        missing = (-image.shape[1] % rows, -image.shape[2] % columns)
        if any(missing) or layout.index is not None or layout.patch_keys is not None:
            image = F.pad(image, (0, 0, 0, missing[1], 0, missing[0]))
            there = F.pad(there, (0, missing[1], 0, missing[0]))
            keys = rearrange(there, "b (v y) (u x) -> b (v u) (y x)", y=rows, x=columns)
        else:
            keys = None
        over = Grid(image.shape[1] // rows, image.shape[2] // columns)
        x = rearrange(image, "b (v y) (u x) c -> (b v u) (y x) c", y=rows, x=columns)
        inner = None if keys is None else rearrange(keys, "b r n -> (b r) n")
        within, across = _sizes(layout, Grid(rows, columns), over)
        x = self.patch_encoder(x, _layout(Grid(rows, columns), inner, within))
        alpha_patch = shares(self.patch_score(x), inner)
        x = rearrange(weighted_sum(alpha_patch, x), "(b r) c -> b r c", r=over.patches)
        outer = None if keys is None else keys.any(dim=-1)
        x = self.region_encoder(x, _layout(over, outer, across))
        alpha_region = shares(self.region_score(x), outer)
        alpha = alpha_region[..., None] * rearrange(alpha_patch, "(b r) n -> b r n", r=over.patches)
        alpha = rearrange(alpha, "b (v u) (y x) -> b (v y) (u x)", v=over.height, y=rows)
        alpha = rearrange(alpha[:, : layout.grid.height, : layout.grid.width], "b y x -> b (y x)")
        return weighted_sum(alpha_region, x), alpha if layout.index is None else alpha.gather(1, layout.index)


def _layout(grid: Grid, keys: Bool[Tensor, "b n"] | None, sizes: Int[Tensor, "b 2"] | None) -> Layout:
    return Layout(grid, None if keys is None else Mask(keys=keys), sizes=sizes)


def _sizes(layout: Layout, region: Grid, over: Grid) -> tuple[Int[Tensor, "br 2"] | None, Int[Tensor, "b 2"] | None]:
    """What of each region lies in its picture, and how many regions each picture has, where pictures differ in size."""
    if layout.sizes is None:
        return None, None
    sides = layout.sizes.new_tensor(region[:2])
    corners = Layout(over).coordinates(sides.device).to(sides.dtype) * sides
    within = (layout.sizes[:, None] - corners).clamp(min=0).minimum(sides)
    return rearrange(within, "b r two -> (b r) two"), (layout.sizes + sides - 1) // sides


def _on_grid(
    tokens: Float[Tensor, "b n c"], layout: Layout
) -> tuple[Float[Tensor, "b height width c"], Bool[Tensor, "b height width"]]:
    """Patch tokens at their places in the picture, zero where there is none, and where there are some that count."""
    patches, keys, grid = tokens[:, layout.grid.num_prefix :], layout.patch_keys, layout.grid
    there = torch.ones_like(patches[..., 0], dtype=torch.bool) if keys is None else keys.expand(patches.shape[0], -1)
    if layout.index is not None:
        index, shape = layout.index, (patches.shape[0], grid.patches)
        there = torch.zeros(shape, dtype=torch.bool, device=patches.device).scatter(1, index, there)
        empty = patches.new_zeros(*shape, patches.shape[2])
        patches = empty.scatter(1, index[..., None].expand(-1, -1, patches.shape[2]), patches)
    patches, there = (rearrange(part, "b (y x) ... -> b y x ...", y=grid.height) for part in (patches, there))
    return patches, there
