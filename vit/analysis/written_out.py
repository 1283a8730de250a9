"""Attention written out step by step, slowly, to be looked at and to compare with."""

from typing import NamedTuple

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vit.attention import Additive, Linear, LinearState
from vit.tokens import Grid


def token_by_token(
    q: Float[Tensor, "b h n d"], k: Float[Tensor, "b h m d"], v: Float[Tensor, "b h m e"]
) -> Float[Tensor, "b h n e"]:
    """softmax(q k^T / sqrt(d)) v one query at a time: the vector form of Vaswani et al. 2017, eq. 1."""
    rows = []
    for query in q.unbind(dim=2):
        scores = (k * query[:, :, None]).sum(dim=-1) / q.shape[-1] ** 0.5
        rows.append((scores.softmax(dim=-1)[..., None] * v).sum(dim=2))
    return torch.stack(rows, dim=2)


class AdditiveSteps(NamedTuple):
    """What additive attention computes for one query in one head, in order.

    Attributes:
        hidden: tanh(W_q q + W_k k_j), a row for each token j; of no other token but j and the query.
        scores: w . hidden_j.
        weights: softmax of the scores.
        context: the weighted sum of the values.
    """

    hidden: Float[Tensor, "n a"]
    scores: Float[Tensor, " n"]
    weights: Float[Tensor, " n"]
    context: Float[Tensor, " e"]


@torch.no_grad()
def additive_steps(
    mechanism: Additive,
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b h m d"],
    v: Float[Tensor, "b h m e"],
    query: int,
    sample: int = 0,
    head: int = 0,
) -> AdditiveSteps:
    """The steps of Bahdanau et al. 2015, A.1.2, for one query of one head of one sample."""
    asked = q[sample, head, query] @ mechanism.query[head]
    hidden = torch.tanh(asked + k[sample, head] @ mechanism.key[head])
    scores = hidden @ mechanism.score[head]
    weights = scores.softmax(dim=0)
    return AdditiveSteps(hidden, scores, weights, weights @ v[sample, head])


@torch.no_grad()
def recurrent(
    mechanism: Linear, q: Float[Tensor, "b h n d"], k: Float[Tensor, "b h n d"], v: Float[Tensor, "b h n e"]
) -> tuple[Float[Tensor, "b h n e"], LinearState]:
    """Causal linear attention as an RNN: outputs one token after the other, and the state after the last."""
    rows, state = [], None
    for query, key, value in zip(q.unbind(dim=2), k.unbind(dim=2), v.unbind(dim=2), strict=True):
        out, state = mechanism.step(query, key, value, state)
        rows.append(out)
    assert state is not None
    return torch.stack(rows, dim=2), state


def shift_heads(grid: Grid, kernel_size: int) -> Float[Tensor, "h n n"]:
    """kernel_size^2 attention matrices, each of which looks at one fixed offset: one-hot rows, zero over the border.

    Rows of offsets from the upper left, as a kernel is stored.  Cordonnier et al. 2020, theorem 1.
    """
    picture = rearrange(torch.eye(grid.patches, dtype=torch.float64), "n (y x) -> n 1 y x", y=grid.height)
    shifted = F.unfold(picture, kernel_size, padding=kernel_size // 2)
    return rearrange(shifted, "m h n -> h n m")


def convolved_by_heads(
    pictures: Float[Tensor, "b c height width"], kernel: Float[Tensor, "o c k k"]
) -> Float[Tensor, "b o height width"]:
    """A convolution as multi-head attention: head h mixes by `shift_heads`, its output weights are kernel entry h."""
    grid = Grid(pictures.shape[2], pictures.shape[3])
    heads = shift_heads(grid, kernel.shape[-1]).to(pictures)
    tokens = rearrange(pictures, "b c y x -> b (y x) c")
    weights = rearrange(kernel, "o c y x -> (y x) o c")
    mixed = einsum(heads, tokens, weights, "h n m, b m c, h o c -> b n o")
    return rearrange(mixed, "b (y x) o -> b o y x", y=grid.height)
