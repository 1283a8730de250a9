import re
from dataclasses import FrozenInstanceError, replace
from itertools import product

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.helpers import untyped
from vit.tokens import Grid, Layout, Mask

B, N = 2, 7
KEYS = torch.tensor([[True] * 6 + [False], [True, False, True, True, False, True, True]])
PREFIX = torch.tensor([0, 3])
PAIRS = torch.tensor([[[(b + 3 * i + 5 * j) % 4 != 1 for j in range(N)] for i in range(N)] for b in range(B)])
GRID = Grid(2, 3, prefix=("cls",))


@pytest.mark.parametrize(
    ("size", "prefix", "tokens"),
    [((8, 8), (), 64), ((5, 13), ("cls",), 66), ((14, 14), ("cls",), 197), ((10, 20), ("cls", *["reg"] * 4), 205)],
)
def test_grid_counts(size: tuple[int, int], prefix: tuple[str, ...], tokens: int) -> None:
    grid = Grid(*size, prefix=prefix)
    assert (grid.patches, grid.num_prefix, grid.tokens) == (size[0] * size[1], len(prefix), tokens)
    assert Layout(grid).tokens == tokens


def may_see(mask: Mask, b: int, i: int, j: int) -> bool:
    """The docstring of `Mask`, one pair at a time."""
    in_order = j <= i or (mask.prefix is not None and i < mask.prefix[b] and j < mask.prefix[b])
    return (
        (mask.keys is None or bool(mask.keys[b, j]))
        and (not mask.causal or bool(in_order))
        and (mask.pairs is None or bool(mask.pairs[b if len(mask.pairs) > 1 else 0, i, j]))
    )


@pytest.mark.parametrize("keys", [None, KEYS], ids=["", "keys"])
@pytest.mark.parametrize(
    ("causal", "prefix"), [(False, None), (True, None), (True, PREFIX)], ids=["", "causal", "prefix"]
)
@pytest.mark.parametrize("pairs", [None, PAIRS, PAIRS[:1]], ids=["", "pairs", "pairs of all"])
def test_allowed_equals_a_loop(keys: Tensor | None, causal: bool, prefix: Tensor | None, pairs: Tensor | None) -> None:
    mask = Mask(keys, causal, prefix, pairs)
    allowed = mask.allowed(N, torch.device("cpu"))
    assert allowed.dtype == torch.bool
    assert allowed.shape in ((1, N, N), (B, N, N))
    for b, i, j in product(range(B), range(N), range(N)):
        assert allowed.expand(B, -1, -1)[b, i, j] == may_see(mask, b, i, j), (b, i, j)


def test_an_empty_mask_allows_all_without_a_batch() -> None:
    assert_close(Mask().allowed(N, torch.device("cpu")), torch.ones(1, N, N, dtype=torch.bool))


@pytest.mark.parametrize("name", ["keys", "pairs"])
def test_masks_are_boolean(name: str) -> None:
    message = f"mask {name} must be bool, True takes part; got torch.float32"
    with untyped(), pytest.raises(ValueError, match=f"^{message}$"):
        Mask(**{name: torch.ones(B, N) if name == "keys" else torch.ones(B, N, N)})


def test_a_prefix_needs_causal() -> None:
    message = "a mask prefix needs causal=True: without it every token is seen both ways already"
    with pytest.raises(ValueError, match=f"^{message}$"):
        Mask(prefix=PREFIX)


@pytest.mark.parametrize(("name", "mask"), [("keys", Mask(keys=KEYS)), ("pairs", Mask(pairs=PAIRS))])
def test_a_mask_is_as_long_as_the_sequence(name: str, mask: Mask) -> None:
    Layout(GRID, mask)
    with pytest.raises(ValueError, match=f"^mask {name} cover 7 tokens, but the sequence has 12$"):
        Layout(Grid(2, 5, prefix=("cls", "reg")), mask)
    with pytest.raises(ValueError, match=f"^mask {name} cover 7 tokens, but the sequence has 3$"):
        Layout(GRID, mask, index=torch.tensor([[0, 2]]))


def test_coordinates_are_rows_and_columns_of_patches_only() -> None:
    coordinates = Layout(Grid(2, 3, prefix=("cls", "reg"))).coordinates(torch.device("cpu"))
    assert coordinates.tolist() == [[[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]]
    kept = Layout(Grid(2, 3), index=torch.tensor([[5, 1], [3, 2]])).coordinates(torch.device("cpu"))
    assert kept.tolist() == [[[1, 2], [0, 1]], [[1, 0], [0, 2]]]


def test_keep_remembers_raster_positions_and_composes() -> None:
    layout = Layout(Grid(2, 5, prefix=("cls",)))
    once = layout.keep(torch.tensor([[1, 3, 4, 8, 9], [0, 2, 5, 6, 7]]))
    assert once.tokens == 6
    twice = once.keep(torch.tensor([[4, 0], [1, 3]]))
    assert twice.index.tolist() == [[9, 1], [2, 6]]
    assert twice.tokens == 3
    assert twice.grid == layout.grid


@pytest.mark.parametrize("batch", [1, B])
@pytest.mark.parametrize("fields", ["keys", "pairs", "keys pairs", "keys causal pairs"])
def test_keep_gathers_the_mask(fields: str, batch: int) -> None:
    given = {"keys": KEYS[:batch], "pairs": PAIRS[:batch], "causal": True}
    layout = Layout(GRID, Mask(**{name: given[name] for name in fields.split()}))
    index = torch.tensor([[0, 2, 3, 5], [1, 2, 4, 5]])
    kept = layout.keep(index).keep(torch.tensor([[0, 1, 3], [0, 2, 3]]))
    rows = torch.tensor([[0, 1, 3, 6], [0, 2, 5, 6]])  # the class token, then the patches that went through both
    before = layout.mask.allowed(N, torch.device("cpu")).expand(B, -1, -1)
    expected = torch.stack([before[b][rows[b]][:, rows[b]] for b in range(B)])
    assert_close(kept.mask.allowed(4, torch.device("cpu")).expand(B, -1, -1), expected)


def test_keep_refuses_a_causal_prefix() -> None:
    layout = Layout(GRID, Mask(causal=True, prefix=PREFIX))
    message = "patches cannot be dropped under a causal mask with a prefix length"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        layout.keep(torch.tensor([[0], [1]]))


def test_layouts_and_masks_are_values() -> None:
    layout = Layout(GRID, Mask(keys=KEYS))
    with pytest.raises(FrozenInstanceError):
        layout.grid = Grid(1, 1)
    with pytest.raises(FrozenInstanceError):
        layout.mask.causal = True
    assert replace(layout, mask=None).mask is None


def test_a_mask_answers_about_some_pairs_as_about_all() -> None:
    keys, pairs = torch.rand(2, 7) < 0.6, torch.rand(2, 7, 7) < 0.6
    queries, others = torch.randint(7, (3, 4)), torch.randint(7, (5, 3, 2))
    for mask in (
        Mask(),
        Mask(keys=keys),
        Mask(causal=True),
        Mask(causal=True, prefix=torch.tensor([0, 3]), keys=keys),
        Mask(pairs=pairs),
        Mask(pairs=pairs[:1], keys=keys, causal=True, prefix=torch.tensor([5, 2])),
    ):
        some = mask.between(queries, others)
        wanted = mask.allowed(7, keys.device)[:, queries[..., :, None], others[..., None, :]]
        assert_close(some.expand_as(wanted), wanted)
