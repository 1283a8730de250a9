"""What every mixer has to hold to, whatever its formula. `members.MIXERS` lists them."""

import inspect
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.testing import assert_close

from tests.helpers import GRIDS, PREFIXES, B, influence, random, redrawn
from tests.layers.members import MIXERS, Member, over
from vit import layers
from vit.layers import Block, ConformerBlock, Head, Identity, MeanPool, NoPositions, SelfAttention
from vit.models import Backbone, ViT
from vit.spec import build, spec
from vit.tokens import Grid, Layout, Mask

ROOT = Path(__file__).resolve().parents[2]
C, N = 15, 7
GRID = Grid(3, 5, prefix=("cls", "reg"))
KEYS = torch.tensor([[True] * 17, [True] * 6 + [False] + [True] * 4 + [False] * 2 + [True] + [False] * 3])


def who_sees_whom(member: Member, grid: Grid, mask: Mask | None = None) -> Tensor:
    """(b n n): how much each token depends on each of its sample."""
    mixer, layout = member.build(6, grid), Layout(grid, mask)
    sees = influence(lambda x: mixer(x, layout), random(B, grid.tokens, 6))
    assert sees[0, :, 1].count_nonzero() == sees[1, :, 0].count_nonzero() == 0
    return torch.stack((sees[0, :, 0], sees[1, :, 1]))


@over()
@pytest.mark.parametrize("prefix", PREFIXES, ids=len)
@pytest.mark.parametrize("size", GRIDS, ids=str)
def test_keeps_shape_and_reaches_every_parameter(member: Member, size: tuple[int, int], prefix: tuple) -> None:
    grid = Grid(*size, prefix=prefix)
    mixer = member.factory(C, grid)
    x = torch.randn(1, grid.tokens, C, requires_grad=True)
    out = mixer(x, Layout(grid))
    assert out.shape == x.shape and out.dtype == x.dtype
    assert out.isfinite().all()
    out.backward(torch.randn_like(out))
    front = 0 if member.moves_prefix or isinstance(mixer, Identity) else len(prefix)
    assert x.grad[:, front:].abs().sum(dim=-1).min() > 0
    assert all(p.grad.isfinite().all() and p.grad.count_nonzero() for p in mixer.parameters())


@over()
def test_permuting_patches_permutes_the_output_exactly_where_claimed(member: Member) -> None:
    grid = Grid(2, 3, prefix=("cls",))
    mixer, x, order = member.build(C, grid), random(B, 7, C), torch.tensor([0, 5, 1, 4, 6, 2, 3])
    permuted = mixer(x[:, order], Layout(grid))
    assert torch.allclose(permuted, mixer(x, Layout(grid))[:, order], atol=1e-9) == member.equivariant


def test_both_lists_of_equivariance() -> None:
    """Of what stands in attention's place."""
    lists = {has: {str(m).partition("(")[0] for m in MIXERS if m.equivariant == has} for has in (True, False)}
    assert lists[True] == {"AFTSimple", "Identity", "SelfAttention"}
    assert lists[False] >= {"AFTConv", "AFTFull", "AFTLocal", "TokenMlp", "SpatialGating", "Fourier", "NeighbourMean"}
    assert lists[False] >= {"BiLstm", "DepthwiseConv1d", "DepthwiseConv2d", "SpatialReduction"}


@over()
def test_logits_ignore_the_order_of_patches_exactly_where_claimed(member: Member) -> None:
    block = partial(Block, mixer=member.factory)
    backbone = partial(Backbone, patch_size=2, embed_dim=C, depth=2, prefix=(), pos_embed=NoPositions, block=block)
    net, images = redrawn(ViT((4, 6), 3, 5, backbone, partial(Head, pool=MeanPool))), random(B, 3, 4, 6)
    patches = rearrange(images, "b c (y p) (x q) -> b (y x) c p q", p=2, q=2)[:, [4, 0, 3, 5, 1, 2]]
    shuffled = rearrange(patches, "b (y x) c p q -> b c (y p) (x q)", y=2)
    assert torch.allclose(net(shuffled), net(images), atol=1e-9) == member.equivariant


@over()
def test_samples_do_not_see_each_other(member: Member) -> None:
    mixer, x = member.build(C, GRID), random(3, GRID.tokens, C)
    out = mixer(x, Layout(GRID))
    other = torch.cat((x[:1], 1e3 * random(2, GRID.tokens, C)))
    assert_close(mixer(other, Layout(GRID))[0], out[0], rtol=0, atol=1e-12)
    assert_close(mixer(x[:1], Layout(GRID))[0], out[0])


@over(moves_prefix=False)
def test_prefix_tokens_lie_outside_where_claimed(member: Member) -> None:
    sees, front = who_sees_whom(member, GRID)[0], GRID.num_prefix
    assert not sees[front:, :front].any() and not sees[:front, front:].any()
    if member.factory is not Identity:
        assert not sees[:front].any()


@over(moves_prefix=True)
def test_prefix_tokens_see_and_are_seen_where_claimed(member: Member) -> None:
    sees, front = who_sees_whom(member, GRID)[0], GRID.num_prefix
    assert sees[front:, :front].min() > 0 and sees[:front, front:].min() > 0


@over(keys=True)
def test_padding_has_no_influence_and_gets_no_gradient(member: Member) -> None:
    mixer, layout = member.build(C, GRID), Layout(GRID, Mask(keys=KEYS))
    x = random(B, GRID.tokens, C).requires_grad_()
    out = mixer(x, layout)[KEYS]
    (out * random(*out.shape)).sum().backward()
    assert x.grad[~KEYS].count_nonzero() == 0
    assert x.grad[1, 5].abs().min() > 0
    for noise in (1e3, -1e3) if member.factory is SelfAttention else (1e3, -1e3, torch.nan):
        changed = x.detach().masked_fill(~KEYS[..., None], noise)
        assert_close(mixer(changed, layout)[KEYS], out, rtol=0, atol=1e-10)


@over(keys=True)
def test_a_mask_that_hides_nothing_changes_nothing(member: Member) -> None:
    mixer, x, keys = member.build(C, GRID), random(B, GRID.tokens, C), torch.ones(B, GRID.tokens, dtype=torch.bool)
    assert_close(mixer(x, Layout(GRID, Mask(keys=keys))), mixer(x, Layout(GRID)))


@over(keys=True, any_grid=True)
@pytest.mark.parametrize("prefix", PREFIXES, ids=len)
def test_a_padded_picture_gets_the_values_it_has_alone(member: Member, prefix: tuple) -> None:
    front, grid = len(prefix), Grid(5, 13, prefix=prefix)
    mixer, x, keys = member.build(C, Grid(2, 2, prefix=prefix)), random(2, front + 65, C), torch.zeros(2, 5, 13).bool()
    keys[0, :4, :4], keys[1, :3, :7] = True, True
    keys = torch.cat((torch.ones(2, front).bool(), keys.flatten(1)), dim=1)
    together = mixer(x, Layout(grid, Mask(keys=keys)))
    for sample, size in enumerate([(4, 4), (3, 7)]):
        alone = mixer(x[sample : sample + 1, keys[sample]], Layout(Grid(*size, prefix=prefix)))
        assert_close(together[sample : sample + 1, keys[sample]], alone)


@over(keys=True)
def test_a_picture_of_padding_alone_leaves_the_others_finite(member: Member) -> None:
    keys = torch.ones(B, GRID.tokens, dtype=torch.bool)
    keys[0] = False
    mixer, x = member.build(C, GRID), random(B, GRID.tokens, C).requires_grad_()
    out = mixer(x, Layout(GRID, Mask(keys=keys)))
    out.pow(2).sum().backward()
    assert out.isfinite().all() and x.grad.isfinite().all()


@over(causal=True)
def test_causal_tokens_see_no_later_token(member: Member) -> None:
    sees = who_sees_whom(member, Grid(1, N), Mask(causal=True))
    assert sees.triu(1).count_nonzero() == 0
    assert sees.diagonal(dim1=1, dim2=2).min() > 0
    assert member.factory is Identity or sees.diagonal(-1, dim1=1, dim2=2).min() > 0


@over(causal=True)
def test_causal_outputs_are_those_of_the_sequence_cut_short(member: Member) -> None:
    mixer, x, layout = member.build(C, Grid(1, N)), random(B, N, C), Layout(Grid(1, N), Mask(causal=True))
    changed = torch.cat((x[:, :4], 1e2 * random(B, N - 4, C)), dim=1)
    assert_close(mixer(changed, layout)[:, :4], mixer(x, layout)[:, :4])


@over(both_ways=True)
def test_causal_prefix_is_seen_both_ways(member: Member) -> None:
    sees = who_sees_whom(member, Grid(1, N), Mask(causal=True, prefix=torch.tensor([0, 3])))
    expected = torch.ones(2, N, N, dtype=torch.bool).tril()
    expected[1, :3, :3] = True
    if member.factory is Identity:
        expected = torch.eye(N, dtype=torch.bool).expand(2, -1, -1)
    assert_close(sees > 0, expected)


@over(pairs=True)
def test_pairs_and_keys_together_decide_who_sees_whom(member: Member) -> None:
    pairs = (torch.rand(B, N, N) < 0.5) | torch.eye(N, dtype=torch.bool)
    keys = torch.tensor([[True] * N, [True, False, True, True, False, True, True]])
    off = ~torch.eye(N, dtype=torch.bool).expand(B, N, N)  # a token reaches itself by its query or gate too
    expected = pairs & keys[:, None, :] & (member.factory is not Identity)
    assert_close((who_sees_whom(member, Grid(1, N), Mask(keys=keys, pairs=pairs)) > 0)[off], expected[off])


@over(subset=True)
def test_a_kept_subset_equals_all_patches_with_the_rest_masked(member: Member) -> None:
    mixer, x, layout = member.build(C, GRID), random(B, GRID.tokens, C), Layout(GRID)
    index = torch.tensor([[0, 3, 4, 8, 13], [1, 2, 6, 7, 14]])
    kept = torch.cat((torch.tensor([[0, 1]] * B), index + 2), dim=1)
    keys = torch.zeros(B, GRID.tokens, dtype=torch.bool).scatter(1, kept, True)
    few = x.gather(1, kept[..., None].expand(-1, -1, C))
    expected = mixer(x, Layout(GRID, Mask(keys=keys)))
    assert_close(mixer(few, layout.keep(index)), expected.gather(1, kept[..., None].expand(-1, -1, C)))


@pytest.mark.parametrize("trait", ["keys", "causal", "both_ways", "pairs", "subset", "any_grid"])
@over()
def test_honours_a_layout_or_refuses_it(member: Member, trait: str) -> None:
    layout = {
        "keys": Layout(GRID, Mask(keys=KEYS)),
        "causal": Layout(GRID, Mask(causal=True)),
        "both_ways": Layout(GRID, Mask(causal=True, prefix=torch.tensor([0, 3]))),
        "pairs": Layout(GRID, Mask(pairs=torch.ones(1, 17, 17).tril().bool())),
        "subset": Layout(GRID, index=torch.arange(5).expand(B, 5)),
        "any_grid": Layout(Grid(5, 3, prefix=("cls", "reg"))),
    }[trait]
    mixer, x = member.build(C, GRID), random(B, layout.tokens, C)
    if vars(member)[trait]:
        assert mixer(x, layout).isfinite().all()
    else:
        with pytest.raises(ValueError, match=type(mixer).__name__ if trait != "subset" else "kept subset of 5 of 15"):
            mixer(x, layout)


@over()
def test_other_than_the_layouts_tokens_are_refused(member: Member) -> None:
    if member.factory in (Identity, SelfAttention):
        pytest.skip("mixes whatever it gets: nothing of it belongs to a place")
    mixer = member.build(C, GRID)
    with pytest.raises(ValueError, match=f"^{type(mixer).__name__} got 16 tokens, the layout has 17$"):
        mixer(random(B, 16, C), Layout(GRID))


@over()
def test_bfloat16_and_autocast_stay_near(member: Member) -> None:
    mixer, x = member.build(C, GRID), random(B, GRID.tokens, C)
    exact = mixer(x, Layout(GRID))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = mixer.float()(x.float(), Layout(GRID))
    rough = mixer.bfloat16()(x.bfloat16(), Layout(GRID))
    assert rough.dtype == torch.bfloat16
    assert (mixed.double() - exact).norm() / exact.norm() < 2e-2
    assert (rough.double() - exact).norm() / exact.norm() < 3e-2


@over()
def test_comes_back_from_its_state_dict_and_repeats_itself(member: Member) -> None:
    mixer, other, x = member.build(C, GRID), member.build(C, GRID), random(B, GRID.tokens, C)
    out = mixer(x, Layout(GRID))
    assert list(mixer.parameters()) == [] or not torch.allclose(other(x, Layout(GRID)), out)
    other.load_state_dict(mixer.state_dict())
    assert_close(other(x, Layout(GRID)), out, rtol=0, atol=0)
    assert_close(mixer(x, Layout(GRID)), out, rtol=0, atol=0)


COMPILED = """
import torch
from tests.layers.members import MIXERS
from tests.layers.test_mixers import GRID, KEYS, random
from vit.tokens import Layout, Mask
for member in MIXERS:
    torch.compiler.reset()
    mixer, x = member.build(15, GRID), random(2, GRID.tokens, 15)
    layout = Layout(GRID, Mask(keys=KEYS) if member.keys else None)
    compiled = torch.compile(mixer, fullgraph="Lstm" not in str(member), backend="eager")
    torch.testing.assert_close(compiled(x, layout)[KEYS], mixer(x, layout)[KEYS])
"""


@pytest.mark.slow
def test_all_compile_and_all_but_the_lstm_without_graph_breaks() -> None:
    """In a process of its own: the suite's shape checks are not traceable."""
    done = subprocess.run([sys.executable, "-c", COMPILED], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@over()
@pytest.mark.parametrize("kind", [Block, ConformerBlock])
def test_stands_in_a_net_that_is_built_again_from_its_spec(member: Member, kind: type[nn.Module]) -> None:
    block = partial(kind, mixer=member.factory)
    net = ViT((8, 12), 3, 5, partial(Backbone, patch_size=4, embed_dim=C, depth=2, block=block)).eval()
    other, images = build(spec(net)), torch.randn(2, 3, 8, 12)
    other.load_state_dict(net.state_dict())
    assert_close(other.eval()(images), net(images), rtol=0, atol=0)


def test_the_list_names_every_mixer() -> None:
    named = {str(member).partition("(")[0] for member in MIXERS}
    public = [value for name in layers.__all__ if inspect.isclass(value := getattr(layers, name))]
    calls = {cls: inspect.signature(cls.forward).parameters for cls in public if issubclass(cls, nn.Module)}
    mixers = {
        cls.__name__
        for cls, call in calls.items()
        if list(call) == ["self", "x", "layout"] and list(inspect.signature(cls).parameters)[:2] == ["dim", "grid"]
    }
    assert mixers - {"Block", "ConformerBlock", "NoResidualBlock", "PostNormBlock", "TopKBlock", "Encoder"} == named


def test_identity() -> None:
    x, mixer = random(B, N, 13), Identity(13, Grid(1, N))
    assert mixer(x, Layout(Grid(1, N))) is x
    assert list(mixer.parameters()) == []
