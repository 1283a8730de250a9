"""Each pattern is what its paper says, patch by patch."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.helpers import H, N
from vit.attention import (
    BigBird,
    Edges,
    GlobalTokens,
    GridGraph,
    Local,
    Neighborhood,
    PatternFactory,
    PerHead,
    ShiftedWindow,
    Strided,
    Window,
)
from vit.tokens import Grid

Rule = Callable[[Grid, int, int], bool]


def apart(grid: Grid, i: int, j: int) -> tuple[int, int]:
    return abs(i // grid.width - j // grid.width), abs(i % grid.width - j % grid.width)


def in_one_window(grid: Grid, i: int, j: int) -> bool:
    return all(a // 3 == b // 3 for a, b in zip(divmod(i, grid.width), divmod(j, grid.width), strict=True))


def among_nearest(grid: Grid, i: int, j: int) -> bool:
    sides = zip((grid.height, grid.width), divmod(i, grid.width), divmod(j, grid.width), strict=True)
    return all(b in sorted(range(side), key=lambda c, a=a: abs(a - c))[:5] for side, a, b in sides)


RULES: list[tuple[PatternFactory, Rule]] = [
    (partial(Local, width=3), lambda g, i, j: abs(i - j) <= 3),
    (partial(Local, width=2, dilation=3), lambda g, i, j: abs(i - j) in (0, 3, 6)),
    (partial(Window, size=3), in_one_window),
    (partial(Neighborhood, kernel_size=5), among_nearest),
    (partial(Strided, width=2), lambda g, i, j: abs(i - j) <= 2 or i % g.width == j % g.width),
    (partial(Strided, width=1, stride=5), lambda g, i, j: abs(i - j) <= 1 or (i - j) % 5 == 0),
    (partial(GlobalTokens, count=2, width=1), lambda g, i, j: abs(i - j) <= 1 or min(i, j) < 2),
    (partial(GridGraph, neighbors=4), lambda g, i, j: sum(apart(g, i, j)) <= 1),
    (GridGraph, lambda g, i, j: max(apart(g, i, j)) <= 1),
    (partial(Edges, edges=[(0, 3), (4, 1)]), lambda g, i, j: i == j or (i, j) in ((0, 3), (4, 1))),
]
GRIDS = [(5, 13), (8, 8), (2, 3), (10, 1), (1, 11)]


@pytest.mark.parametrize("size", GRIDS, ids=str)
@pytest.mark.parametrize(("pattern", "rule"), RULES, ids=[str(number) for number in range(len(RULES))])
def test_is_what_its_rule_says(pattern: PatternFactory, rule: Rule, size: tuple[int, int]) -> None:
    grid = Grid(*size)
    expected = [[rule(grid, i, j) for j in range(grid.patches)] for i in range(grid.patches)]
    assert_close(pattern(H, grid).allowed(grid), torch.tensor(expected)[None])


def rolled_windows(grid: Grid, size: int) -> Tensor:
    """Swin's way: pad, roll by half a window, cut, and mask what met by wrapping around."""
    shift, side = size // 2, [-(-length // size) * size for length in (grid.height, grid.width)]
    number, region = torch.full(side, -1), torch.zeros(side, dtype=torch.long)
    number[: grid.height, : grid.width] = torch.arange(grid.patches).view(grid.height, grid.width)
    cuts = (slice(0, -size), slice(-size, -shift), slice(-shift, None))
    for place, (rows, columns) in enumerate((rows, columns) for rows in cuts for columns in cuts):
        region[rows, columns] = place
    number = number.roll((-shift, -shift), (0, 1))
    allowed = torch.zeros(grid.patches, grid.patches, dtype=torch.bool)
    for top in range(0, side[0], size):
        for left in range(0, side[1], size):
            window = (slice(top, top + size), slice(left, left + size))
            members = [
                (n, r) for n, r in zip(number[window].flatten(), region[window].flatten(), strict=True) if n >= 0
            ]
            for i, own in members:
                for j, other in members:
                    allowed[i, j] = own == other
    return allowed


@pytest.mark.parametrize("grid_size", [(8, 8), (5, 13), (10, 20)], ids=str)
@pytest.mark.parametrize("size", [2, 3, 4])
def test_shifted_windows_are_swins_rolled_and_masked_ones(size: int, grid_size: tuple[int, int]) -> None:
    grid = Grid(*grid_size)
    assert_close(ShiftedWindow(H, grid, size).allowed(grid)[0], rolled_windows(grid, size))


def test_as_many_pairs_as_the_formula_says() -> None:
    grid = Grid(6, 9)
    n = grid.patches

    def count(pattern: PatternFactory) -> int:
        return int(pattern(1, grid).allowed(grid).sum())

    assert count(partial(Local, width=5)) == n * 11 - 5 * 6
    assert count(partial(Window, size=3)) == n * 9
    assert count(partial(Neighborhood, kernel_size=5)) == n * 25
    assert count(partial(Strided, width=0)) == n * 6
    assert count(partial(GlobalTokens, count=2)) == 2 * 2 * n - 4 + n - 2
    assert count(partial(GridGraph, neighbors=4)) == n + 2 * (6 * 8 + 5 * 9)
    assert count(partial(BigBird, block_size=6, random=2)) == 36 * (2 * 9 + 2 * (4 + 2) + 5 * (5 + 2))


@pytest.mark.parametrize("pattern", [*(pattern for pattern, _ in RULES), ShiftedWindow, BigBird], ids=str)
def test_prefix_tokens_are_global(pattern: PatternFactory) -> None:
    grid = Grid(5, 13, prefix=("cls", "reg"))
    allowed = partial(pattern, count=0)(1, grid) if pattern is GlobalTokens else pattern(1, grid)
    allowed = allowed.allowed(grid)
    assert allowed[:, :2].all()
    assert allowed[:, :, :2].all()
    assert not allowed[:, 2:, 2:].all()


def test_prefix_tokens_take_the_place_of_global_patches() -> None:
    grid = Grid(1, N, prefix=("cls", "reg"))
    assert_close(GlobalTokens(1, grid, count=2).patches(grid)[0], torch.eye(N, dtype=torch.bool))
    assert GlobalTokens(1, grid, count=3).patches(grid)[0, 3, 0]


@pytest.mark.parametrize("size", [(8, 8), (5, 13)], ids=str)
def test_bigbird_draws_blocks_that_are_not_seen_otherwise_and_none_twice(size: tuple[int, int]) -> None:
    grid = Grid(*size)
    pattern = BigBird(1, grid, block_size=5, window=1, random=3)
    blocks = -(-grid.patches // 5)
    allowed, places = pattern.allowed(grid)[0], torch.arange(grid.patches) // 5
    for i in range(blocks):
        seen = {j for j in range(blocks) if allowed[places == i][:, places == j].all()}
        assert all(allowed[places == i][:, places == j].any() == (j in seen) for j in range(blocks))
        fixed = {0, blocks - 1, *(j for j in (i - 1, i, i + 1) if 0 <= j < blocks)}
        assert fixed <= seen
        assert len(seen) == (blocks if i in (0, blocks - 1) else min(len(fixed) + 3, blocks))
    other = BigBird(1, grid, block_size=5, window=1, random=3)
    assert not torch.equal(other.drawn, pattern.drawn)
    other.load_state_dict(pattern.state_dict())
    assert_close(other.allowed(grid)[0], allowed)


def test_bigbird_with_few_blocks_sees_all() -> None:
    grid = Grid(1, N)
    assert BigBird(1, grid, block_size=3, random=9).allowed(grid).all()
    assert BigBird(1, grid, block_size=99).allowed(grid).all()


def test_heads_are_dealt_out_to_patterns() -> None:
    grid = Grid(4, 4, prefix=("cls",))
    one, two = partial(Local, width=1), partial(Window, size=2)
    allowed = PerHead(5, grid, [one, two]).allowed(grid)
    for head in range(5):
        assert_close(allowed[head], (one if head < 3 else two)(1, grid).allowed(grid)[0])
    nested = PerHead(4, grid, [partial(PerHead, patterns=[two, GridGraph]), one]).allowed(grid)
    for head, pattern in enumerate((two, GridGraph, one, one)):
        assert_close(nested[head], pattern(1, grid).allowed(grid)[0])


def test_heads_honour_sizes_only_if_all_their_patterns_do() -> None:
    grid = Grid(4, 4)
    assert PerHead(2, grid, [Window, GridGraph]).honours_sizes
    assert not PerHead(2, grid, [Window, Local]).honours_sizes


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (partial(Local, width=-1), "width must be at least 0, got -1"),
        (partial(Local, dilation=0), "dilation must be at least 1, got 0"),
        (partial(Window, size=0), "size must be at least 1, got 0"),
        (partial(ShiftedWindow, size=1), "size must be at least 2, got 1"),
        (partial(Neighborhood, kernel_size=4), "kernel_size must be odd and at least 1, got 4"),
        (partial(Strided, stride=0), "stride must be at least 1, got 0"),
        (partial(GlobalTokens, count=-1), "count must be at least 0, got -1"),
        (partial(BigBird, block_size=0), "block_size must be at least 1, got 0"),
        (partial(PerHead, patterns=[Local] * 4), "expected 1 to 3 patterns for 3 heads, got 4"),
        (partial(PerHead, patterns=[]), "expected 1 to 3 patterns for 3 heads, got 0"),
        (partial(Edges, edges=[(0, 1), (2, 7)]), r"expected edges between patches 0 to 6, got \(2, 7\)"),
    ],
    ids=str,
)
def test_says_what_was_expected(build: PatternFactory, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        build(H, Grid(1, N))


@pytest.mark.parametrize("build", [BigBird, Edges])
def test_a_table_of_one_grid_is_not_used_for_another(build: PatternFactory) -> None:
    with pytest.raises(ValueError, match=r"for (7 patches, got 8|a grid of \(1, 7\), got \(1, 8\))$"):
        build(H, Grid(1, N)).allowed(Grid(1, N + 1))
