"""Memory for time: a layer whose activations are made again for its gradient."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vit.tokens import Layout

Out = TypeVar("Out")


def recomputed(run: Callable[[Tensor, Layout], Out], module: nn.Module, x: Tensor, layout: Layout) -> Out:
    """``run(x, layout)``, of which only the input is kept; the gradient runs it once more.  Chen et al. 2016.

    The second run draws the same random numbers and reads the buffers of ``module`` as the first did, and what it does
    to them is forgotten: drawn features and centroids move once. A module that has such buffers runs uncompiled, for
    torch.compile cannot follow that.
    """
    if _moving(module):
        return _from_the_same_buffers(run, module, x, layout)
    return checkpoint(run, x, layout, use_reentrant=False)


@torch.compiler.disable()
def _from_the_same_buffers(run: Callable[[Tensor, Layout], Out], module: nn.Module, x: Tensor, layout: Layout) -> Out:
    before = {(part, name): getattr(part, name).clone() for part, name in _moving(module)}

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _holding(before)

    return checkpoint(run, x, layout, use_reentrant=False, context_fn=contexts)


def _moving(module: nn.Module) -> list[tuple[nn.Module, str]]:
    """Where the buffers are that calls may change: those of the state dict, tables being none of it."""
    return [
        (part, name)
        for part in module.modules()
        for name, _ in part.named_buffers(recurse=False)
        if name not in part._non_persistent_buffers_set
    ]


@contextmanager
def _holding(buffers: Mapping[tuple[nn.Module, str], Tensor]) -> Iterator[None]:
    """Copies of these tensors in the places of buffers, for a while."""
    now = {(part, name): getattr(part, name) for part, name in buffers}
    try:
        for (part, name), value in buffers.items():
            setattr(part, name, value.clone())
        yield
    finally:
        for (part, name), value in now.items():
            setattr(part, name, value)
