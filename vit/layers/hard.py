"""Hard attention as a readout: one patch token is read, drawn in training, the likeliest in evaluation.

Xu et al. 2015, section 4.1, the two known ways to train it: the score function (REINFORCE), and a relaxed draw.
"""

from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from vit.layers.weighted import AdditiveScore, WeightedPool, masked, weighted_sum
from vit.tokens import Grid, Layout


class Choice(NamedTuple):
    """What was read in one call, and what its loss is multiplied with: nothing of it stays in the pool.

    Attributes:
        pooled: (b c) the token drawn.
        log_prob: (b,) log-probability of the draw.
        baseline: (b,) the loss expected before the draw.
    """

    pooled: Float[Tensor, "b c"]
    log_prob: Float[Tensor, " b"]
    baseline: Float[Tensor, " b"]

    def term(self, losses: Float[Tensor, " b"]) -> Float[Tensor, ""]:
        """What is added to the mean of the images' ``losses``: mean of (l - b) log p, l - b constant, plus (l - b)^2.

        The first has the gradient of the expected loss by the scores, whatever the baseline (Williams 1992, theorem 1);
        the second trains the baseline and nothing else.
        """
        advantage = losses.detach() - self.baseline
        return (advantage.detach() * self.log_prob).mean() + advantage.square().mean()


@final
class ReinforcePool(WeightedPool):
    """x_z with z drawn from softmax(u^T tanh(W x + b)); scores learn by REINFORCE.  Xu et al. 2015, eq. 10-12.

    In training it is called by `choose`, whose `Choice.term` has to join the loss, as `vit.tasks.classify` does;
    nothing else would ever reach the scores. The baseline is linear in the mean patch token (as in Mnih et al. 2014),
    which it does not train.

    Args:
        dim: channels.
        grid: unused, any number of patches is pooled.
        hidden: width inside the score, ``dim`` when None.

    Raises:
        ValueError: when called in training.
    """

    def __init__(self, dim: int, grid: Grid, hidden: int | None = None) -> None:
        super().__init__()
        self.score = AdditiveScore(dim, hidden)
        self.baseline = nn.Linear(dim, 1)

    def choose(self, tokens: Float[Tensor, "b n c"], layout: Layout) -> Choice:
        """One draw per image."""
        patches, keys = tokens[:, layout.grid.num_prefix :], layout.patch_keys
        log_probs = masked(self.score(patches), keys).log_softmax(dim=-1)
        drawn = torch.multinomial(log_probs.detach().exp(), 1)
        weights = F.one_hot(drawn[:, 0], patches.shape[1]).to(patches)
        counted = torch.ones_like(patches[..., :1]) if keys is None else keys[..., None].to(patches)
        mean = (patches * counted).sum(dim=1) / counted.sum(dim=1).clamp(min=1)
        expected = self.baseline(mean.detach())[:, 0]
        return Choice(weighted_sum(weights, patches), log_probs.gather(1, drawn)[:, 0], expected)

    @override
    def weights(self, tokens: Float[Tensor, "b n c"], layout: Layout) -> Float[Tensor, "b p"]:
        return _likeliest(masked(self.score(tokens[:, layout.grid.num_prefix :]), layout.patch_keys))

    @override
    def forward(self, tokens: Float[Tensor, "b n c"], layout: Layout) -> Float[Tensor, "b c"]:
        if self.training:
            raise ValueError("ReinforcePool learns by a term of the loss: in training, expected a call of `choose`")
        return weighted_sum(self.weights(tokens, layout), tokens[:, layout.grid.num_prefix :])


@final
class GumbelPool(WeightedPool):
    """x_z with z = argmax(s + g), g Gumbel noise, s = u^T tanh(W x + b); the gradient is that of softmax((s + g) / t).

    Straight-through Gumbel-softmax: Jang et al. 2017, section 2.2. Biased, of low variance, and no term of the loss.

    Args:
        dim: channels.
        grid: unused, any number of patches is pooled.
        hidden: width inside the score, ``dim`` when None.
        temperature: t; the lower, the less biased and the noisier.

    Raises:
        ValueError: ``temperature`` is not positive.
    """

    def __init__(self, dim: int, grid: Grid, hidden: int | None = None, temperature: float = 1.0) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        self.score = AdditiveScore(dim, hidden)
        self.temperature = temperature

    @override
    def weights(self, tokens: Float[Tensor, "b n c"], layout: Layout) -> Float[Tensor, "b p"]:
        scores = self.score(tokens[:, layout.grid.num_prefix :])
        if not self.training:
            return _likeliest(masked(scores, layout.patch_keys))
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))  # half precision rounds noise to infinity
        noisy = masked(scores - torch.empty_like(scores).exponential_().log(), layout.patch_keys)
        soft = (noisy / self.temperature).softmax(dim=-1)
        return _likeliest(noisy) + (soft - soft.detach())

    @override
    def forward(self, tokens: Float[Tensor, "b n c"], layout: Layout) -> Float[Tensor, "b c"]:
        return weighted_sum(self.weights(tokens, layout), tokens[:, layout.grid.num_prefix :])


def _likeliest(scores: Float[Tensor, "b p"]) -> Float[Tensor, "b p"]:
    return F.one_hot(scores.argmax(dim=-1), scores.shape[-1]).to(scores.dtype)
