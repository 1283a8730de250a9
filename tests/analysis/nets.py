"""Small nets to look inside, and attention written out without any kernel or hook."""

from functools import partial

import torch
from einops import rearrange
from torch import Tensor

from tests.helpers import redrawn
from vit.analysis.record import Recorded
from vit.attention import Softmax
from vit.layers import Head, PoolFactory, SelfAttention
from vit.layers.block import Block
from vit.layers.pooling import ClassToken
from vit.models import Backbone, ViT
from vit.tokens import Grid, Layout


def small_vit(
    prefix: tuple[str, ...] = ("cls",),
    pool: PoolFactory = ClassToken,
    depth: int = 3,
    in_chans: int = 3,
    **mixer: object,
) -> ViT:
    """6 x 10 pixels in 3 x 5 patches of 2 x 2, float64, redrawn."""
    attention = partial(SelfAttention, num_heads=3, **{"value_dim": 7, **mixer})
    backbone = partial(
        Backbone, patch_size=2, embed_dim=24, depth=depth, prefix=prefix, block=partial(Block, mixer=attention)
    )
    return redrawn(ViT((6, 10), in_chans, 4, backbone, partial(Head, pool=pool)))


def small_images(count: int = 2) -> Tensor:
    return torch.randn(count, 3, 6, 10, dtype=torch.float64)


def softmax_weights(q: Tensor, k: Tensor, allowed: Tensor | None = None) -> Tensor:
    """exp(q k / sqrt(d)) over its sum, entry by entry in float64."""
    scores = (q.double()[:, :, :, None, :] * k.double()[:, :, None, :, :]).sum(-1) / q.shape[-1] ** 0.5
    weights = (scores - scores.amax(-1, keepdim=True)).exp()
    if allowed is not None:
        weights = weights * allowed
    return weights / weights.sum(-1, keepdim=True)


def recorded_softmax(grid: Grid, value_width: int = 11, layout: Layout | None = None, dtype=torch.float32) -> Recorded:
    """One call of Softmax with random q, k (2 3 n 5) and v (2 3 n value_width)."""
    layout = layout or Layout(grid)
    q, k = torch.randn(2, 2, 3, grid.tokens, 5, dtype=dtype)
    v = torch.randn(2, 3, grid.tokens, value_width, dtype=dtype)
    mechanism = Softmax(3, 5, grid)
    return Recorded(q, k, v, layout, mechanism(q, k, v, layout), mechanism)


def rollout_loop(matrices: list[Tensor]) -> Tensor:
    """Rollout of one picture, entry by entry: matrices (h n n) first layer first."""
    n = matrices[0].shape[-1]
    result = [[float(i == j) for j in range(n)] for i in range(n)]
    for matrix in matrices:
        heads = matrix.double().tolist()
        step = [[sum(head[i][j] for head in heads) / len(heads) + float(i == j) for j in range(n)] for i in range(n)]
        step = [[entry / sum(row) for entry in row] for row in step]
        result = [[sum(step[i][k] * result[k][j] for k in range(n)) for j in range(n)] for i in range(n)]
    return torch.tensor(result, dtype=torch.float64)


def share_matrix(heads: int, n: int, batch: int = 2) -> Tensor:
    """Random rows that sum to one."""
    return rearrange(torch.rand(heads, batch, n, n, dtype=torch.float64), "h b n m -> b h n m").softmax(-1)
