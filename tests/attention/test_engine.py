"""One pattern, several engines, the same numbers."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.helpers import GRIDS, PREFIXES, B, D, E, H, N, random
from vit.attention import (
    BigBird,
    BlockGather,
    Dense,
    Edges,
    EngineFactory,
    Flex,
    GlobalTokens,
    GridGraph,
    Local,
    Neighborhood,
    Pattern,
    PatternFactory,
    PerHead,
    ShiftedWindow,
    Softmax,
    Sparse,
    Strided,
    Window,
)
from vit.tokens import Grid, Layout, Mask

PATTERNS: list[PatternFactory] = [
    BigBird,
    partial(Edges, edges=[(0, 3), (4, 1)]),
    partial(GlobalTokens, count=2, width=3),
    GridGraph,
    partial(Local, width=2, dilation=3),
    Neighborhood,
    partial(PerHead, patterns=[partial(GlobalTokens, count=9), Local, Window]),
    ShiftedWindow,
    Strided,
    Window,
]
FULL: list[PatternFactory] = [
    partial(BigBird, block_size=99),
    partial(Edges, edges=[(i, j) for i in range(15) for j in range(15)]),
    partial(GlobalTokens, count=15),
    partial(Local, width=15),
    partial(Neighborhood, kernel_size=11),
    partial(Strided, stride=1),
    partial(Window, size=5),
]


def qkv(tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = random(B, H, tokens, D), random(B, H, tokens, D), random(B, H, tokens, E)
    return q.requires_grad_(), k.requires_grad_(), v.requires_grad_()


def masks(n: int) -> list[Mask | None]:
    keys, pairs = torch.rand(B, n) < 0.7, torch.rand(B, n, n) < 0.5
    return [None, Mask(keys=keys), Mask(causal=True, prefix=torch.tensor([0, 9])), Mask(keys=keys, pairs=pairs)]


def assert_same(ours: Tensor, wanted: Tensor, inputs: tuple[Tensor, ...]) -> None:
    """Values, and gradients to the inputs."""
    assert_close(ours, wanted)
    direction = torch.randn_like(wanted)
    assert_close(torch.autograd.grad(ours, inputs, direction), torch.autograd.grad(wanted, inputs, direction))


@pytest.mark.parametrize("prefix", PREFIXES, ids=len)
@pytest.mark.parametrize("size", GRIDS, ids=str)
def test_block_gather_equals_dense_forward_and_backward(size: tuple[int, int], prefix: tuple[str, ...]) -> None:
    grid = Grid(*size, prefix=prefix)
    parts, choices = qkv(grid.tokens), masks(grid.tokens)
    for number, factory in enumerate(PATTERNS):
        pattern, layout = factory(H, grid), Layout(grid, choices[(number + len(prefix)) % len(choices)])
        gathered = BlockGather(pattern, grid)(*parts, layout, 0.0)
        assert_same(gathered, Dense(pattern, grid)(*parts, layout, 0.0), parts)


@pytest.mark.parametrize("mask", range(4))
def test_dense_equals_the_explicit_formula(mask: int) -> None:
    grid = Grid(3, 5, prefix=("cls",))
    layout, parts = Layout(grid, masks(grid.tokens)[mask]), qkv(grid.tokens)
    pattern = PerHead(H, grid, [GridGraph, Local])
    allowed = pattern.allowed(grid)[None]
    if layout.mask is not None:
        allowed = allowed & layout.mask.allowed(grid.tokens, torch.device("cpu"))[:, None]
    q, k, v = parts
    scores = (q @ k.transpose(-1, -2) / math.sqrt(D)).masked_fill(~allowed, -math.inf)
    assert_same(Dense(pattern, grid)(*parts, layout, 0.0), scores.softmax(dim=-1).nan_to_num() @ v, parts)


@pytest.mark.parametrize("engine", [Dense, BlockGather])
@pytest.mark.parametrize("pattern", FULL, ids=str)
def test_a_pattern_wide_enough_is_full_attention(pattern: PatternFactory, engine: EngineFactory) -> None:
    for grid in (Grid(3, 5), Grid(3, 5, prefix=("cls",))):
        parts = qkv(grid.tokens)
        for mask in masks(grid.tokens):
            layout = Layout(grid, mask)
            ours = Sparse(H, D, grid, pattern, engine)(*parts, layout)
            assert_same(ours, Softmax(H, D, grid)(*parts, layout), parts)


def test_block_gather_computes_few_pairs() -> None:
    """What it works on grows with the pattern, not with the square of the grid."""
    for factory, most in (
        (partial(Local, width=4), 64 + 2 * 4),
        (partial(Window, size=8), 64),
        (partial(Neighborhood, kernel_size=5), (8 + 4) ** 2),
        (partial(BigBird, block_size=64), 6 * 64),
        (partial(Strided, width=4), 8 * 32 + 8 * 8),
    ):
        grid = Grid(32, 32, prefix=("cls",))
        engine = BlockGather(factory(1, grid), grid)
        assert engine.get_buffer("keys").shape[2] <= most + 1, factory
        assert engine.get_buffer("queries").shape[1] <= 64


@pytest.mark.parametrize("engine", [Dense, BlockGather])
def test_tables_are_made_once_for_each_grid(engine: EngineFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    grid, other = Grid(4, 6, prefix=("cls",)), Grid(5, 3, prefix=("cls",))
    made, mechanism = [], Sparse(H, D, grid, Neighborhood, engine)
    plain = Neighborhood.patches

    def counted(pattern: Neighborhood, grid: Grid) -> Tensor:
        made.append(grid)
        return plain(pattern, grid)

    monkeypatch.setattr(Neighborhood, "patches", counted)
    for size in (grid, other, grid, other):
        mechanism(*qkv(size.tokens), Layout(size))
    assert made == [other]
    alone = Sparse(H, D, other, Neighborhood, engine)
    parts = qkv(other.tokens)
    assert_close(mechanism(*parts, Layout(other)), alone(*parts, Layout(other)), rtol=0, atol=0)


@pytest.mark.parametrize("engine", [Dense, BlockGather])
def test_a_loaded_pattern_is_the_one_that_is_computed(engine: EngineFactory) -> None:
    grid = Grid(8, 8)
    build = partial(Sparse, H, D, grid, partial(BigBird, block_size=4), engine)
    ours, other = build(), build()
    parts = qkv(grid.tokens)
    wanted = ours(*parts, Layout(grid))
    assert not torch.allclose(other(*parts, Layout(grid)), wanted)
    assert list(ours.state_dict()) == ["engine.pattern.drawn"]
    turned = Layout(Grid(4, 16))  # as many patches, in tables of its own
    other(*parts, turned)
    other.load_state_dict(ours.state_dict())
    assert_close(other(*parts, Layout(grid)), wanted, rtol=0, atol=0)
    assert_close(other(*parts, turned), ours(*parts, turned), rtol=0, atol=0)


@pytest.mark.slow
def test_a_loaded_pattern_is_the_one_that_flex_skips_blocks_by() -> None:
    grid = Grid(8, 8)
    ours, other = (Flex(BigBird(1, grid, block_size=4), grid) for _ in range(2))
    place, cpu = torch.arange(64), torch.device("cpu")

    def sees(engine: Flex) -> Tensor:
        return engine._block_mask(grid, cpu).mask_mod(place[:1], place[:1], place[:, None], place)

    assert_close(sees(ours), ours.pattern.allowed(grid)[0])
    assert not sees(other).equal(sees(ours))
    other.load_state_dict(ours.state_dict())
    assert_close(sees(other), sees(ours))


@pytest.mark.parametrize("prefix", PREFIXES, ids=len)
def test_a_kept_subset_keeps_its_places(prefix: tuple[str, ...]) -> None:
    """As if the others were there, but masked away."""
    grid = Grid(4, 6, prefix=prefix)
    index = torch.stack([torch.randperm(24)[:11].sort().values for _ in range(B)])
    front = torch.arange(len(prefix)).expand(B, -1)
    rows = torch.cat((front, index + len(prefix)), dim=1)
    keys = torch.zeros(B, grid.tokens, dtype=torch.bool).scatter(1, rows, True)
    parts = qkv(grid.tokens)
    some = [part.gather(2, rows[:, None, :, None].expand(-1, H, -1, part.shape[-1])) for part in parts]
    for pattern in PATTERNS:
        mechanism = Sparse(H, D, grid, pattern, Dense)
        everywhere = mechanism(*parts, Layout(grid, Mask(keys=keys)))
        wanted = everywhere.gather(2, rows[:, None, :, None].expand(-1, H, -1, E))
        assert_close(mechanism(*some, Layout(grid).keep(index)), wanted)


@pytest.mark.parametrize("size", [(4, 4), (4, 6)], ids=["one window", "two"])
@pytest.mark.parametrize("engine", [Dense, BlockGather])
def test_weights_are_dropped_in_training_only(engine: EngineFactory, size: tuple[int, int]) -> None:
    """Also where block-gather has nothing to gather, and for the queries that see everything."""
    grid = Grid(*size, prefix=("cls",))
    parts, layout = qkv(grid.tokens), Layout(grid)
    mechanism = Sparse(H, D, grid, Window, engine, attn_drop=0.4)
    exact = mechanism.eval()(*parts, layout)
    assert_close(exact, Sparse(H, D, grid, Window, engine)(*parts, layout))
    many = torch.stack([mechanism.train()(*parts, layout) for _ in range(300)])
    error = (many.mean(dim=0) - exact).abs() / (many.std(dim=0) / math.sqrt(len(many)))
    assert error.median() < 1
    assert many.std(dim=0).min() > 0.01


def test_the_list_names_every_pattern() -> None:
    named = {getattr(factory, "func", factory).__name__ for factory in PATTERNS}
    assert {cls.__name__ for cls in Pattern.__subclasses__() if cls.__module__.startswith("vit.attention.")} == named


def test_refuses_two_sequences() -> None:
    q, k, v = qkv(N)
    with pytest.raises(ValueError, match=r"same 7 tokens; got 2 queries, 7 keys$"):
        Sparse(H, D, Grid(1, N))(q[:, :, :2], k, v, Layout(Grid(1, N)))


def test_flex_says_what_it_cannot_do() -> None:
    grid = Grid(1, N)
    engine, parts = Flex(Local(H, grid), grid), qkv(N)
    with pytest.raises(ValueError, match=r"no gradient on the CPU.*BlockGather$"):
        engine(*parts, Layout(grid), 0.0)
    for layout, dropout in (
        (Layout(grid, Mask(causal=True)), 0.0),
        (Layout(grid, index=torch.zeros(B, 3).long()), 0.0),
        (Layout(grid), 0.1),
    ):
        with pytest.raises(ValueError, match=r"no mask, kept subset or attn_drop"):
            engine(*parts, layout, dropout)


@pytest.mark.slow
@pytest.mark.parametrize("pattern", [Neighborhood, partial(PerHead, patterns=[Local, Strided])], ids=str)
def test_flex_equals_dense_on_the_cpu(pattern: PatternFactory) -> None:
    grid = Grid(14, 14, prefix=("cls",))
    shared = pattern(H, grid)
    q, k, v = (torch.randn(B, H, grid.tokens, 16) for _ in range(3))
    wanted = Dense(shared, grid)(q, k, v, Layout(grid), 0.0)
    assert_close(Flex(shared, grid)(q, k, v, Layout(grid), 0.0), wanted, rtol=0, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores")  # a hint of the compiler's
@pytest.mark.parametrize("engine", [BlockGather, Flex])
@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_engines_agree_on_cuda_forward_and_backward(pattern: PatternFactory, engine: EngineFactory) -> None:
    grid = Grid(14, 14, prefix=("cls",))
    shared = pattern(H, grid)
    parts = tuple(torch.randn(B, H, grid.tokens, 32, device="cuda", requires_grad=True) for _ in range(3))
    wanted = Dense(shared, grid).cuda()(*parts, Layout(grid), 0.0)
    ours = engine(shared, grid).cuda()(*parts, Layout(grid), 0.0)
    direction = torch.randn_like(wanted)
    gradients = [torch.autograd.grad(out, parts, direction) for out in (ours, wanted)]
    assert_close(ours, wanted, rtol=0, atol=2e-3)  # flex multiplies in tf32
    assert_close(*gradients, rtol=0, atol=1e-2)
