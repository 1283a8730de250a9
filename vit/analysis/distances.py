"""How far attention looks."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vit.analysis.maps import attention_matrix
from vit.analysis.record import record
from vit.layers import Size, pair
from vit.tokens import Grid, Layout


def mean_attention_distance(
    matrix: Float[Tensor, "b h n n"], grid: Grid, patch_size: int | Size
) -> Float[Tensor, " h"]:
    """Distance in pixels between the centres of a patch and of the patches it attends to, per head.

    Weighted by attention (its absolute value where signed), averaged over patches and images.  Dosovitskiy et al. 2021,
    figure 7 right. Prefix tokens have no place: their rows and columns are left out, and so is a patch that attends to
    prefix tokens only.

    Raises:
        ValueError: the matrix is not over the tokens of ``grid``.
    """
    if matrix.shape[-2:] != (grid.tokens, grid.tokens):
        raise ValueError(f"expected a matrix over {grid.tokens} tokens for {grid}, got {tuple(matrix.shape)}")
    weights = matrix[..., grid.num_prefix :, grid.num_prefix :].abs()
    centres = Layout(grid).coordinates(matrix.device)[0].to(matrix.dtype) * matrix.new_tensor(pair(patch_size))
    distances = (centres[:, None] - centres[None]).norm(dim=-1)
    mean = (weights * distances).sum(dim=-1) / weights.sum(dim=-1)  # 0 / 0 where only prefix tokens are seen
    return mean.nanmean(dim=(0, 2))


def attention_distances(
    net: nn.Module, images: Float[Tensor, "b c height width"], patch_size: int | Size
) -> list[Float[Tensor, " h"]]:
    """`mean_attention_distance` of every attention layer of ``net`` on ``images``, first layer first."""
    return [
        mean_attention_distance(attention_matrix(call), call.layout.grid, patch_size)
        for call in record(net, images)
        if call.within
    ]


def uniform_distance(grid: Grid, patch_size: int | Size) -> float:
    """The mean distance of attention that looks everywhere alike: 116.4922 pixels for 14 x 14 patches of 16."""
    return mean_attention_distance(
        torch.ones(1, 1, grid.tokens, grid.tokens, dtype=torch.float64), grid, patch_size
    ).item()
