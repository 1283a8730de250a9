from functools import partial

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.helpers import B, D, E, H, random
from vit.attention import Softmax, Sparse, Superpixels, Window
from vit.tokens import Grid, Layout, Mask

GRID = Grid(4, 6, prefix=("cls",))


def qkv(grid: Grid = GRID) -> tuple[Tensor, Tensor, Tensor]:
    return random(B, H, grid.tokens, D), random(B, H, grid.tokens, D), random(B, H, grid.tokens, E)


def slic(k: Tensor, grid: Grid, side: int, compactness: float, rounds: int) -> list[int]:
    """Superpixels of one head of one picture, patch by patch in plain loops."""
    places = [torch.tensor([i // grid.width, i % grid.width], dtype=k.dtype) for i in range(grid.patches)]
    cluster = [int(y * side // grid.height) * side + int(x * side // grid.width) for y, x in places]
    spread, cell = (k - k.mean(dim=0)).square().sum(dim=1).mean(), (grid.height * grid.width) ** 0.5 / side
    for _ in range(rounds):
        means = {}
        for name in sorted(set(cluster)):
            members = [i for i in range(grid.patches) if cluster[i] == name]
            means[name] = k[members].mean(dim=0), torch.stack([places[i] for i in members]).mean(dim=0)
        cluster = [
            min(
                means,
                key=lambda name: (
                    (k[i] - means[name][0]).square().sum() / spread
                    + compactness**2 * (places[i] - means[name][1]).square().sum() / cell**2
                ),
            )
            for i in range(grid.patches)
        ]
    return cluster


@pytest.mark.parametrize(("side", "compactness", "rounds"), [(2, 1.0, 3), (3, 0.3, 1), (2, 0.0, 5), (3, 2.0, 0)])
def test_sees_its_superpixel_and_the_prefix(side: int, compactness: float, rounds: int) -> None:
    q, k, v = qkv()
    ours = Superpixels(H, D, GRID, side, compactness, rounds)(q, k, v, Layout(GRID))
    edges = torch.ones(B, H, GRID.tokens, GRID.tokens, dtype=torch.bool)
    for b in range(B):
        for h in range(H):
            cluster = torch.tensor(slic(k[b, h, 1:], GRID, side, compactness, rounds))
            edges[b, h, 1:, 1:] = cluster[:, None] == cluster
    scores = (q @ k.transpose(-1, -2) * D**-0.5).masked_fill(~edges, -torch.inf)
    assert_close(ours, scores.softmax(dim=-1) @ v)


def test_one_superpixel_is_full_attention() -> None:
    q, k, v = qkv()
    expected = Softmax(H, D, GRID)(q, k, v, Layout(GRID))
    assert_close(Superpixels(H, D, GRID, side=1)(q, k, v, Layout(GRID)), expected)


def test_of_keys_alike_the_cells_are_windows() -> None:
    grid = Grid(4, 4, prefix=("cls",))
    q, k, v = qkv(grid)
    k = k[:, :, :1].expand_as(k)
    expected = Sparse(H, D, grid, pattern=partial(Window, size=2))(q, k, v, Layout(grid))
    assert_close(Superpixels(H, D, grid, side=2)(q, k, v, Layout(grid)), expected)


def test_regions_follow_what_patches_look_like() -> None:
    """A slanting border between two looks: no superpixel crosses it, though every cell does."""
    grid = Grid(8, 8)
    looks = torch.tensor([[float(x + y > 7) for x in range(8)] for y in range(8)]).flatten()
    k = 5 * looks[None, None, :, None].expand(1, 1, -1, D).double() + 0.01 * random(1, 1, 64, D)
    cluster = Superpixels(1, D, grid, side=4, compactness=0.5).clusters(k, Layout(grid))[0, 0]
    for name in cluster.unique():
        assert len(looks[cluster == name].unique()) == 1
    assert len(cluster.unique()) > 2  # and places tell apart what looks alike


def test_padding_is_no_part_of_a_mean() -> None:
    layout = Layout.padded(Grid(4, 6), torch.tensor([[4, 6], [3, 4]]))
    k = random(2, H, 24, D)
    assert layout.patch_keys is not None
    inside = layout.patch_keys[1]
    cutter = Superpixels(H, D, Grid(4, 6), side=2)
    together = cutter.clusters(k, layout)[1][:, inside]
    assert torch.equal(together, cutter.clusters(k[1:, :, inside], Layout(Grid(3, 4)))[0])
    k[1, :, ~inside] = 1e3
    assert torch.equal(together, cutter.clusters(k, layout)[1][:, inside])


def test_half_precision_keys_are_compared_in_full() -> None:
    cutter, grid = Superpixels(H, D, Grid(8, 8), side=4), Grid(8, 8)
    k = (300 + 0.5 * random(B, H, 64, D)).half()  # whose squares sum beyond what half precision holds
    assert torch.equal(cutter.clusters(k, Layout(grid)), cutter.clusters(k.float(), Layout(grid)))


def test_a_picture_of_nothing_breaks_no_other() -> None:
    layout = Layout.padded(Grid(4, 6), torch.tensor([[0, 0], [3, 4]]))
    q, k, v = random(2, H, 24, D), random(2, H, 24, D), random(2, H, 24, E)
    assert Superpixels(H, D, Grid(4, 6))(q, k, v, layout)[1, :, layout.patch_keys[1]].isfinite().all()


def test_of_a_kept_subset_each_patch_has_its_place() -> None:
    index = torch.tensor([[0, 5, 7, 11, 20], [1, 2, 3, 18, 23]])
    layout = Layout(Grid(4, 6)).keep(index)
    cutter = Superpixels(H, D, Grid(4, 6), side=2, rounds=0)
    expected = torch.tensor([[0, 1, 0, 1, 2], [0, 0, 1, 2, 3]])
    assert torch.equal(cutter.clusters(random(2, H, 5, D), layout), expected[:, None].expand(-1, H, -1))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"side": 0}, "side must be at least 1, got 0"),
        ({"rounds": -1}, "rounds must be at least 0, got -1"),
        ({"compactness": -0.5}, "compactness must be at least 0 and finite, got -0.5"),
        ({"compactness": float("nan")}, "compactness must be at least 0 and finite, got nan"),
        ({"compactness": float("inf")}, "compactness must be at least 0 and finite, got inf"),
    ],
)
def test_refused_when_built(options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Superpixels(H, D, GRID, **options)


def test_refuses_a_causal_mask() -> None:
    with pytest.raises(ValueError, match="Superpixels cuts the whole picture, later tokens too: it cannot honour a"):
        Superpixels(H, D, GRID)(*qkv(), Layout(GRID, Mask(causal=True)))
