"""What several property tests need. Axes are distinct primes throughout, so that no swapped pair passes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import jaxtyping
import torch
from einops import rearrange
from torch import Tensor, nn

from vit.layers import LayerScale
from vit.tokens import Grid, Layout

Net = TypeVar("Net", bound=nn.Module)
B, H, N, D, E = 2, 3, 7, 5, 11
GRIDS = [(8, 8), (5, 13), (14, 14), (10, 20)]
PREFIXES = [(), ("cls",), ("cls", "reg", "reg", "reg", "reg")]

TINY = [
    "-c",
    "model/vit_nano",
    "--model.net.backbone.embed_dim=12",
    "--model.net.backbone.depth=1",
]
TINY += ["--model.net.backbone.patch_size=4", "--data.augment=none", "--trainer.limit_train_batches=3"]
TINY += ["--trainer.max_epochs=2", "--trainer.log_every_n_steps=1"]
"""Options of a fit that takes seconds."""


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def row(n: int = N) -> Layout:
    """``n`` patches in one row, everyone seen by everyone."""
    return Layout(Grid(1, n))


def redrawn(net: Net) -> Net:
    """``net`` in float64 and eval mode with every parameter drawn anew: fresh zeros and ones hide faults."""
    with torch.no_grad():
        for module in net.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if isinstance(module, LayerScale):
                    parameter.uniform_(0.5, 1.5)
                elif "norm" in type(module).__name__.lower() and name == "weight":
                    parameter.normal_(1, 0.2)
                elif name == "bias":
                    parameter.normal_(0, 0.1)
                else:
                    parameter.normal_(0, parameter.shape[-1] ** -0.5)
    return net.double().eval()


def influence(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """(b i s j): how much token i of sample b of ``f(x)`` depends on token j of sample s; ``f``: (b n c) -> (b n c)."""
    jacobian = torch.autograd.functional.jacobian(f, x)
    return rearrange(jacobian, "b i c s j d -> b i s j (c d)").norm(dim=-1)


@contextmanager
def untyped() -> Iterator[None]:
    """No shape checks inside: Dynamo cannot trace through them, and a wrong type has to reach our own error."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)
