"""Pools that read the patches by one weight each: additive, sequence, hierarchical, hard."""

import re
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from tests.helpers import GRIDS, PREFIXES, B, random, redrawn
from vit.attention import Local, RelativeBias, Sparse
from vit.layers import (
    AdditivePool,
    Block,
    GumbelPool,
    HierarchicalPool,
    ReinforcePool,
    SelfAttention,
    SeqPool,
    WeightedPool,
)
from vit.tokens import Grid, Layout, Mask

C = 12
GRID = Grid(5, 7, prefix=("cls", "reg"))
FRONT = GRID.num_prefix
FLAT = partial(HierarchicalPool, depth=0)
POOLS = {
    "additive": AdditivePool,
    "seq": SeqPool,
    "hierarchical": partial(HierarchicalPool, region=(2, 3)),
    "hierarchical, flat": partial(FLAT, region=11),
    "reinforce": ReinforcePool,
    "gumbel": partial(GumbelPool, temperature=0.7),
}
every = pytest.mark.parametrize("name", POOLS)


def built(name: str, grid: Grid = GRID) -> WeightedPool:
    return redrawn(POOLS[name](C, grid))


def padded(*sizes: tuple[int, int]) -> Layout:
    return Layout.padded(GRID, torch.tensor(sizes))


def additive(pool: nn.Module, x: Tensor) -> Tensor:
    """The formula of one image (n c), token by token."""
    score = pool.score
    scores = [
        sum(score.query.weight[0, h] * torch.tanh(score.proj.weight[h] @ row + score.proj.bias[h]) for h in range(C))
        for row in x
    ]
    return torch.stack(scores).softmax(dim=0)


def test_additive_weights_equal_the_formula_on_the_patches_that_count() -> None:
    pool, tokens, layout = built("additive"), random(B, GRID.tokens, C), padded((5, 7), (2, 4))
    weights, out = pool.weights(tokens, layout), pool(tokens, layout)
    for b in range(B):
        patches = tokens[b, FRONT:][layout.patch_keys[b]]
        alpha = additive(pool, patches)
        assert_close(weights[b][layout.patch_keys[b]], alpha)
        assert_close(out[b], alpha @ patches)


@every
@pytest.mark.parametrize("prefix", PREFIXES, ids=len)
@pytest.mark.parametrize("size", GRIDS, ids=str)
def test_weights_are_shares_of_the_patches(size: tuple[int, int], prefix: tuple[str, ...], name: str) -> None:
    grid = Grid(*size, prefix=prefix)
    pool, tokens = built(name, grid), random(B, grid.tokens, C)
    weights = pool.weights(tokens, Layout(grid))
    assert weights.shape == (B, grid.patches)
    assert (weights >= 0).all()
    assert_close(weights.sum(dim=1), torch.ones(B, dtype=torch.float64))
    assert pool(tokens, Layout(grid)).shape == (B, C)


@every
def test_neither_prefix_nor_padding_counts(name: str) -> None:
    pool, tokens, layout = built(name), random(B, GRID.tokens, C), padded((5, 7), (2, 4))
    out, weights = pool(tokens, layout), pool.weights(tokens, layout)
    assert weights[~layout.patch_keys].count_nonzero() == 0
    assert_close(weights.sum(dim=1), torch.ones(B, dtype=torch.float64))
    ignored = ~layout.mask.keys
    ignored[:, :FRONT] = True
    for noise in (1e3, -1e3):
        assert_close(pool(tokens + noise * ignored[..., None], layout), out, rtol=0, atol=1e-9)


@every
def test_a_padded_picture_is_pooled_as_alone(name: str) -> None:
    pool, tokens, layout = built(name), random(3, GRID.tokens, C), padded((5, 7), (2, 4), (4, 3))
    out, weights = pool(tokens, layout), pool.weights(tokens, layout)
    for b, (height, width) in enumerate(layout.sizes.tolist()):
        own = torch.cat((tokens[b, :FRONT], tokens[b, FRONT:][layout.patch_keys[b]]))[None]
        alone = Layout(Grid(height, width, prefix=GRID.prefix))
        assert_close(out[b], pool(own, alone)[0])
        assert_close(weights[b][layout.patch_keys[b]], pool.weights(own, alone)[0])


@every
def test_a_picture_of_padding_only_does_no_harm(name: str) -> None:
    keys = torch.ones(B, GRID.tokens, dtype=torch.bool)
    keys[1, FRONT:] = False
    tokens = random(B, GRID.tokens, C).requires_grad_()
    pool = built(name)
    out = pool(tokens, Layout(GRID, Mask(keys=keys)))
    assert name in ("reinforce", "gumbel") or out[1].count_nonzero() == 0
    out.sum().backward()
    assert tokens.grad.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in pool.parameters())


@pytest.mark.parametrize("all_there", [Layout(GRID), padded((5, 7), (2, 4))], ids=["", "padded"])
@every
def test_a_kept_subset_is_pooled_as_the_rest_were_padding(name: str, all_there: Layout) -> None:
    """Of the second picture one kept patch, 20, is padding itself."""
    pool, tokens, index = built(name), random(B, GRID.tokens, C), torch.tensor([[0, 9, 33, 4], [7, 8, 20, 1]])
    keys = F.one_hot(index, GRID.patches).sum(dim=1).bool()
    if all_there.patch_keys is not None:
        keys = keys & all_there.patch_keys
    masked = Layout(GRID, Mask(keys=F.pad(keys, (FRONT, 0), value=True)))
    rows = F.pad(index + FRONT, (FRONT, 0))
    rows[:, :FRONT] = torch.arange(FRONT)
    kept, layout = tokens.gather(1, rows[..., None].expand(-1, -1, C)), all_there.keep(index)
    assert_close(pool(kept, layout), pool(tokens, masked))
    assert_close(pool.weights(kept, layout), pool.weights(tokens, masked).gather(1, index))


@every
def test_gradients_reach_every_parameter_and_patch_in_training(name: str) -> None:
    pool, tokens = built(name).train(), random(B, GRID.tokens, C).requires_grad_()
    if isinstance(pool, ReinforcePool):
        choice = pool.choose(tokens, Layout(GRID))
        (choice.pooled.sum() + choice.term(torch.tensor([0.3, 2.0]))).backward()
    else:
        pool(tokens, Layout(GRID)).pow(2).sum().backward()
    assert tokens.grad[:, FRONT:].abs().sum(dim=-1).min() > 0
    assert tokens.grad[:, :FRONT].count_nonzero() == 0
    unread = (
        {"region_score.proj.weight", "region_score.proj.bias", "region_score.query.weight"} if "flat" in name else ()
    )
    for path, parameter in pool.named_parameters():
        assert (parameter.grad.abs().sum() > 0) == (path not in unread), path


@every
def test_half_precision_under_autocast(name: str) -> None:
    pool, tokens = built(name).float(), random(B, GRID.tokens, C).float()
    with torch.autocast("cpu", torch.bfloat16):
        out = pool(tokens, Layout(GRID))
    assert_close(out.float(), pool(tokens, Layout(GRID)), rtol=2e-2, atol=5e-2)


def test_the_list_names_every_pool_of_weights() -> None:
    named = {getattr(pool, "func", pool).__name__ for pool in POOLS.values()}
    assert {cls.__name__ for cls in WeightedPool.__subclasses__() if cls.__module__.startswith("vit.layers.")} == named


# Hierarchy


def test_one_region_without_encoders_is_additive_pooling() -> None:
    hierarchical, pool, tokens = built("hierarchical, flat"), built("additive"), random(B, GRID.tokens, C)
    pool.score.load_state_dict(hierarchical.patch_score.state_dict())
    for layout in (Layout(GRID), padded((5, 7), (2, 4))):
        assert_close(hierarchical(tokens, layout), pool(tokens, layout))
        assert_close(hierarchical.weights(tokens, layout), pool.weights(tokens, layout))


def test_two_levels_equal_a_loop_over_regions_clamped_at_the_border() -> None:
    pool, tokens = redrawn(HierarchicalPool(C, GRID, region=(2, 3), depth=1)), random(B, GRID.tokens, C)
    image = tokens[:, FRONT:].view(B, 5, 7, C)
    alpha, out = torch.zeros(B, 5, 7, dtype=torch.float64), []
    for b in range(B):
        vectors, within = [], []
        for y in range(0, 5, 2):
            for x in range(0, 7, 3):
                part = image[b, y : y + 2, x : x + 3]
                rows, columns = part.shape[:2]
                encoded = pool.patch_encoder(part.reshape(1, -1, C), Layout(Grid(rows, columns)))
                weights = pool.patch_score(encoded).softmax(dim=1)[0]
                vectors.append(weights @ encoded[0])
                within.append((slice(y, y + 2), slice(x, x + 3), weights.view(rows, columns)))
        encoded = pool.region_encoder(torch.stack(vectors)[None], Layout(Grid(3, 3)))
        weights = pool.region_score(encoded).softmax(dim=1)[0]
        out.append(weights @ encoded[0])
        for (rows, columns, inner), outer in zip(within, weights, strict=True):
            alpha[b, rows, columns] = inner * outer
    assert_close(pool(tokens, Layout(GRID)), torch.stack(out))
    assert_close(pool.weights(tokens, Layout(GRID)), alpha.flatten(1))


@pytest.mark.parametrize(
    ("region", "inner", "over"), [((2, 3), (2, 3, ()), (2, 2, ())), ((9, 3), (4, 3, ()), (1, 2, ()))]
)
def test_full_regions_need_no_mask(region: tuple[int, int], inner: tuple, over: tuple) -> None:
    """Blocks that refuse a mask serve a grid that the regions tile, or one that a region reaches beyond."""
    layouts = []

    class Watching(nn.Module):
        def forward(self, x: Tensor, layout: Layout) -> Tensor:
            layouts.append(layout)
            return x

    pool = HierarchicalPool(C, Grid(4, 6), region=region, block=lambda dim, grid, drop_path: Watching())
    pool(torch.randn(B, 24, C), Layout(Grid(4, 6)))
    assert [(layout.grid, layout.mask) for layout in layouts] == [(inner, None), (over, None)]


def test_pictures_of_different_sizes_are_told_to_both_encoders() -> None:
    layouts = []

    class Watching(nn.Module):
        def forward(self, x: Tensor, layout: Layout) -> Tensor:
            layouts.append(layout)
            return x

    pool = HierarchicalPool(C, GRID, region=(2, 3), block=lambda dim, grid, drop_path: Watching())
    pool(torch.randn(B, GRID.tokens, C), padded((5, 7), (1, 4)))
    patches, regions = (layout.sizes.tolist() for layout in layouts)
    whole = [[rows, columns] for rows in (2, 2, 1) for columns in (3, 3, 1)]
    assert patches == whole + [[1, 3], [1, 1], [1, 0]] + 2 * [[0, 3], [0, 1], [0, 0]]
    assert regions == [[3, 3], [1, 2]]


@pytest.mark.parametrize(
    ("mechanism", "what"),
    [(partial(Sparse, pattern=partial(Local, width=1)), "Local"), (RelativeBias, "RelativeBias")],
    ids=["sparse", "relative bias"],
)
def test_a_block_that_follows_the_grid_refuses_pictures_of_different_sizes(mechanism: Callable, what: str) -> None:
    block = partial(Block, mixer=partial(SelfAttention, mechanism=mechanism))
    pool, tokens = HierarchicalPool(C, GRID, region=2, block=block), torch.randn(B, GRID.tokens, C)
    assert pool(tokens, Layout(GRID)).shape == (B, C)
    with pytest.raises(ValueError, match=f"^{what} follows the grid of the batch: it cannot honour pictures of diff"):
        pool(tokens, padded((5, 7), (2, 4)))


# Hard attention


def three_tokens(pool: nn.Module, batch: int) -> tuple[Tensor, Layout]:
    assert isinstance(pool, nn.Module)
    return random(1, 3, C).expand(batch, -1, -1), Layout(Grid(1, 3))


def losses(pooled: Tensor) -> Tensor:
    """No linear function of the token, so that reading the mean token is not the same."""
    return (pooled.sum(dim=1) - 1).square()


def test_reinforce_has_the_gradient_of_the_expected_loss() -> None:
    """Mean over 20,000 draws, against the sum over the three tokens; a baseline changes nothing but the noise."""
    pool, draws = built("reinforce").train(), 20_000
    tokens, layout = three_tokens(pool, draws)
    probabilities = pool.score(tokens[:1]).softmax(dim=1)[0]
    exact = torch.autograd.grad(probabilities @ losses(tokens[0]), list(pool.score.parameters()))
    for baseline in (0.0, float(probabilities.detach() @ losses(tokens[0])), 9.0):
        with torch.no_grad():
            pool.baseline.weight.zero_()
            pool.baseline.bias.fill_(baseline)
        choice = pool.choose(tokens, layout)
        own = torch.autograd.grad(choice.term(losses(choice.pooled)), list(pool.score.parameters()))
        error = sum((a - b).square().sum() for a, b in zip(own, exact, strict=True)).sqrt()
        assert error < 0.1 * sum(b.square().sum() for b in exact).sqrt(), baseline


def test_the_baseline_learns_the_loss_and_trains_nothing_else() -> None:
    pool = built("reinforce").train()
    tokens, layout = three_tokens(pool, 5)
    tokens = tokens.clone().requires_grad_()
    choice = pool.choose(tokens, layout)
    lost = losses(choice.pooled).detach().requires_grad_()
    advantage = choice.baseline - lost.detach()
    (reached,) = torch.autograd.grad(advantage.square().mean(), [tokens], retain_graph=True, allow_unused=True)
    assert reached is None
    grad, through_loss = torch.autograd.grad(choice.term(lost), [pool.baseline.bias, lost], allow_unused=True)
    assert_close(grad, 2 * advantage.mean()[None])
    assert through_loss is None, "the images' losses are in the sum already"


def test_the_baseline_of_a_padded_picture_is_its_own() -> None:
    pool, tokens, layout = built("reinforce").train(), random(B, GRID.tokens, C), padded((5, 7), (2, 4))
    patches = tokens[1, FRONT:][layout.patch_keys[1]]
    assert_close(pool.choose(tokens, layout).baseline[1], pool.baseline(patches.mean(dim=0))[0])


def test_nothing_of_a_choice_stays_in_the_pool() -> None:
    pool = built("reinforce").train()
    tokens, layout = three_tokens(pool, 5)
    before = {name: value for name, value in vars(pool).items() if not name.startswith("_")}, pool.state_dict()
    pool.choose(tokens, layout)
    after = {name: value for name, value in vars(pool).items() if not name.startswith("_")}, pool.state_dict()
    assert after[0] == before[0]
    assert all(torch.equal(after[1][name], before[1][name]) for name in before[1])


def test_reinforce_refuses_to_train_without_its_term() -> None:
    with pytest.raises(ValueError, match=r"^ReinforcePool learns by a term of the loss: .* `choose`$"):
        built("reinforce").train()(random(B, 3, C), Layout(Grid(1, 3)))


def reinforced(pool: ReinforcePool, tokens: Tensor, layout: Layout) -> Tensor:
    return pool.choose(tokens, layout).pooled


def gumbel(pool: GumbelPool, tokens: Tensor, layout: Layout) -> Tensor:
    return pool(tokens, layout)


@pytest.mark.parametrize(("name", "read"), [("reinforce", reinforced), ("gumbel", gumbel)])
def test_the_mean_of_many_draws_is_the_soft_readout(name: str, read: Callable[..., Tensor]) -> None:
    pool = built(name).train()
    draws = 4000
    tokens = random(1, GRID.tokens, C).expand(draws, -1, -1)
    layout = padded(*[(2, 4)] * draws)
    drawn = read(pool, tokens, layout)
    soft = AdditivePool(C, GRID).double()
    soft.score.load_state_dict(pool.score.state_dict())
    assert_close(drawn.mean(dim=0), soft(tokens[:1], padded((2, 4)))[0], rtol=0, atol=4 / draws**0.5)
    patches = tokens[0, FRONT:][layout.patch_keys[0]]
    distance = (drawn[:, None] - patches).abs().sum(dim=2).amin(dim=1)
    assert distance.max() < 1e-9, "each draw is one patch, never padding"


@pytest.mark.parametrize("name", ["reinforce", "gumbel"])
def test_evaluation_reads_the_likeliest_patch(name: str) -> None:
    pool, tokens, layout = built(name), random(B, GRID.tokens, C), padded((5, 7), (2, 4))
    scores = pool.score(tokens[:, FRONT:]).masked_fill(~layout.patch_keys, -torch.inf)
    best = scores.argmax(dim=1)
    assert_close(pool(tokens, layout), tokens[:, FRONT:][torch.arange(B), best], rtol=0, atol=0)
    assert_close(pool.weights(tokens, layout), F.one_hot(best, GRID.patches).double(), rtol=0, atol=0)


def test_a_gumbel_draw_is_passed_straight_through() -> None:
    """Forward one patch, backward softmax((s + g) / t) with the same noise."""
    pool = redrawn(GumbelPool(C, Grid(1, 3), temperature=0.5)).train()
    tokens, layout = three_tokens(pool, 1)
    state = torch.random.get_rng_state()
    hard = pool.weights(tokens, layout)
    torch.random.set_rng_state(state)
    noise = -torch.empty(1, 3, dtype=torch.float64).exponential_().log()
    soft = ((pool.score(tokens) + noise) / 0.5).softmax(dim=1)
    assert_close(hard.detach(), F.one_hot(soft.argmax(dim=1), 3).double())
    direction = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    own, expected = (torch.autograd.grad((w * direction).sum(), list(pool.score.parameters())) for w in (hard, soft))
    assert_close(own, expected)


def test_a_gumbel_draw_is_made_in_float32() -> None:
    """Noise of eight bits would tie, and the first patch win more often than it should."""
    pool, tokens = built("gumbel").float().train(), random(B, GRID.tokens, C).float()
    with torch.autocast("cpu", torch.bfloat16):
        assert pool.score(tokens).dtype == torch.bfloat16
        assert pool.weights(tokens, Layout(GRID)).dtype == torch.float32


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (partial(AdditivePool, hidden=0), "hidden must be at least 1, got 0"),
        (partial(HierarchicalPool, region=(2, 0)), "region sides must be at least 1, got 2x0"),
        (partial(HierarchicalPool, depth=-1), "depth must be at least 0, got -1"),
        (partial(GumbelPool, temperature=0.0), "temperature must be positive, got 0.0"),
    ],
)
def test_refuses_what_makes_no_pool(build: Callable[..., nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        build(C, GRID)
