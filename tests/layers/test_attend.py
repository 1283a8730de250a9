import math
from copy import deepcopy
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from tests.attention.members import Member, over, sees
from tests.helpers import B, D, E, H, N, influence, random, redrawn, row, untyped
from vit.attention import Mechanism, Softmax
from vit.layers import CrossAttention, LayerNorm, Rotary2d, SelfAttention
from vit.tokens import Grid, Layout, Mask

C = 13  # divisible by no head count: the head width is given
KEYS = torch.tensor([[True] * N, [True, False, True, True, False, True, False]])


def explicit_heads(attention: SelfAttention, x: Tensor, head_dim: int, value_dim: int, mask: Mask | None) -> Tensor:
    """Each head on its own rows of the weight, one after another, then one linear map of them side by side."""
    weight, bias = attention.qkv.weight, attention.qkv.bias
    ends = [H * head_dim, 2 * H * head_dim]
    mixed = []
    for h in range(H):
        rows = [slice(h * head_dim, (h + 1) * head_dim), slice(ends[0] + h * head_dim, ends[0] + (h + 1) * head_dim)]
        rows.append(slice(ends[1] + h * value_dim, ends[1] + (h + 1) * value_dim))
        q, k, v = (x @ weight[r].T + bias[r] for r in rows)
        q, k = attention.q_norm(q), attention.k_norm(k)
        scores = q @ k.transpose(-1, -2) / math.sqrt(head_dim)
        if mask is not None:
            scores = scores.masked_fill(~mask.allowed(N, x.device), -math.inf)
        mixed.append(scores.softmax(dim=-1) @ v)
    return torch.cat(mixed, dim=-1) @ attention.proj.weight.T + attention.proj.bias


@pytest.mark.parametrize("mask", [None, Mask(keys=KEYS), Mask(causal=True)], ids=["", "keys", "causal"])
@pytest.mark.parametrize("qk_norm", [None, LayerNorm, nn.RMSNorm])
@pytest.mark.parametrize(("head_dim", "value_dim"), [(D, None), (D, E)])
def test_self_attention_equals_its_heads_one_by_one(
    head_dim: int, value_dim: int | None, qk_norm: type[nn.Module] | None, mask: Mask | None
) -> None:
    attention = redrawn(SelfAttention(C, Grid(1, N), H, head_dim, value_dim, qk_norm=qk_norm))
    x = random(B, N, C)
    expected = explicit_heads(attention, x, head_dim, value_dim or head_dim, mask)
    assert_close(attention(x, Layout(Grid(1, N), mask)), expected)


def test_head_width_is_a_share_of_the_channels_unless_given() -> None:
    q, k, v = SelfAttention(15, Grid(1, N), 3).project(torch.randn(B, N, 15), row())
    assert q.shape == k.shape == v.shape == (B, 3, N, 5)
    q, k, v = SelfAttention(15, Grid(1, N), 3, head_dim=7, value_dim=2).project(torch.randn(B, N, 15), row())
    assert q.shape == k.shape == (B, 3, N, 7)
    assert v.shape == (B, 3, N, 2)


def test_qk_norm_makes_scores_independent_of_the_inputs_scale() -> None:
    attention = redrawn(SelfAttention(C, Grid(1, N), H, D, qkv_bias=False, qk_norm=nn.RMSNorm))
    x = random(B, N, C)
    q, k, _ = attention.project(x, row())
    q9, k9, _ = attention.project(9 * x, row())
    assert_close((q9, k9), (q, k), rtol=1e-6, atol=1e-6)  # the norm's epsilon is all that is left of the scale


def test_qkv_bias_and_projection_dropout_are_options() -> None:
    attention = SelfAttention(C, Grid(1, N), H, D, qkv_bias=False, proj_drop=0.5)
    assert attention.qkv.bias is None
    x = torch.randn(B, N, C)
    assert (attention(x, row()) == 0).float().mean().item() == pytest.approx(0.5, abs=0.2)
    assert attention.eval()(x, row()).abs().min() > 0


class MeanOfValues(Mechanism):
    """Needs values only."""

    inputs = ("v",)

    def __init__(self, heads: int, head_dim: int, grid: Grid) -> None:
        super().__init__()

    def forward(self, q: None, k: None, v: Tensor, layout: Layout) -> Tensor:
        assert q is None
        assert k is None
        return v.mean(dim=2, keepdim=True).expand_as(v)


def test_only_the_projections_a_mechanism_wants_are_built() -> None:
    attention = redrawn(SelfAttention(C, Grid(1, N), H, D, E, mechanism=MeanOfValues))
    assert attention.qkv.weight.shape == (H * E, C)
    x = random(B, N, C)
    assert_close(attention(x, row()), attention.proj(attention.qkv(x).mean(dim=1, keepdim=True)).expand(-1, N, -1))


def test_rotary_turns_queries_and_keys_after_their_norm() -> None:
    grid = Grid(2, 3, prefix=("cls",))
    attention = redrawn(SelfAttention(C, grid, H, 8, E, qk_norm=LayerNorm, rotary=Rotary2d))
    x, layout = random(B, N, C), Layout(grid)
    q, k, v = attention.project(x, layout)
    rotary, attention.rotary = attention.rotary, None
    plain_q, plain_k, plain_v = attention.project(x, layout)
    assert_close((q, k, v), (rotary(plain_q, layout), rotary(plain_k, layout), plain_v))
    assert not torch.allclose(q, plain_q)


@pytest.mark.parametrize("prefix", [(), ("cls",)])
def test_a_kept_subset_equals_gathering(prefix: tuple[str, ...]) -> None:
    """With every other patch masked away, the kept ones come out as if the sequence held only them."""
    grid, index = Grid(2, 5, prefix=prefix), torch.tensor([[0, 3, 4, 8], [1, 2, 6, 9]])
    attention = redrawn(SelfAttention(C, grid, H, 8, rotary=Rotary2d))
    x, front = random(B, grid.tokens, C), grid.num_prefix
    rows = torch.cat((torch.arange(front).expand(B, -1), index + front), dim=1)
    keys = torch.zeros(B, grid.tokens, dtype=torch.bool).scatter(1, rows, True)
    everywhere = attention(x, Layout(grid, Mask(keys=keys))).gather(1, rows[..., None].expand(-1, -1, C))
    kept = x.gather(1, rows[..., None].expand(-1, -1, C))
    assert_close(attention(kept, Layout(grid).keep(index)), everywhere, rtol=0, atol=1e-6)
    assert not torch.allclose(attention(kept, Layout(Grid(1, 4, prefix))), everywhere, atol=1e-3)


@over(equivariant=True)
def test_self_attention_is_permutation_equivariant_without_positions(member: Member) -> None:
    build = partial(SelfAttention, C, Grid(1, N), H, 8, mechanism=member.factory)
    order, x = torch.tensor([3, 6, 0, 5, 1, 4, 2]), random(B, N, C)
    plain, placed = redrawn(build()), redrawn(build(rotary=Rotary2d))
    assert_close(plain(x[:, order], row()), plain(x, row())[:, order])
    assert not torch.allclose(placed(x[:, order], row()), placed(x, row())[:, order], atol=1e-3)


@over(keys=True)
def test_padding_does_not_reach_other_tokens(member: Member) -> None:
    attention = redrawn(SelfAttention(C, Grid(1, N), H, D, mechanism=member.factory))
    depends = influence(lambda x: attention(x, Layout(Grid(1, N), Mask(keys=KEYS))), random(B, N, C)) > 0
    assert not depends[0, :, 1].any()
    assert not depends[1, :, 0].any()
    reached, itself = depends[1, :, 1], torch.eye(N, dtype=torch.bool)
    allowed = KEYS[1] & sees(attention, Grid(1, N))
    assert not reached[~allowed & ~itself].any()
    assert not member.positive or reached[allowed & KEYS[1][:, None]].all()  # what padding sees is nobody's business


@over(cross=True)
def test_cross_attention_reads_another_sequence(member: Member) -> None:
    attention = redrawn(CrossAttention(15, Grid(1, N), H, mechanism=member.factory))
    queries, tokens = random(B, 2, 15), random(B, N, 15)
    out = attention(queries, tokens, row())
    assert out.shape == (B, 2, 15)
    assert_close(attention(queries[:, [1, 0]], tokens, row()), out[:, [1, 0]])
    assert_close(attention(queries[:, 1:], tokens, row()), out[:, 1:])


@pytest.mark.parametrize("mask", [None, Mask(keys=KEYS)], ids=["", "keys"])
def test_cross_attention_equals_its_heads_one_by_one(mask: Mask | None) -> None:
    attention = redrawn(CrossAttention(15, Grid(1, N), H))
    queries, tokens = random(B, 2, 15), random(B, N, 15)
    key_map, value_map = attention.kv.weight.chunk(2)
    key_bias, value_bias = attention.kv.bias.chunk(2)
    mixed = []
    for rows in torch.arange(15).chunk(H):
        q = queries @ attention.q.weight[rows].T + attention.q.bias[rows]
        k, v = tokens @ key_map[rows].T + key_bias[rows], tokens @ value_map[rows].T + value_bias[rows]
        scores = q @ k.transpose(-1, -2) / math.sqrt(5)
        if mask is not None:
            scores = scores.masked_fill(~KEYS[:, None], -math.inf)
        mixed.append(scores.softmax(dim=-1) @ v)
    expected = attention.proj(torch.cat(mixed, dim=-1))
    assert_close(attention(queries, tokens, Layout(Grid(1, N), mask)), expected)


def test_channels_must_divide_into_heads() -> None:
    message = "embed_dim 13 is not divisible by num_heads 3"
    with pytest.raises(ValueError, match=f"^{message}: change one or set head_dim$"):
        SelfAttention(13, Grid(1, N), 3)
    with pytest.raises(ValueError, match=f"^{message}$"):
        CrossAttention(13, Grid(1, N), 3)


@pytest.mark.parametrize("attention", [SelfAttention, CrossAttention])
@pytest.mark.parametrize("num_heads", [0, -3])
def test_there_is_at_least_one_head(attention: type[nn.Module], num_heads: int) -> None:
    with pytest.raises(ValueError, match=f"^num_heads must be at least 1, got {num_heads}$"):
        attention(15, Grid(1, N), num_heads)


@pytest.mark.parametrize("width", ["head_dim", "value_dim"])
@pytest.mark.parametrize("value", [0, -8])
def test_a_given_width_is_at_least_one(width: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"^{width} must be at least 1, got {value}$"):
        SelfAttention(15, Grid(1, N), 3, **{width: value})


@pytest.mark.parametrize("attention", [SelfAttention, CrossAttention])
def test_no_channels_are_told(attention: type[nn.Module]) -> None:
    with pytest.raises(ValueError, match=r"^head_dim must be at least 1, got 0$"):
        attention(0, Grid(1, N), 3)


def test_there_is_at_least_one_head_of_a_given_width_too() -> None:
    with pytest.raises(ValueError, match=r"^num_heads must be at least 1, got 0$"):
        SelfAttention(15, Grid(1, N), 0, head_dim=8)


def test_every_parameter_gets_a_gradient() -> None:
    attention = SelfAttention(C, Grid(1, N), H, 8, E, qk_norm=LayerNorm, rotary=Rotary2d, mechanism=Softmax)
    attention(torch.randn(B, N, C), row()).pow(2).sum().backward()
    assert all(p.grad.abs().sum() > 0 for name, p in attention.named_parameters() if name != "k_norm.bias")


@over()
def test_any_mechanism_learns_saves_and_runs_in_autocast(member: Member) -> None:
    """Gradients reach every parameter, a state dict carries all there is, half precision stays near."""
    grid = Grid(2, 3, prefix=("cls",))
    x = torch.randn(B, N, C)
    first, second = (SelfAttention(C, grid, H, 8, E, mechanism=member.factory) for _ in range(2))
    with torch.no_grad():
        for parameter in first.parameters():
            parameter += torch.randn_like(parameter) * 0.1
    exact = first.eval()(x, Layout(grid))
    second.load_state_dict(first.state_dict())
    assert_close(second.eval()(x, Layout(grid)), exact, rtol=0, atol=0)
    with torch.autocast("cpu", torch.bfloat16):
        rough = first(x, Layout(grid)).float()
    if member.positive:  # else rounding may choose other tokens
        assert (rough - exact).norm() / exact.norm() < 3e-2
    assert rough.isfinite().all()
    exact.pow(2).sum().backward()
    dead = [
        name
        for name, p in first.named_parameters()
        if p.grad is None or not p.grad.isfinite().all() or not p.grad.any()
    ]
    assert dead == []


@pytest.mark.slow
@over()
def test_any_mechanism_compiles_into_one_graph_and_trains_the_same(member: Member) -> None:
    torch.compiler.reset()
    grid = Grid(2, 3, prefix=("cls",))
    plain, x = redrawn(SelfAttention(C, grid, H, 8, E, mechanism=member.factory)), random(B, N, C)
    layout = Layout(grid, Mask(keys=KEYS) if member.keys else None)
    for training in (False, True):
        attention = deepcopy(plain).train(training)
        other = deepcopy(attention)
        with untyped():
            torch.manual_seed(0)
            ours = torch.compile(attention, fullgraph=True, backend="aot_eager")(x, layout)
            torch.manual_seed(0)
            expected = other(x, layout)
            ours.square().sum().backward()
            expected.square().sum().backward()
        assert_close(ours, expected)
        for (name, mine), theirs in zip(attention.named_parameters(), other.parameters(), strict=True):
            assert_close(mine.grad, theirs.grad, msg=name)
        assert_close(attention.state_dict(), other.state_dict())
