"""The convolution module that stands beside attention in a hybrid."""

from typing import final

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vit.checks import refuse_causal, refuse_pairs, refuse_subset, require_odd, require_tokens
from vit.layers.norm import LayerNorm
from vit.layers.patches import Size, pair
from vit.tokens import Grid, Layout


@final
class ConvModule(nn.Module):
    """pointwise2(SiLU(norm(depthwise(GLU(pointwise1 x))))) on the patch grid.  Gulati et al. 2020 (Conformer), fig. 2.

    In two dimensions, zero-padded, and with LayerNorm where they have BatchNorm, which couples the batch and its
    padding. A mixer like any other: `ConformerBlock` holds it beside attention, a `Block` in its place.

    Prefix tokens lie outside the grid: the module gives zero for them, so that the residual carries them past it
    unchanged and only attention and MLPs move them. Padded tokens count as lying outside the picture too: they are
    zeroed before the depthwise convolution, and a padded picture gets the values it has alone.

    Args:
        dim: channels.
        grid: unused, the grid of the call is convolved over.
        kernel_size: patches the depthwise convolution sees, (height, width) or one side, odd.
        drop: dropout on the output.

    Raises:
        ValueError: a side of the kernel is even or below 1. When called: a causal mask, a mask of pairs or a kept
            subset, none of which a convolution can honour, or other than the layout's tokens.
    """

    def __init__(self, dim: int, grid: Grid, kernel_size: int | Size = 3, drop: float = 0.0) -> None:
        super().__init__()
        height, width = (require_odd(side, "kernel_size") for side in pair(kernel_size))
        self.pointwise1 = nn.Linear(dim, 2 * dim)
        self.depthwise = nn.Conv2d(dim, dim, (height, width), padding=(height // 2, width // 2), groups=dim)
        self.norm = LayerNorm(dim)
        self.pointwise2 = nn.Linear(dim, dim)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Float[Tensor, "b n c"], layout: Layout) -> Float[Tensor, "b n c"]:
        require_tokens(self, layout, x.shape[1])
        refuse_subset(self, layout)
        refuse_causal(self, layout)
        refuse_pairs(self, layout)
        front, keys = layout.grid.num_prefix, layout.keys
        patches = F.glu(self.pointwise1(x[:, front:]))
        if keys is not None:
            patches = patches.masked_fill(~keys[:, front:, None], 0.0)
        image = self.depthwise(rearrange(patches, "b (y x) c -> b c y x", y=layout.grid.height))
        mixed = F.silu(self.norm(rearrange(image, "b c y x -> b (y x) c")))
        return F.pad(self.drop(self.pointwise2(mixed)), (0, 0, front, 0))
