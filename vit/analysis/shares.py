"""Statistics of attention matrices: how many directions they have, and how much a token keeps for itself."""

import torch
from jaxtyping import Float
from torch import Tensor

Matrix = Float[Tensor, "b h n n"]
PerHead = Float[Tensor, " h"]


def effective_rank(matrix: Float[Tensor, "b h n m"]) -> PerHead:
    """exp of the entropy of the singular values' shares, mean over samples.  Roy & Vetterli 2007.

    1 for uniform attention, n for attention to one token each, all different.
    """
    values = torch.linalg.svdvals(matrix.double())
    shares = values / values.sum(dim=-1, keepdim=True)
    return torch.special.entr(shares).sum(dim=-1).exp().mean(dim=0)


def self_share(matrix: Matrix) -> PerHead:
    """What a token takes from itself, mean over tokens and samples; 1 / n of uniform attention."""
    return matrix.diagonal(dim1=-2, dim2=-1).mean(dim=(0, 2))


def self_first(matrix: Matrix) -> PerHead:
    """Share of tokens that take from themselves the most, ties not counted."""
    own = matrix.diagonal(dim1=-2, dim2=-1)
    others = matrix - torch.diag_embed(torch.full_like(own, torch.inf))
    return (own > others.amax(dim=-1)).to(torch.float64).mean(dim=(0, 2))


def head_distance(matrix: Matrix) -> PerHead:
    """Total variation distance of a head's rows to those of the others, mean over tokens, samples and heads.

    0 where all heads attend alike, 1 where no two attend to the same token; 0 of a single head.
    """
    heads = matrix.shape[1]
    apart = (matrix[:, :, None] - matrix[:, None]).abs().sum(dim=-1).mean(dim=(0, 3)) / 2
    return apart.sum(dim=1) / max(1, heads - 1)
