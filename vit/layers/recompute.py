"""Memory for time: a layer whose activations are made again for its gradient."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vit.tokens import Layout


def recomputed(module: nn.Module, x: Tensor, layout: Layout) -> Any:
    """``module(x, layout)``, of which only the input is kept; the gradient runs it once more.  Chen et al. 2016.

    The second run draws the same random numbers and reads the buffers as the first did, and what it does to them is
    forgotten: drawn features and centroids move once. A module that has such buffers runs uncompiled, for torch.compile
    cannot follow that.
    """
    if _moving(module):
        return _from_the_same_buffers(module, x, layout)
    return checkpoint(module, x, layout, use_reentrant=False)


@torch.compiler.disable()
def _from_the_same_buffers(module: nn.Module, x: Tensor, layout: Layout) -> Any:
    before = {(part, name): getattr(part, name).clone() for part, name in _moving(module)}

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _Holding(before)

    return checkpoint(module, x, layout, use_reentrant=False, context_fn=contexts)


def _moving(module: nn.Module) -> list[tuple[nn.Module, str]]:
    """Where the buffers are that calls may change: those of the state dict, tables being none of it."""
    return [
        (part, name)
        for part in module.modules()
        for name, _ in part.named_buffers(recurse=False)
        if name not in part._non_persistent_buffers_set
    ]


class _Holding(AbstractContextManager[None]):
    """Copies of these tensors in the places of buffers, for a while; entered again by each backward pass."""

    def __init__(self, buffers: Mapping[tuple[nn.Module, str], Tensor]) -> None:
        self.buffers = buffers
        self.now: dict[tuple[nn.Module, str], Tensor] = {}

    def __enter__(self) -> None:
        self.now = {(part, name): getattr(part, name) for part, name in self.buffers}
        for (part, name), value in self.buffers.items():
            setattr(part, name, value.clone())

    def __exit__(self, *_: object) -> None:
        for (part, name), value in self.now.items():
            setattr(part, name, value)
