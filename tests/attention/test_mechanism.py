"""What every mechanism has to hold to, whatever its formula. `members.MECHANISMS` lists them."""

import inspect
import math
from functools import partial

import pytest
import torch
from einops import rearrange
from torch import Tensor
from torch.testing import assert_close

from tests.attention.members import MECHANISMS, Member, over, sees
from tests.helpers import GRIDS, PREFIXES, B, D, E, H, N, influence, random, row
from vit.attention import (
    LSH,
    RFA,
    Efficient,
    EfficientScaling,
    GatedPositional,
    Linear,
    Linformer,
    Mechanism,
    MechanismFactory,
    Nystrom,
    Performer,
    Relu,
    Routing,
    Sinkhorn,
)
from vit.tokens import Grid, Layout, Mask

LENGTHS = (5, 8, 3)
WIDE = (Efficient, EfficientScaling, GatedPositional, LSH, Linear, Nystrom, Performer, RFA, Routing, Sinkhorn)
"""Those whose sums would lose digits in half precision."""
DROPPING = [member for member in MECHANISMS if "attn_drop" in inspect.signature(member.factory).parameters]


def qkv(b: int = B, n: int = N) -> tuple[Tensor, Tensor, Tensor]:
    return random(b, H, n, D), random(b, H, n, D), random(b, H, n, E)


def mix_tokens(mechanism: Mechanism, layout: Layout, x: Tensor) -> Tensor:
    """(b n c) -> (b n c), each token's channels serving as its query, key and value."""
    x = rearrange(x, "b n (h d) -> b h n d", h=H)
    return rearrange(mechanism(x, x, x, layout), "b h n d -> b n (h d)")


def who_sees_whom(member: Member, mask: Mask) -> tuple[Tensor, Tensor]:
    """(b i j) who depends on whom, and (i j) whom the mechanism's own pattern lets them."""
    mechanism, layout = member.build(H, D, Grid(1, N)), Layout(Grid(1, N), mask)
    depends = influence(lambda x: mix_tokens(mechanism, layout, x), random(B, N, H * D)) > 0
    assert not depends[0, :, 1].any()
    assert not depends[1, :, 0].any()
    return torch.stack((depends[0, :, 0], depends[1, :, 1])), sees(mechanism, Grid(1, N))


def assert_depends(member: Member, depends: Tensor, allowed: Tensor) -> None:
    """Only where allowed; if every key weighs something, everywhere there."""
    assert not depends[~allowed].any()
    assert not member.positive or depends[allowed].all()


@over()
@pytest.mark.parametrize("prefix", PREFIXES, ids=len)
@pytest.mark.parametrize("size", GRIDS, ids=str)
def test_keeps_token_count_and_takes_the_width_of_values(member: Member, size: tuple[int, int], prefix: tuple) -> None:
    grid = Grid(*size, prefix=prefix)
    out = member.build(H, D, grid)(*qkv(n=grid.tokens), Layout(grid))
    assert out.shape == (B, H, grid.tokens, E)
    assert out.isfinite().all()


@over()
def test_permuting_tokens_permutes_the_output_exactly_where_claimed(member: Member) -> None:
    mechanism, order = member.build(H, D, Grid(1, N)), torch.tensor([3, 6, 0, 5, 1, 4, 2])
    q, k, v = qkv()
    permuted = mechanism(q[:, :, order], k[:, :, order], v[:, :, order], row())
    assert torch.allclose(permuted, mechanism(q, k, v, row())[:, :, order], atol=1e-9) == member.equivariant


def test_both_lists_of_equivariance() -> None:
    """Attention over a set, and what knows positions or cuts the sequence."""
    lists = {has: {str(m).partition("(")[0] for m in MECHANISMS if m.equivariant == has} for has in (True, False)}
    assert lists[True] >= {
        "Softmax",
        "Additive",
        "General",
        "Relu",
        "Efficient",
        "Linear",
        "Performer",
        "RFA",
        "Routing",
    }
    assert lists[False] >= {"Linformer", "Sinkhorn", "Sparse", "GatedPositional", "RelativeBias", "RandomSynthesizer"}
    assert lists[False] >= {"DenseSynthesizer", "FactorizedDenseSynthesizer", "FactorizedRandomSynthesizer"}
    assert lists[True] & lists[False] == {"LSH", "Nystrom"}  # sets until chunks or segments cut the sequence


@over()
def test_is_linear_in_the_values(member: Member) -> None:
    mechanism, (q, k, v), other = member.build(H, D, Grid(1, N)), qkv(), random(B, H, N, E)
    together = mechanism(q, k, 3 * v + other, row())
    assert_close(together, 3 * mechanism(q, k, v, row()) + mechanism(q, k, other, row()))


@over(simplex=True)
def test_weights_are_a_distribution_over_keys(member: Member) -> None:
    q, k, _ = qkv()
    weights = member.build(H, D, Grid(1, N))(q, k, torch.eye(N, dtype=q.dtype).expand(B, H, N, N), row())
    assert weights.min() >= 0
    assert_close(weights.sum(dim=-1), torch.ones(B, H, N, dtype=q.dtype))


@pytest.mark.parametrize("kind", [Relu, EfficientScaling, partial(Linformer, rank=5)], ids=str)
def test_weights_need_not_sum_to_one(kind: MechanismFactory) -> None:
    q, k, _ = qkv()
    weights = Member(kind).build(H, D, Grid(1, N))(q, k, torch.eye(N).double().expand(B, H, N, N), row())
    assert (weights.sum(dim=-1) - 1).abs().mean() > 0.1


@over()
def test_samples_and_heads_do_not_see_each_other(member: Member) -> None:
    mechanism, parts = member.build(H, D, Grid(1, N)), qkv()
    out = mechanism(*parts, row())
    changed = [part.clone() for part in parts]
    for part in changed:
        part[1], part[:, 2] = random(*part[1].shape), 1e3
    assert_close(mechanism(*changed, row())[0, :2], out[0, :2], rtol=0, atol=0)


@over()
def test_training_without_dropout_is_evaluation_and_couples_no_samples(member: Member) -> None:
    """But for Sinkhorn's noise. What learns from a batch, as centroids do, learns for the next call."""
    mechanism, parts = member.build(H, D, Grid(1, N)), qkv()
    changed = [torch.cat((part[:1], random(*part[1:].shape))) for part in parts]
    still = mechanism(*parts, row())
    torch.manual_seed(1)
    out = mechanism.train()(*parts, row())
    if "Sinkhorn" not in str(member):
        assert_close(out, still, rtol=0, atol=0)
        return
    torch.manual_seed(1)
    assert_close(mechanism(*changed, row())[0], out[0], rtol=0, atol=0)


@pytest.mark.parametrize("member", DROPPING, ids=str)
def test_weights_are_dropped_in_training_only_and_keep_their_mean(member: Member) -> None:
    grid = Grid(1, N - 1, ("cls",))
    plain = member.build(H, D, grid)
    dropping = Member(partial(member.factory, attn_drop=0.4)).build(H, D, grid)
    dropping.load_state_dict(plain.state_dict())
    q, k, v = (part.abs() for part in qkv(1))  # so that every weight counts, of Relu too
    exact = plain(q, k, v, Layout(grid))
    assert_close(dropping(q, k, v, Layout(grid)), exact)
    many = dropping.train()(*(part.expand(2000, -1, -1, -1) for part in (q, k, v)), Layout(grid))
    assert many.std(dim=0).min() > 0.01
    assert ((many.mean(dim=0) - exact[0]).abs() / (many.std(dim=0) / math.sqrt(len(many)))).max() < 6  # standard errors


@over()
def test_eval_is_deterministic_and_gradients_are_right(member: Member) -> None:
    mechanism, (q, k, v) = member.build(H, D, Grid(1, N)), qkv(b=1)
    inputs = tuple(part.requires_grad_() for part in (q, k, v[..., :2].contiguous()))
    assert_close(mechanism(*inputs, row()), mechanism(*inputs, row()), rtol=0, atol=0)
    assert torch.autograd.gradcheck(lambda *parts: mechanism(*parts, row()), inputs, fast_mode=True)


@over()
def test_bfloat16_stays_near_float64(member: Member) -> None:
    mechanism, (q, k, v) = member.build(H, D, Grid(1, N)), qkv()
    exact = mechanism(q, k, v, row())
    rough = mechanism.bfloat16()(q.bfloat16(), k.bfloat16(), v.bfloat16(), row())
    assert rough.dtype == torch.bfloat16
    assert (rough.double() - exact).norm() / exact.norm() < 2e-2


@pytest.mark.parametrize(
    "member", [m for m in MECHANISMS if str(m).startswith(tuple(k.__name__ for k in WIDE))], ids=str
)
def test_sums_run_in_float32_inside_autocast(member: Member) -> None:
    """Only the result is rounded to bfloat16: nearly every number is the float64 one, rounded."""
    mechanism, parts = member.build(H, D, Grid(1, N)), [part.bfloat16() for part in qkv()]
    exact = mechanism(*(part.double() for part in parts), row())
    mechanism = mechanism.float()
    with torch.autocast("cpu", torch.bfloat16):
        ours = mechanism(*parts, row())
    assert ours.dtype == torch.bfloat16
    assert (ours == exact.bfloat16()).double().mean() > 0.98


@over(keys=True)
@pytest.mark.parametrize("prefix", [(), ("cls", "reg")], ids=len)
def test_padding_has_no_influence_and_gets_no_gradient(member: Member, prefix: tuple[str, ...]) -> None:
    """Wherever it lies: a register may be hidden too."""
    grid = Grid(1, N, prefix)
    keys = torch.ones(B, grid.tokens, dtype=torch.bool)
    keys[1, [1, 4, 6]] = False
    mechanism, layout = member.build(H, D, grid), Layout(grid, Mask(keys=keys))
    q, k, v = (part.requires_grad_() for part in qkv(n=grid.tokens))
    out = mechanism(q, k, v, layout)
    out.pow(2).sum().backward()
    padding = ~keys[:, None, :, None]
    for part in (part for name, part in (("k", k), ("v", v)) if name in mechanism.inputs):
        assert part.grad[padding.expand_as(part)].count_nonzero() == 0
        assert part.grad[1, :, 0].abs().min() > 0 or not member.positive
    noise = 1e3 * padding
    for sign in (1, -1):
        changed = mechanism(q, k + sign * noise, v + sign * noise, layout)
        assert_close(changed.where(~padding, 0), out.where(~padding, 0), rtol=0, atol=1e-12)


@over(keys=True, any_length=True, borderless=True)
def test_padded_batch_equals_each_sample_alone(member: Member) -> None:
    mechanism, (q, k, v) = member.build(H, D, Grid(1, 8)), qkv(b=3, n=8)
    keys = torch.arange(8) < torch.tensor(LENGTHS)[:, None]
    padded = mechanism(q, k, v, Layout(Grid(1, 8), Mask(keys=keys)))
    for sample, length in enumerate(LENGTHS):
        q1, k1, v1 = (part[sample : sample + 1, :, :length] for part in (q, k, v))
        assert_close(padded[sample : sample + 1, :, :length], mechanism(q1, k1, v1, row(length)))


@over(keys=True)
def test_a_query_that_may_see_no_key_gives_zero_and_finite_gradients(member: Member) -> None:
    keys = torch.tensor([[False] * N, [True] * N])
    q, k, v = (part.requires_grad_() for part in qkv())
    mechanism = member.build(H, D, Grid(1, N))
    out = mechanism(q, k, v, Layout(Grid(1, N), Mask(keys=keys)))
    out.pow(2).sum().backward()
    assert out[0].count_nonzero() == 0
    assert out[1].abs().amax(dim=(1, 2)).min() > 0
    parts = {"q": q, "k": k, "v": v}
    assert all(parts[name].grad.isfinite().all() for name in mechanism.inputs)


@over(pairs=True)
def test_a_query_that_is_paired_with_no_key_gives_zero_and_finite_gradients(member: Member) -> None:
    pairs = torch.arange(N)[:, None].expand(1, N, N) != 4
    mechanism, parts = member.build(H, D, Grid(1, N)), [part.requires_grad_() for part in qkv()]
    out = mechanism(*parts, Layout(Grid(1, N), Mask(pairs=pairs)))
    gradients = torch.autograd.grad(out.pow(2).sum(), parts, allow_unused=True)
    assert out[:, :, 4].count_nonzero() == 0
    assert out[:, :, 3].abs().amax(dim=-1).min() > 0
    assert all(gradient is None or gradient.isfinite().all() for gradient in gradients)


@over(causal=True)
def test_causal_tokens_see_no_later_token(member: Member) -> None:
    depends, pattern = who_sees_whom(member, Mask(causal=True))
    assert_depends(member, depends, pattern.tril().expand(B, N, N))


@over(causal=True)
def test_causal_outputs_are_those_of_the_sequence_cut_short(member: Member) -> None:
    mechanism, parts, layout = member.build(H, D, Grid(1, N)), qkv(), Layout(Grid(1, N), Mask(causal=True))
    out = mechanism(*parts, layout)
    changed = [torch.cat((part[:, :, :4], random(*part[:, :, 4:].shape)), dim=2) for part in parts]
    assert_close(mechanism(*changed, layout)[:, :, :4], out[:, :, :4])


@over(causal=True)
def test_causal_prefix_is_seen_both_ways(member: Member) -> None:
    depends, pattern = who_sees_whom(member, Mask(causal=True, prefix=torch.tensor([0, 3])))
    expected = torch.ones(2, N, N, dtype=torch.bool).tril()
    expected[1, :3, :3] = True
    assert_depends(member, depends, expected & pattern)


@over(pairs=True)
def test_pairs_and_keys_together_decide_who_sees_whom(member: Member) -> None:
    pairs = (torch.rand(B, N, N) < 0.5) | torch.eye(N, dtype=torch.bool)
    keys = torch.tensor([[True] * N, [True, False, True, True, False, True, True]])
    expected = pairs & keys[:, None, :]
    depends, pattern = who_sees_whom(member, Mask(keys=keys, pairs=pairs))
    # a token reaches itself through its query too, masked as a key or not
    off = ~torch.eye(N, dtype=torch.bool).expand(B, N, N)
    assert_depends(member, depends & off, expected & pattern & off)


@over(any_length=True, placeless=True)
def test_a_kept_subset_equals_the_shorter_sequence(member: Member) -> None:
    grid, index = Grid(2, 3, prefix=("cls",)), torch.tensor([[0, 2, 5], [1, 2, 3]])
    mechanism, parts = member.build(H, D, grid), qkv(n=4)
    assert_close(mechanism(*parts, Layout(grid, index=index)), mechanism(*parts, Layout(Grid(1, 3, ("cls",)))))


@pytest.mark.parametrize("trait", ["keys", "causal", "pairs", "cross", "any_length", "subset", "order"])
@over()
def test_honours_a_layout_or_refuses_it(member: Member, trait: str) -> None:
    grid, (q, k, v) = Grid(1, N), qkv()
    keys, index = torch.tensor([True] * (N - 2) + [False] * 2).expand(B, N), torch.tensor([[0, 1, 3, 4, 6]] * B)
    turned = torch.arange(N).flip(0).expand(B, N)  # all of them, in another order
    masks = {
        "keys": Mask(keys=keys),
        "causal": Mask(causal=True),
        "pairs": Mask(pairs=torch.ones(1, N, N).tril().bool()),
    }
    call = {
        "cross": lambda m: m(q[:, :, :2], k, v, row()),
        "any_length": lambda m: m(q[:, :, :5], k[:, :, :5], v[:, :, :5], row(5)),
        "subset": lambda m: m(q[:, :, :5], k[:, :, :5], v[:, :, :5], Layout(grid, index=index)),
        "order": lambda m: m(q, k, v, Layout(grid, index=turned)),
    }.get(trait, lambda m: m(q, k, v, Layout(grid, masks[trait])))
    mechanism = member.build(H, D, grid)
    if vars(member)["subset" if trait == "order" else trait]:
        assert call(mechanism).isfinite().all()
    else:
        with pytest.raises(ValueError):
            call(mechanism)


@over(any_length=False)
def test_as_many_tokens_of_another_grid_are_refused_unless_only_their_order_counts(member: Member) -> None:
    """Edges and weights of one grid's patches would join others of a grid turned on its side."""
    mechanism, turned = member.build(H, D, Grid(2, 3, ("cls",))), Layout(Grid(3, 2, ("cls",)))
    if "BigBird" in str(member):  # its blocks are runs of the raster order
        assert mechanism(*qkv(), turned).isfinite().all()
        return
    with pytest.raises(ValueError, match=r"2x3|\(2, 3\)|height=2, width=3"):
        mechanism(*qkv(), turned)


@pytest.mark.parametrize("kind", [LSH, Nystrom, Routing, Sinkhorn])
def test_other_than_the_layouts_tokens_are_refused(kind: type[Mechanism]) -> None:
    with pytest.raises(ValueError, match=rf"^{kind.__name__} got 7 tokens, the layout has 6$"):
        kind(H, D, Grid(1, N)).double()(*qkv(), row(N - 1))


def test_the_list_names_every_mechanism() -> None:
    named = {str(member).partition("(")[0] for member in MECHANISMS}
    assert {cls.__name__ for cls in Mechanism.__subclasses__() if cls.__module__.startswith("vit.attention.")} <= named
