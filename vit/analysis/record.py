"""What every attention mechanism of a net was given and gave back, for one batch."""

from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from vit.attention import Mechanism, Projections
from vit.layers import WeightedPool
from vit.models.pretraining import evaluating
from vit.tokens import Grid, Layout


@dataclass(frozen=True, eq=False)
class Recorded:
    """One call of a mechanism, tensors as they were: on their device, in their precision, without gradient.

    ``q`` or ``k`` is None where the mechanism does not take it; ``second`` holds the second set of one that wants two.
    """

    q: Float[Tensor, "b h n d"] | None
    k: Float[Tensor, "b h m d"] | None
    v: Float[Tensor, "b h m e"]
    layout: Layout
    out: Float[Tensor, "b h n e"]
    mechanism: Mechanism
    second: Projections | None = None

    @property
    def within(self) -> bool:
        """Whether the tokens attended to themselves, as in a block; a pool that attends has queries of its own."""
        return self.out.shape[2] == self.v.shape[2]


@final
class Read(Mechanism):
    """q v: what a `WeightedPool` takes from its patches, its weights being the one query."""

    inputs = ("q", "v")

    @override
    def forward(
        self, q: Float[Tensor, "b h n m"], k: Tensor | None, v: Float[Tensor, "b h m e"], layout: Layout
    ) -> Float[Tensor, "b h n e"]:
        return q @ v


@torch.no_grad()
def record(net: nn.Module, images: Float[Tensor, "b c height width"]) -> list[Recorded]:
    """Run ``net(images)`` in eval mode and return its mechanisms' calls, first to last.

    A `WeightedPool` is one call, of its weights on its patches (`Read`); mechanisms inside it are its own affair.
    Forward hooks on the Mechanism modules do it: those always fire, whatever fused kernel computes the attention. They
    are removed and every module's training flag is put back, also when the net raises. Pass an uncompiled net.

    Raises:
        ValueError: the net called no mechanism.
    """
    calls: list[Recorded] = []

    def keep(mechanism: nn.Module, inputs: tuple[Any, ...], out: Tensor) -> None:
        assert isinstance(mechanism, Mechanism)
        q, k, v, layout, *second = inputs
        calls.append(Recorded(q, k, v, layout, out, mechanism, *second))

    def read(pool: nn.Module, inputs: tuple[Any, ...], out: Tensor) -> None:
        assert isinstance(pool, WeightedPool)
        calls.append(_reading(pool, *inputs))

    pools = [module for module in net.modules() if isinstance(module, WeightedPool)]
    inside = {part for pool in pools for part in pool.modules()}
    mechanisms = [module for module in net.modules() if isinstance(module, Mechanism) and module not in inside]
    handles = [mechanism.register_forward_hook(keep) for mechanism in mechanisms]
    handles += [pool.register_forward_hook(read) for pool in pools]
    try:
        with evaluating(net):
            net(images)
    finally:
        for handle in handles:
            handle.remove()
    if not calls:
        raise ValueError(
            f"{type(net).__name__} called no attention mechanism, so there is no attention to show: "
            "expected a net with attention blocks that is not compiled, such as vit.models.ViT"
        )
    return calls


def _reading(pool: WeightedPool, tokens: Tensor, layout: Layout) -> Recorded:
    weights, patches = pool.weights(tokens, layout)[:, None, None], tokens[:, None, layout.grid.num_prefix :]
    grid = Grid(layout.grid.height, layout.grid.width)
    weights = weights.to(patches.dtype)
    return Recorded(weights, None, patches, Layout(grid, None, layout.index), weights @ patches, Read())
