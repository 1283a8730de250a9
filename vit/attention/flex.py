"""A sparse pattern in torch's generated kernels."""

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vit.attention.engine import Engine, Tables
from vit.attention.pattern import Pattern
from vit.tokens import Grid, Layout

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask


@final
class Flex(Engine):
    """flex_attention, compiled: skips blocks of 128 x 128 pairs that the pattern leaves empty.  Dong et al. 2024.

    For CUDA, and for inference on the CPU, where it has no gradient. A block mask is made once per grid and device.

    Raises:
        ValueError: any mask besides the pattern, a kept subset, dropout of weights, or a gradient on the CPU.
    """

    def __init__(self, pattern: Pattern, grid: Grid) -> None:
        super().__init__(pattern, grid)
        self.made: dict[tuple[Grid, torch.device], BlockMask] = {}
        self.register_load_state_dict_post_hook(_make_anew)

    def plan(self, grid: Grid) -> Tables:
        return {"allowed": self.pattern.allowed(grid)}

    def forward(
        self,
        q: Float[Tensor, "b h n d"],
        k: Float[Tensor, "b h n d"],
        v: Float[Tensor, "b h n e"],
        layout: Layout,
        dropout: float,
    ) -> Float[Tensor, "b h n e"]:
        if layout.mask is not None or layout.index is not None or dropout:
            raise ValueError("Flex takes no mask, kept subset or attn_drop: engines that do are BlockGather and Dense")
        if q.device.type == "cpu" and torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v)):
            raise ValueError("Flex has no gradient on the CPU: the engine to train with there is BlockGather")
        out = _compiled()(q, k, v, block_mask=self._block_mask(layout.grid, q.device))
        assert isinstance(out, Tensor)
        return out

    def _block_mask(self, grid: Grid, device: torch.device) -> "BlockMask":
        if (grid, device) not in self.made:
            from torch.nn.attention.flex_attention import create_block_mask  # imports torch's compiler: seconds

            allowed = self.tables(grid, device)["allowed"]
            assert allowed is not None
            heads, tokens = allowed.shape[:2]
            every = None if heads == 1 else heads
            self.made[grid, device] = create_block_mask(
                lambda b, h, i, j: allowed[h % heads, i, j], None, every, tokens, tokens, device=str(device)
            )
        return self.made[grid, device]


def _make_anew(engine: nn.Module, _: Any) -> None:
    """As tables are: a loaded pattern may be another one."""
    assert isinstance(engine, Flex)
    engine.made.clear()


@cache
def _compiled() -> Callable[..., Tensor | tuple[Tensor, ...]]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention)
