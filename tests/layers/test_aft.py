import math

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from tests.helpers import B, random, redrawn
from vit.layers import AFTConv, AFTFull, AFTLocal, AFTSimple
from vit.tokens import Grid, Layout, Mask

C = 5
GRID = Grid(3, 4, prefix=("cls", "reg"))
N = GRID.tokens


def naive(mixer: nn.Module, x: Tensor, bias: Tensor, mask: Mask | None = None) -> Tensor:
    """Eq. 2 with every weight written out; bias (n n c)."""
    scores = mixer.k(x)[:, None] + bias
    if mask is not None:
        scores = scores.masked_fill(~mask.allowed(x.shape[1], x.device)[..., None], -math.inf)
    return mixer.proj(mixer.q(x).sigmoid() * (scores.softmax(dim=2) * mixer.v(x)[:, None]).sum(dim=2))


def places(reach: int) -> Tensor:
    """(12 12 2) row and column of patch j less those of i, and whether both are within reach."""
    where = Layout(GRID).coordinates(torch.device("cpu"))[0].long()
    return where[None, :] - where[:, None], ((where[None, :] - where[:, None]).abs() <= reach).all(dim=-1)


def bias_of(mixer: nn.Module) -> Tensor:
    bias = torch.zeros(N, N, C, dtype=torch.float64)
    if isinstance(mixer, AFTFull):
        bias += (mixer.row @ mixer.column.T)[..., None]
    elif isinstance(mixer, AFTLocal):
        near = torch.ones(N, N, dtype=torch.bool)
        near[2:, 2:] = places(1)[1]
        bias += ((mixer.row @ mixer.column.T) * near)[..., None]
    elif isinstance(mixer, AFTConv):
        offset, near = places(1)
        for i, j in near.nonzero().tolist():
            dy, dx = offset[i, j].tolist()
            bias[2 + i, 2 + j] = mixer.kernel[:, 0, 1 + dy, 1 + dx]
    return bias


KEYS = torch.tensor([[True] * N, [True, False] * (N // 2)])
PAIRS = torch.tensor([[(3 * i + 5 * j) % 4 != 1 or i == j for j in range(N)] for i in range(N)])[None]
MASKS = {
    "none": None,
    "keys": Mask(keys=KEYS),
    "causal": Mask(causal=True),
    "all": Mask(keys=KEYS, causal=True, prefix=torch.tensor([2, 5]), pairs=PAIRS),
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("kind", [AFTFull, AFTSimple, AFTLocal, AFTConv])
def test_equals_the_formula_forward_and_backward(kind: type[nn.Module], mask: Mask | None) -> None:
    if kind is AFTConv and mask is not None and mask.causal:
        pytest.skip("refused, see test_mixers.py")
    size = {AFTLocal: {"window_size": 3}, AFTConv: {"kernel_size": 3}}.get(kind, {})
    mixer, x = redrawn(kind(C, GRID, **size)), random(B, N, C).requires_grad_()
    ours, wanted = mixer(x, Layout(GRID, mask)), naive(mixer, x, bias_of(mixer), mask)
    assert_close(ours, wanted)
    direction, inputs = random(*ours.shape), (x, *mixer.parameters())
    gradients = torch.autograd.grad((ours * direction).sum(), inputs)
    for mine, theirs in zip(gradients, torch.autograd.grad((wanted * direction).sum(), inputs), strict=True):
        assert_close(mine, theirs)


def test_a_window_over_the_whole_grid_is_aft_full() -> None:
    full, local = redrawn(AFTFull(C, GRID)), redrawn(AFTLocal(C, GRID, window_size=7))
    local.load_state_dict(full.state_dict())
    x = random(B, N, C)
    assert_close(local(x, Layout(GRID)), full(x, Layout(GRID)))


@pytest.mark.parametrize("kind", [AFTFull, AFTSimple])
def test_more_queries_than_are_masked_at_once(kind: type[nn.Module]) -> None:
    grid, x, mask = Grid(5, 13), random(B, 65, C), Mask(causal=True)
    mixer = redrawn(kind(C, grid))
    bias = mixer.row @ mixer.column.T if kind is AFTFull else torch.zeros(65, 65).double()
    assert_close(mixer(x, Layout(grid, mask)), naive(mixer, x, bias[..., None], mask))


@pytest.mark.parametrize("kind", [AFTFull, AFTSimple, AFTLocal])
def test_what_nobody_sees_may_be_anything(kind: type[nn.Module]) -> None:
    """Under a mask that writes every weight out too, where zero times NaN would be NaN."""
    mixer, layout = redrawn(kind(C, GRID)), Layout(GRID, Mask(keys=KEYS, causal=True))
    x = random(B, N, C)
    changed = mixer(x.masked_fill(~KEYS[..., None], torch.nan), layout)
    assert_close(changed[KEYS], mixer(x, layout)[KEYS], rtol=0, atol=0)


def test_by_hand() -> None:
    """k = log 3 and 0, v = 4 and 8, q = 0: half of (3 * 4 + 8) / 4."""
    mixer = AFTSimple(1, Grid(1, 2))
    with torch.no_grad():
        for linear, weight, bias in (
            (mixer.q, 0, 0),
            (mixer.k, math.log(3), None),
            (mixer.v, -4, 8),
            (mixer.proj, 1, 0),
        ):
            linear.weight.fill_(weight)
            if bias is not None:
                linear.bias.fill_(bias)
    out = mixer(torch.tensor([[[1.0], [0.0]]]), Layout(Grid(1, 2)))
    assert_close(out, torch.full((1, 2, 1), 2.5))


@pytest.mark.parametrize("mask", [None, Mask(keys=KEYS), Mask(causal=True)], ids=["none", "keys", "causal"])
@pytest.mark.parametrize("kind", [AFTFull, AFTSimple, AFTLocal, AFTConv])
def test_keys_sixty_times_as_large_stay_right(kind: type[nn.Module], mask: Mask | None) -> None:
    """In float32, where exp(89) overflows: near the float64 formula, gradients finite."""
    if kind is AFTConv and mask is not None and mask.causal:
        pytest.skip("refused, see test_mixers.py")
    size = {AFTLocal: {"window_size": 3}, AFTConv: {"kernel_size": 3}}.get(kind, {})
    mixer, x = redrawn(kind(C, GRID, **size)), random(B, N, C)
    with torch.no_grad():
        mixer.k.weight.mul_(60)
    assert mixer.k(x).abs().max() > 89
    wanted = naive(mixer, x, bias_of(mixer), mask)
    out = mixer.float()(x.float().requires_grad_(), Layout(GRID, mask))
    seen = torch.ones(B, N, dtype=torch.bool) if mask is None or mask.keys is None else mask.keys
    assert_close(out[seen], wanted[seen].float(), rtol=1e-3, atol=1e-3)
    out.sum().backward()
    assert all(p.grad.isfinite().all() for p in mixer.parameters())


@pytest.mark.parametrize("mask", [None, Mask(causal=True)], ids=["none", "causal"])
@pytest.mark.parametrize("kind", [AFTFull, AFTLocal])
def test_positions_a_hundred_times_as_large_stay_right(kind: type[nn.Module], mask: Mask | None) -> None:
    """In float32, where exp(89) of a bias overflows."""
    mixer, x = redrawn(kind(C, GRID, **({"window_size": 3} if kind is AFTLocal else {}))), random(B, N, C)
    with torch.no_grad():
        mixer.row.mul_(300)
    assert bias_of(mixer).max() > 89
    wanted = naive(mixer, x, bias_of(mixer), mask)
    out = mixer.float()(x.float(), Layout(GRID, mask))
    assert_close(out, wanted.float(), rtol=1e-3, atol=1e-3)
    out.sum().backward()
    assert all(p.grad.isfinite().all() for p in mixer.parameters())


@pytest.mark.parametrize("mask", [None, Mask(causal=True)], ids=["none", "causal"])
@pytest.mark.parametrize("kind", [AFTFull, AFTSimple, AFTLocal, AFTConv])
def test_sums_run_in_float32_inside_autocast(kind: type[nn.Module], mask: Mask | None) -> None:
    """What the projections give is rounded to bfloat16, and nothing after them."""
    if kind is AFTConv and mask is not None:
        pytest.skip("refused, see test_mixers.py")
    size = {AFTLocal: {"window_size": 3}, AFTConv: {"kernel_size": 3}}.get(kind, {})
    mixer, x = redrawn(kind(C, GRID, **size)).float(), torch.randn(B, N, C)
    mixer.proj, bias = nn.Identity(), bias_of(mixer)
    with torch.autocast("cpu", torch.bfloat16):
        wanted = naive(mixer, x, bias, mask)
        assert_close(mixer(x, Layout(GRID, mask)).double(), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [AFTFull, AFTSimple, AFTLocal])
def test_a_token_that_may_see_none_has_a_mean_of_zero(kind: type[nn.Module]) -> None:
    mixer, x = redrawn(kind(C, GRID)), random(B, N, C).requires_grad_()
    out = mixer(x, Layout(GRID, Mask(pairs=torch.arange(N)[:, None].expand(1, N, N) != 4)))
    out.pow(2).sum().backward()
    assert_close(out[:, 4], mixer.proj.bias.expand(B, -1))
    assert (out[:, 3] - mixer.proj.bias).abs().min() > 0
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("size", [0, 2, (3, 4), (-1, 3)])
def test_windows_have_a_middle(size: int | tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"^window_size must be odd and at least 1, got -?\d$"):
        AFTLocal(C, GRID, size)
    with pytest.raises(ValueError, match=r"^kernel_size must be odd and at least 1, got -?\d$"):
        AFTConv(C, GRID, size)
