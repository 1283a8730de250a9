"""How much each output token depends on each input token, whatever lies between: no attention needed."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from vit.layers import BlockFactory, Encoder, MixerFactory, PositionFactory
from vit.tokens import Grid, Layout


def influence(
    mix: Callable[[Float[Tensor, "b n c"]], Float[Tensor, "b n c"]],
    tokens: Float[Tensor, "n c"],
    queries: Sequence[int] | None = None,
) -> Float[Tensor, "q n"]:
    """|dy_i / dx_j|_F of ``mix`` at ``tokens``: a row per query i, a column per token j.

    One copy of the tokens for each channel, so that one backward pass gives a row. What leaves its samples apart, as
    every mixer in eval mode does, may be asked.

    Args:
        mix: tokens to tokens.
        tokens: of one picture.
        queries: which rows, all when None.
    """
    rows = []
    for query in range(len(tokens)) if queries is None else queries:
        copies = tokens.detach().expand(tokens.shape[1], -1, -1).clone().requires_grad_()
        own = mix(copies)[:, query].diagonal().sum()  # of copy c the channel c
        (gradient,) = torch.autograd.grad(own, copies)
        rows.append(gradient.square().sum(dim=(0, 2)).sqrt())
    return torch.stack(rows)


def reach(
    block: BlockFactory, dim: int, grid: Grid, depth: int, query: int, seed: int = 0
) -> Float[Tensor, "depth gh gw"]:
    """`influence` of each patch on patch ``query`` after 1, 2, ... ``depth`` fresh blocks: the receptive field.

    In float64, where a zero is no rounding: what lies outside the field has none at all.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = Encoder(dim, grid, [(block, depth)]).double().eval()
        tokens = torch.randn(grid.tokens, dim, dtype=torch.float64)
    rows = []
    for layer in range(depth):
        mix = partial(_after, encoder, layer, Layout(grid))
        rows.append(influence(mix, tokens, [grid.num_prefix + query])[0, grid.num_prefix :])
    return rearrange(torch.stack(rows), "depth (gh gw) -> depth gh gw", gh=grid.height)


def fading(mixer: MixerFactory, dim: int, tokens: int, draws: int = 8, seed: int = 0) -> list[float]:
    """`influence` on the last token of those 1, 2, ... before it, of fresh mixers on random tokens: mean over draws."""
    layout = Layout(Grid(1, tokens))
    rows = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(draws):
            mix = mixer(dim, layout.grid).double().eval()
            rows.append(influence(partial(mix, layout=layout), torch.randn(tokens, dim).double(), [tokens - 1])[0])
    return torch.stack(rows).mean(dim=0)[:-1].flip(0).tolist()


@torch.no_grad()
def told_apart(block: BlockFactory, positions: PositionFactory, dim: int, grid: Grid, seed: int = 0) -> float:
    """How far one fresh block moves apart the first and the last patch, two that came in as equals, over their norm."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer, place = Encoder(dim, grid, [(block, 1)]).double().eval(), positions(dim, grid).double().eval()
        tokens = torch.randn(1, grid.tokens, dim, dtype=torch.float64)
        tokens[:, -1] = tokens[:, 0]
        out = layer(place(tokens, grid), Layout(grid))
    return ((out[0, 0] - out[0, -1]).norm() / out[0, 0].norm()).item()


def _after(encoder: Encoder, layer: int, layout: Layout, tokens: Float[Tensor, "b n c"]) -> Tensor:
    return encoder.states(tokens, layout, layer + 1)[layer]
