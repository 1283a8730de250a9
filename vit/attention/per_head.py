"""Different heads, different patterns."""

from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from typing_extensions import override

from vit.attention.pattern import Pattern, PatternFactory
from vit.tokens import Grid


@final
class PerHead(Pattern):
    """Heads dealt out to several patterns, in order and as evenly as they go.  Child et al. 2019, section 4.2.

    Args:
        patterns: of the heads; where they do not divide evenly the first patterns get one more.

    Raises:
        ValueError: no pattern, or more than there are heads.
    """

    def __init__(self, heads: int, grid: Grid, patterns: Sequence[PatternFactory]) -> None:
        super().__init__()
        if not 1 <= len(patterns) <= heads:
            raise ValueError(f"expected 1 to {heads} patterns for {heads} heads, got {len(patterns)}")
        each, more = divmod(heads, len(patterns))
        self.shares = [each + (number < more) for number in range(len(patterns))]
        self.patterns = nn.ModuleList(
            pattern(share, grid) for pattern, share in zip(patterns, self.shares, strict=True)
        )

    @property
    @override
    def honours_sizes(self) -> bool:
        return all(isinstance(pattern, Pattern) and pattern.honours_sizes for pattern in self.patterns)

    def patches(self, grid: Grid) -> Bool[Tensor, "h p p"]:
        parts = []
        for pattern, share in zip(self.patterns, self.shares, strict=True):
            assert isinstance(pattern, Pattern)
            parts.append(pattern.patches(grid).expand(share, -1, -1))
        return torch.cat(parts)
