"""What every attention mechanism of a net was given and gave back, for one batch."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vit.attention import Mechanism
from vit.tokens import Layout


@dataclass(frozen=True, eq=False)
class Recorded:
    """One call of a mechanism, tensors as they were: on their device, in their precision, without gradient.

    ``q`` or ``k`` is None where the mechanism does not take it.
    """

    q: Float[Tensor, "b h n d"] | None
    k: Float[Tensor, "b h m d"] | None
    v: Float[Tensor, "b h m e"]
    layout: Layout
    out: Float[Tensor, "b h n e"]
    mechanism: Mechanism

    @property
    def within(self) -> bool:
        """Whether the tokens attended to themselves, as in a block; a pool that attends has queries of its own."""
        return self.out.shape[2] == self.v.shape[2]


@torch.no_grad()
def record(net: nn.Module, images: Float[Tensor, "b c height width"]) -> list[Recorded]:
    """Run ``net(images)`` in eval mode and return its mechanisms' calls, first to last.

    Forward hooks on the Mechanism modules do it: those always fire, whatever fused kernel computes the attention. They
    are removed and every module's training flag is put back, also when the net raises. Pass an uncompiled net.

    Raises:
        ValueError: the net called no mechanism.
    """
    calls: list[Recorded] = []

    def keep(mechanism: nn.Module, inputs: tuple[Any, ...], out: Tensor) -> None:
        assert isinstance(mechanism, Mechanism)
        q, k, v, layout = inputs
        calls.append(Recorded(q, k, v, layout, out, mechanism))

    mechanisms = [module for module in net.modules() if isinstance(module, Mechanism)]
    handles = [mechanism.register_forward_hook(keep) for mechanism in mechanisms]
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


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Eval mode inside; afterwards each module has the training flag it had, frozen parts included."""
    before = {module: module.training for module in net.modules()}
    net.eval()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training
