"""Attention rollout: how attention composes over layers, from the patches to what the head reads.

Abnar and Zuidema 2020, section 3. What it is not: it is class-agnostic (one map, whatever the answer), and it ignores
the values, the MLPs and the sign of what is passed on; the residual is assumed to carry half of each token.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vit.analysis.maps import attention_matrix, is_share
from vit.analysis.reading import head_weights, reading
from vit.analysis.record import record
from vit.attention import Mechanism
from vit.layers import Encoder


class RolloutMap(NamedTuple):
    """Rollout of a batch, ready to draw.

    Attributes:
        heat: (b gh gw) each patch's share in what the head reads; with the prefix tokens' shares they sum to one.
        reading: which tokens the head reads, in words.
        notes: what else one has to know to read the map.
    """

    heat: Float[Tensor, "b gh gw"]
    reading: str
    notes: tuple[str, ...]


def rollout(matrices: Iterable[Float[Tensor, "b h n n"]]) -> Float[Tensor, "b n n"]:
    """Product over layers of (I + A) / 2, the last layer leftmost; A is the mean over heads of the absolute weights.

    Rows of A are scaled to sum to one. That changes nothing for softmax; where weights are signed or their sum is free
    it is the convention under which the residual still carries half. A query that attends to nothing passes itself on.
    The result's rows sum to one.

    Raises:
        ValueError: no matrices, or layers over different tokens (windowed attention, pyramids).
    """
    result: Tensor | None = None
    for matrix in matrices:
        step = _step(matrix)
        if result is not None and result.shape != step.shape:
            raise ValueError(
                f"rollout needs layers that attend over the same tokens, got {tuple(result.shape)} then "
                f"{tuple(step.shape)}: windows, pyramids and blocks that drop tokens have no global rollout"
            )
        result = step if result is None else step @ result
    if result is None:
        raise ValueError("rollout needs the attention matrix of at least one layer, got none")
    return result


def rollout_map(net: nn.Module, images: Float[Tensor, "b c height width"]) -> RolloutMap:
    """Rollout of ``net`` on ``images``, read the way its head pools. Holds one layer's matrices at a time.

    Raises:
        ValueError: the net has no attention, or its layers attend over different tokens.
    """
    calls = record(net, images)
    blocks = [call for call in calls if call.within]
    if not blocks:
        raise ValueError(f"{type(net).__name__} attends in its pool only: its blocks have no attention to roll out")
    shares: list[bool] = []

    def matrices() -> Iterator[Tensor]:
        for call in blocks:
            matrix = attention_matrix(call)
            shares.append(is_share(matrix))
            yield matrix

    rolled = rollout(matrices())
    weights, name = head_weights(net, calls)
    notes = [] if all(shares) else ["weights were no shares: absolute values, rows scaled to one"]
    if without := _blocks_without_attention(net):
        notes.append(f"{without} of its blocks have no attention and count as passing tokens on")
    return RolloutMap(reading(rolled, blocks[-1].layout, weights), name, tuple(notes))


def _step(matrix: Float[Tensor, "b h n n"]) -> Float[Tensor, "b n n"]:
    mean = matrix.abs().mean(dim=1)
    sums = mean.sum(dim=-1, keepdim=True)
    mean = torch.where(sums > 0, mean / sums, 0.0)
    step = (torch.eye(mean.shape[-1], dtype=mean.dtype, device=mean.device) + mean) / 2
    return step / step.sum(dim=-1, keepdim=True)


def _blocks_without_attention(net: nn.Module) -> int:
    blocks = [block for encoder in net.modules() if isinstance(encoder, Encoder) for block in encoder.layers]
    return sum(not any(isinstance(part, Mechanism) for part in block.modules()) for block in blocks)
