"""Attention that starts as a convolution and learns how much content to follow."""

from itertools import product
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vit.attention.mechanism import Mechanism
from vit.attention.numerics import exact_sums, masked_softmax, widen
from vit.checks import refuse_cross
from vit.tokens import Grid, Layout


@final
class GatedPositional(Mechanism):
    """(1 - s) softmax(q k^T / sqrt(d)) v + s softmax(u . r) v, s = sigmoid(gate).  d'Ascoli et al. 2021 (ConViT), GPSA.

    r_ij = (|o|^2, o_y, o_x) of the offset o from patch i to patch j; gate and u are learned per head. u starts as
    -a (1, -2 c_y, -2 c_x), a softmax around the offset c, a being the locality; head by head c is the next nearest
    offset, so that 9 heads start as a 3x3 convolution (Cordonnier et al. 2020). Any grid and any kept subset: offsets
    are those of the call. Prefix tokens have no place: the positional part is between patches only, and the row of a
    prefix token (or of a patch that may see no patch) is all content.

    Args:
        locality: a, large for a narrow start.
        gate: initial gate of all heads.

    Raises:
        ValueError: when called with queries of another sequence.
    """

    def __init__(self, heads: int, head_dim: int, grid: Grid, locality: float = 1.0, gate: float = 1.0) -> None:
        super().__init__()
        centers = torch.tensor(_nearest_offsets(heads)).float()
        self.places = nn.Parameter(-locality * torch.cat((torch.ones(heads, 1), -2 * centers), dim=1))
        self.gate = nn.Parameter(torch.full((heads,), gate))

    def forward(
        self,
        q: Float[Tensor, "b h n d"],
        k: Float[Tensor, "b h m d"],
        v: Float[Tensor, "b h m e"],
        layout: Layout,
    ) -> Float[Tensor, "b h n e"]:
        refuse_cross(self, q, v)
        front, n = layout.grid.num_prefix, v.shape[2]
        allowed = None if layout.mask is None else layout.mask.allowed(n, v.device)[:, None]
        with exact_sums(v):
            wide_q, wide_k, wide_v, places, gate = widen(q, k, v, self.places, self.gate)
            content = masked_softmax(wide_q @ wide_k.mT * q.shape[-1] ** -0.5, allowed)
            scores = _offsets(layout, v.device).to(places.dtype) @ places.mT
            scores = scores.movedim(-1, 1)
            between = None if allowed is None else allowed[:, :, front:, front:]
            if between is not None:
                scores = scores.expand(max(len(scores), len(between)), -1, -1, -1)
            positional = F.pad(masked_softmax(scores, between), (front, 0, front, 0))
            share = gate.sigmoid()[:, None, None] * (positional.detach().sum(dim=-1, keepdim=True) > 0)
            return (((1 - share) * content + share * positional) @ wide_v).to(v.dtype)


def _nearest_offsets(count: int) -> list[tuple[int, int]]:
    """The ``count`` offsets (y, x) nearest to none, the own place first."""
    reach = range(-count, count + 1)
    return sorted(product(reach, reach), key=lambda o: (o[0] ** 2 + o[1] ** 2, o))[:count]


def _offsets(layout: Layout, device: torch.device) -> Float[Tensor, "b n n 3"]:
    """Squared length and both sides of the offset from each patch (second axis) to each other (third)."""
    place = layout.coordinates(device)
    offset = place[:, None] - place[:, :, None]
    return torch.cat((offset.square().sum(dim=-1, keepdim=True), offset), dim=-1)
