"""Sequences of different lengths in one batch."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from vit.analysis.maps import attention_matrix
from vit.analysis.record import Recorded
from vit.attention import MechanismFactory
from vit.tokens import Grid, Layout, Mask


class Padded(NamedTuple):
    """A padded batch seen by one head.

    Attributes:
        keys: True where a token is none of padding.
        matrices: the weights of each sequence.
        error: the largest difference between a token's output in the batch and in its sequence alone.
    """

    keys: Bool[Tensor, "b n"]
    matrices: Float[Tensor, "b n n"]
    error: float


@torch.no_grad()
def padded(mechanism: MechanismFactory, lengths: Sequence[int], width: int = 16, seed: int = 0) -> Padded:
    """Random sequences of these lengths, padded with noise to the longest and masked, against each alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = mechanism(1, width, Grid(1, max(lengths))).double().eval()
        keys = pad_sequence([torch.ones(length, dtype=torch.bool) for length in lengths], batch_first=True)
        q, k, v = torch.randn(3, len(lengths), 1, keys.shape[1], width, dtype=torch.float64).unbind()
    layout = Layout(Grid(1, keys.shape[1]), Mask(keys=keys))
    together = made(q, k, v, layout)
    errors = []
    for sample, length in enumerate(lengths):
        parts = (part[sample : sample + 1, :, :length] for part in (q, k, v))
        alone = made(*parts, Layout(Grid(1, length)))
        errors.append((alone[0] - together[sample, :, :length]).abs().max().item())
    return Padded(keys, attention_matrix(Recorded(q, k, v, layout, together, made))[:, 0], max(errors))
