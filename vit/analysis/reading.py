"""From a map over tokens to a map over patches, read the way the net's head pools its tokens."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vit.analysis.maps import attention_matrix
from vit.analysis.record import Recorded
from vit.layers import ClassToken, MeanPool
from vit.tokens import Layout


def reading(rolled: Float[Tensor, "b n n"], layout: Layout, weights: Float[Tensor, "p n"]) -> Float[Tensor, "b gh gw"]:
    """Rows of ``rolled`` summed by ``weights``, prefix columns removed, in the shape of the grid.

    Patches that were dropped from the sequence get zero.
    """
    row = (weights.to(rolled)[:, None] @ rolled)[:, 0, layout.grid.num_prefix :]
    if layout.index is not None:
        row = row.new_zeros(len(row), layout.grid.patches).scatter(1, layout.index, row)
    return rearrange(row, "b (gh gw) -> b gh gw", gh=layout.grid.height)


def token_weights(layout: Layout, token: str = "cls") -> Float[Tensor, "1 n"]:
    """Weights that read the row of one prefix token.

    Raises:
        ValueError: there is no prefix token of that name.
    """
    if token not in layout.grid.prefix:
        raise ValueError(f"no prefix token {token!r} to read: the net has {list(layout.grid.prefix)}")
    position = torch.tensor([layout.grid.prefix.index(token)])
    return F.one_hot(position, layout.tokens).double()


def mean_weights(layout: Layout) -> Float[Tensor, "p n"]:
    """Weights that read the mean over patch rows; padding does not count."""
    weights = torch.ones(1, layout.tokens, dtype=torch.float64)
    if layout.mask is not None and layout.mask.keys is not None:
        weights = layout.mask.keys.cpu().double()
    patches = F.pad(weights[:, layout.grid.num_prefix :], (layout.grid.num_prefix, 0))
    return patches / patches.sum(dim=1, keepdim=True)


def head_weights(net: nn.Module, calls: list[Recorded]) -> tuple[Float[Tensor, "p n"], str]:
    """The weights with which the head of ``net`` pools its tokens, and what that is called.

    Class (and distillation) tokens, mean pooling and attention pooling are followed exactly, hard attention to the one
    patch it reads, hierarchical by the product of its two levels' weights (its encoders are not followed). For another
    pool the mean over patches stands in, and the name says so.
    """
    layout = next(call.layout for call in calls if call.within)
    tokens = [layout.grid.prefix[part.position] for part in net.modules() if isinstance(part, ClassToken)]
    if tokens:
        weights = torch.cat([token_weights(layout, token) for token in tokens]).mean(dim=0, keepdim=True)
        return weights, "class token" if tokens == ["cls"] else f"{' and '.join(tokens)} token"
    pools = [call for call in calls if not call.within]
    if pools:
        patches = attention_matrix(pools[-1]).abs().mean(dim=(1, 2))
        return F.pad(patches / patches.sum(dim=1, keepdim=True), (layout.grid.num_prefix, 0)), "attention pool"
    if any(isinstance(part, MeanPool) for part in net.modules()):
        return mean_weights(layout), "mean over patches"
    return mean_weights(layout), "mean over patches in place of the head's own pool"
