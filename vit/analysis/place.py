"""What tokens still know of their place, layer by layer."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from vit.models import Backbone
from vit.models.pretraining import evaluating
from vit.tokens import Layout

RIDGE = 1e-2


@torch.no_grad()
def place_known(backbone: Backbone, images: Float[Tensor, "b c height width"]) -> list[float]:
    """R^2 of row and column read linearly from a patch token: of the embedding, then after each layer.

    Ridge regression on one half of the pictures, judged on the other. 1: the place is there to be read; 0 or less:
    no better than the middle of the picture.

    Raises:
        ValueError: fewer than two pictures.
    """
    if len(images) < 2:
        raise ValueError(f"expected two pictures or more, one half to fit and one to judge, got {len(images)}")
    with evaluating(backbone):
        tokens, layout = backbone.embed(images)
        states = [tokens, *backbone.encoder.states(tokens, layout)]
    return [_judged(state[:, layout.grid.num_prefix :].double(), layout) for state in states]


def _judged(tokens: Float[Tensor, "b n c"], layout: Layout) -> float:
    half = len(tokens) // 2
    places = layout.coordinates(tokens.device).to(tokens).expand(len(tokens), -1, -1)
    fit, judge = (rearrange(part, "b n c -> (b n) c") for part in tokens.split((half, len(tokens) - half)))
    aims, truth = (rearrange(part, "b n c -> (b n) c") for part in places.split((half, len(tokens) - half)))
    mean, scale = fit.mean(dim=0), fit.std(dim=0).clamp(min=1e-9)
    fit, judge, middle = (fit - mean) / scale, (judge - mean) / scale, aims.mean(dim=0)
    normal = fit.mT @ fit + RIDGE * len(fit) * torch.eye(fit.shape[1], dtype=fit.dtype, device=fit.device)
    read = judge @ torch.linalg.solve(normal, fit.mT @ (aims - middle)) + middle
    return 1 - ((truth - read).square().sum() / (truth - middle).square().sum()).item()
