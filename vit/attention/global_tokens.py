"""A few tokens that see all and are seen by all."""

from typing import final

from jaxtyping import Bool
from torch import Tensor

from vit.attention.local import band
from vit.attention.pattern import Pattern
from vit.checks import require_at_least
from vit.tokens import Grid


@final
class GlobalTokens(Pattern):
    """|i - j| <= width, and the first tokens see all and are seen by all.  Ainslie et al. 2020 (ETC), figure 1.

    With ``width`` 0 patches meet by way of the global tokens only. `Longformer` projects those apart.

    Args:
        count: global tokens, the first of the sequence. Prefix tokens are global anyway, so that this adds patches
            only where it exceeds their number, as in a net without any.
        width: of the band of the others, to either side.
        dilation: of the band, see `Local`.

    Raises:
        ValueError: ``count`` or ``width`` is below 0, or ``dilation`` below 1.
    """

    def __init__(self, heads: int, grid: Grid, count: int = 1, width: int = 0, dilation: int = 1) -> None:
        super().__init__()
        self.count = require_at_least(0, count, "count")
        self.width = require_at_least(0, width, "width")
        self.dilation = require_at_least(1, dilation, "dilation")

    def patches(self, grid: Grid) -> Bool[Tensor, "1 p p"]:
        allowed = band(grid.patches, self.width, self.dilation)
        more = max(self.count - grid.num_prefix, 0)
        allowed[:more], allowed[:, :more] = True, True
        return allowed[None]
