import math
import re

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from tests.helpers import B, N, random, redrawn
from vit.layers import ClassToken, MapPool, MaxPool, MeanPool, SeqPool
from vit.tokens import Grid, Layout, Mask

C = 15
GRID = Grid(2, 3, prefix=("reg", "cls"))
FRONT = GRID.num_prefix
KEYS = torch.tensor([[True] * 8, [True, True, True, False, True, True, False, False]])
OF_PATCHES = [MeanPool, MaxPool, SeqPool, MapPool]


def pool_of(kind: type[nn.Module]) -> nn.Module:
    return redrawn(kind(C, GRID))


def map_pool_one_head_at_a_time(pool: MapPool, patches: Tensor) -> Tensor:
    attention, out = pool.attention, []
    key_map, value_map = attention.kv.weight.chunk(2)
    key_bias, value_bias = attention.kv.bias.chunk(2)
    query = pool.latent[0, 0] @ attention.q.weight.T + attention.q.bias
    for rows in torch.arange(C).chunk(3):
        k, v = patches @ key_map[rows].T + key_bias[rows], patches @ value_map[rows].T + value_bias[rows]
        out.append((k @ query[rows] / math.sqrt(C / 3)).softmax(dim=0) @ v)
    x = torch.cat(out) @ attention.proj.weight.T + attention.proj.bias
    normed = (x - x.mean()) / (x.var(correction=0) + 1e-6).sqrt() * pool.norm.weight + pool.norm.bias
    hidden = normed @ pool.mlp.fc1.weight.T + pool.mlp.fc1.bias
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    return x + hidden @ pool.mlp.fc2.weight.T + pool.mlp.fc2.bias


FORMULA = {
    MeanPool: lambda pool, patches: patches.sum(dim=0) / len(patches),
    MaxPool: lambda pool, patches: patches.max(dim=0).values,
    SeqPool: lambda pool, patches: (patches @ pool.score.weight[0] + pool.score.bias).softmax(dim=0) @ patches,
    MapPool: map_pool_one_head_at_a_time,
}


@pytest.mark.parametrize("keys", [None, KEYS], ids=["", "keys"])
@pytest.mark.parametrize("kind", OF_PATCHES)
def test_equals_its_formula_on_the_patches_that_count(kind: type[nn.Module], keys: Tensor | None) -> None:
    pool, tokens = pool_of(kind), random(B, GRID.tokens, C)
    out = pool(tokens, Layout(GRID, None if keys is None else Mask(keys=keys)))
    counted = torch.ones(B, 6, dtype=torch.bool) if keys is None else keys[:, FRONT:]
    expected = [FORMULA[kind](pool, tokens[b, FRONT:][counted[b]]) for b in range(B)]
    assert_close(out, torch.stack(expected))


@pytest.mark.parametrize("kind", OF_PATCHES)
def test_neither_prefix_nor_padding_counts(kind: type[nn.Module]) -> None:
    pool, tokens, layout = pool_of(kind), random(B, GRID.tokens, C), Layout(GRID, Mask(keys=KEYS))
    out = pool(tokens, layout)
    ignored = ~KEYS
    ignored[:, :FRONT] = True
    for noise in (1e3, -1e3):
        assert_close(pool(tokens + noise * ignored[..., None], layout), out, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", OF_PATCHES)
def test_a_picture_of_padding_only_leaves_all_finite(kind: type[nn.Module]) -> None:
    keys = torch.ones(B, GRID.tokens, dtype=torch.bool)
    keys[1, FRONT:] = False
    pool, tokens = pool_of(kind), random(B, GRID.tokens, C).requires_grad_()
    out = pool(tokens, Layout(GRID, Mask(keys=keys)))
    assert out.isfinite().all()
    assert_close(out[0], pool(tokens[:1], Layout(GRID))[0])
    out.sum().backward()
    assert tokens.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in pool.parameters())


@pytest.mark.parametrize("kind", OF_PATCHES)
def test_order_does_not_matter(kind: type[nn.Module]) -> None:
    pool, tokens, order = pool_of(kind), random(B, GRID.tokens, C), torch.tensor([0, 1, 4, 7, 2, 6, 3, 5])
    assert_close(pool(tokens[:, order], Layout(GRID)), pool(tokens, Layout(GRID)))


@pytest.mark.parametrize("kind", OF_PATCHES)
def test_a_kept_subset_is_pooled_alone(kind: type[nn.Module]) -> None:
    pool, tokens = pool_of(kind), random(B, FRONT + 4, C)
    layout = Layout(GRID).keep(torch.tensor([[0, 2, 3, 5], [1, 2, 4, 5]]))
    assert_close(pool(tokens, layout), pool(tokens, Layout(Grid(1, 4, prefix=GRID.prefix))))


@pytest.mark.parametrize("kind", OF_PATCHES)
def test_a_mask_between_tokens_does_not_touch_the_pool(kind: type[nn.Module]) -> None:
    pool, tokens = pool_of(kind), random(B, GRID.tokens, C)
    assert_close(pool(tokens, Layout(GRID, Mask(causal=True))), pool(tokens, Layout(GRID)))


@pytest.mark.parametrize(("token", "position"), [("reg", 0), ("cls", 1)])
def test_class_token_reads_the_token_of_its_name(token: str, position: int) -> None:
    tokens = random(B, GRID.tokens, C)
    assert_close(ClassToken(C, GRID, token)(tokens, Layout(GRID)), tokens[:, position], rtol=0, atol=0)


@pytest.mark.parametrize("prefix", [(), ("reg", "reg")])
def test_class_token_needs_its_token(prefix: tuple[str, ...]) -> None:
    message = f"pooling reads the prefix token 'cls', but the backbone has {list(prefix)}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ClassToken(C, Grid(2, 3, prefix=prefix))


@pytest.mark.parametrize("kind", [*OF_PATCHES, ClassToken])
def test_gradients_reach_every_parameter_and_token(kind: type[nn.Module]) -> None:
    pool, tokens = pool_of(kind), random(B, N, C).requires_grad_()
    pool(tokens, Layout(Grid(1, 5, prefix=GRID.prefix))).pow(2).sum().backward()
    assert tokens.grad.isfinite().all()
    # a softmax does not feel what shifts all its scores alike
    shift = {"score.bias"}
    assert all(p.grad.abs().sum() > 0 for name, p in pool.named_parameters() if name not in shift)
