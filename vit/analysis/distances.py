"""How far attention looks."""

from jaxtyping import Float
from torch import Tensor

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
