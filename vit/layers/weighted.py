"""What pools share that read the patch tokens by one weight each."""

from abc import ABC, abstractmethod
from typing import final

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vit.checks import require_at_least
from vit.tokens import Layout


class WeightedPool(nn.Module, ABC):
    """A pool that can say how much it takes from each patch: shares that explanations follow."""

    @abstractmethod
    def weights(self, tokens: Float[Tensor, "b n c"], layout: Layout) -> Float[Tensor, "b p"]:
        """Shares of the patch tokens, prefix left out: none negative, their sum one, zero on padding."""

    @abstractmethod
    def forward(self, tokens: Float[Tensor, "b n c"], layout: Layout) -> Float[Tensor, "b c"]:
        """One vector per image."""


@final
class AdditiveScore(nn.Module):
    """u^T tanh(W x + b) of each token.  Bahdanau et al. 2015, A.1.2, with a learned query: Yang et al. 2016, eq. 5-6.

    Args:
        dim: channels.
        hidden: rows of W, ``dim`` when None.

    Raises:
        ValueError: ``hidden`` is below 1.
    """

    def __init__(self, dim: int, hidden: int | None = None) -> None:
        super().__init__()
        hidden = require_at_least(1, dim if hidden is None else hidden, "hidden")
        self.proj = nn.Linear(dim, hidden)
        self.query = nn.Linear(hidden, 1, bias=False)

    def forward(self, tokens: Float[Tensor, "b n c"]) -> Float[Tensor, "b n"]:
        return rearrange(self.query(self.proj(tokens).tanh()), "b n 1 -> b n")


def masked(scores: Float[Tensor, "b n"], keys: Bool[Tensor, "#b n"] | None) -> Float[Tensor, "b n"]:
    """Scores that padding cannot win."""
    return scores if keys is None else scores.masked_fill(~keys, torch.finfo(scores.dtype).min)


def shares(scores: Float[Tensor, "b n"], keys: Bool[Tensor, "#b n"] | None) -> Float[Tensor, "b n"]:
    """Softmax over the tokens that count; zeros where none does."""
    weights = masked(scores, keys).softmax(dim=-1)
    return weights if keys is None else weights * keys


def weighted_sum(weights: Float[Tensor, "b p"], patches: Float[Tensor, "b p c"]) -> Float[Tensor, "b c"]:
    return rearrange(rearrange(weights, "b p -> b 1 p").to(patches.dtype) @ patches, "b 1 c -> b c")
