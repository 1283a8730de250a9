"""Tokens laid into slots, so that attention inside groups is attention inside blocks of one size.

Prefix tokens (class, registers) follow one rule in every mechanism of blocks: they stay outside the blocks as global
tokens, seen by all and seeing all. Padding gets no slot, whatever its place in the sequence, and returns zeros.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from vit.attention.numerics import masked_softmax
from vit.tokens import Layout


class Slots(NamedTuple):
    """The slot of each token, one past the last for none, and the token of each slot, ``n`` for none."""

    slot: Int[Tensor, "*g n"]
    token: Int[Tensor, "*g s"]


def lay(slot: Int[Tensor, "*g n"], count: int) -> Slots:
    """``count`` slots from the slot of each token, ``count`` for none."""
    n = slot.shape[-1]
    token = slot.new_full((*slot.shape[:-1], count + 1), n)
    numbers = torch.arange(n, device=slot.device).expand_as(slot)
    return Slots(slot, token.scatter(-1, slot, numbers)[..., :count])


def lay_by_group(group: Int[Tensor, "*g n"], groups: int, size: int, taken: Bool[Tensor, "*#g n"]) -> Slots:
    """Each group in order, from a slot divisible by ``size`` on: a block of ``size`` slots holds one group only.

    No later token of its group decides a token's block or place, which is what keeps a causal order causal.
    """
    member = (group[..., None] == torch.arange(groups, device=group.device)) & taken[..., None]
    rank = (member.cumsum(dim=-2) - 1).gather(-1, group[..., None])[..., 0]
    blocks = (member.sum(dim=-2) + size - 1) // size
    start = size * (blocks.cumsum(dim=-1) - blocks)
    count = size * (group.shape[-1] // size + groups)
    return lay(torch.where(taken, start.gather(-1, group) + rank, count), count)


def take(x: Float[Tensor, "*g n d"], index: Int[Tensor, "*g s"]) -> Float[Tensor, "*g s d"]:
    """The vectors at ``index``, zeros where it is n."""
    x = F.pad(x, (0, 0, 0, 1))
    return x.gather(-2, index[..., None].expand(*index.shape, x.shape[-1]))


def visible(layout: Layout, device: torch.device) -> Bool[Tensor, "b n"]:
    """(b or 1, n): which keys are no padding."""
    keys = layout.keys
    return torch.ones(1, layout.tokens, dtype=torch.bool, device=device) if keys is None else keys


def attend(
    q: Float[Tensor, "*g n d"],
    k: Float[Tensor, "*g m d"],
    v: Float[Tensor, "*g m e"],
    allowed: Bool[Tensor, "*#g #n m"],
) -> Float[Tensor, "*g n e"]:
    """softmax(q k^T / sqrt(d)) v, written out; zero where nothing is allowed."""
    return masked_softmax(q @ k.mT * q.shape[-1] ** -0.5, allowed) @ v
