"""Token selection: which patches stay, where they stand, and what becomes of the others."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.attention.members import MECHANISMS, Member
from tests.helpers import B, H, random, redrawn
from vit.analysis.maps import attention_matrix
from vit.analysis.record import record
from vit.analysis.rollout import rollout_map
from vit.attention import Linformer, Performer, Softmax
from vit.layers import Block, Encoder, Head, Identity, MeanPool, Rotary2d, SelfAttention, TopKBlock, keep_patches
from vit.models import MAE, Backbone, ViT
from vit.tokens import Grid, Layout, Mask

C = 12
GRID = Grid(3, 5, prefix=("reg", "cls"))
FRONT, PATCHES = 2, 15
MIXER = partial(SelfAttention, num_heads=H, rotary=Rotary2d)


def pair(keep_rate: float) -> tuple[TopKBlock, Block]:
    """The block, and a `Block` of the same weights."""
    block = redrawn(TopKBlock(C, GRID, keep_rate=keep_rate, mixer=MIXER))
    plain = Block(C, GRID, mixer=MIXER).double().eval()
    plain.load_state_dict(block.state_dict())
    return block, plain


def attentiveness(block: TopKBlock, x: Tensor, layout: Layout) -> Tensor:
    """Softmax of the class token's scores, mean over heads, written out."""
    q, k, _ = block.mixer.project(block.norm1(x), layout)
    scores = (q[:, :, 1, None] * k).sum(-1) / q.shape[-1] ** 0.5
    if layout.mask is not None and layout.mask.keys is not None:
        scores = scores.masked_fill(~layout.mask.keys[:, None], -torch.inf)
    return scores.softmax(-1).mean(1)[:, FRONT:]


def test_keep_rate_one_is_the_plain_block() -> None:
    block, plain = pair(1.0)
    x, layout = random(B, GRID.tokens, C), Layout(GRID)
    kept = block(x, layout)
    assert torch.equal(kept.tokens, plain(x, layout))
    assert torch.equal(kept.layout.index, torch.arange(PATCHES).expand(B, -1))


@pytest.mark.parametrize(("keep_rate", "left"), [(0.01, 1), (0.2, 3), (0.7, 10)])
@pytest.mark.parametrize("training", [False, True])
def test_the_most_attended_patches_stay_in_order_and_in_their_places(
    keep_rate: float, left: int, training: bool
) -> None:
    block, plain = pair(keep_rate)
    x, layout = random(B, GRID.tokens, C), Layout(GRID)
    kept = block.train(training)(x, layout)
    scores = attentiveness(block, x, layout)
    assert kept.places.shape == (B, left) and kept.tokens.shape == (B, FRONT + left, C)
    for sample in range(B):
        best = sorted(range(PATCHES), key=lambda patch: -scores[sample, patch])[:left]
        assert kept.places[sample].tolist() == sorted(best)
    assert torch.equal(kept.layout.index, kept.places) and kept.layout.grid == GRID
    expected, _ = keep_patches(plain(x, layout), layout, kept.places)
    assert_close(kept.tokens, expected)  # all were attended to, and the MLP asks no other token


def test_of_a_kept_subset_it_keeps_a_subset() -> None:
    block, _ = pair(0.5)
    some = torch.tensor([[1, 4, 8, 14], [0, 2, 3, 11]])
    x, layout = keep_patches(random(B, GRID.tokens, C), Layout(GRID), some)
    kept = block(x, layout)
    assert torch.equal(kept.layout.index, some.gather(1, kept.places)) and kept.places.shape == (B, 2)
    assert torch.equal(kept.places, attentiveness(block, x, layout).topk(2).indices.sort().values)


def test_later_blocks_see_the_kept_alone_and_the_dropped_stand_as_they_came() -> None:
    narrow = partial(TopKBlock, keep_rate=0.5, mixer=MIXER)
    plain = partial(Block, mixer=MIXER)
    encoder = redrawn(Encoder(C, GRID, [(plain, 1), (narrow, 1), (plain, 1), (narrow, 1)]))
    x, layout = random(B, GRID.tokens, C), Layout(GRID)
    first, second, third, fourth = encoder.blocks
    entered = first(x, layout)
    once = second(entered, layout)
    middle = third(once.tokens, once.layout)
    twice = fourth(middle, once.layout)
    out = encoder(x, layout)
    assert out.shape == x.shape and twice.places.shape == (B, 4)
    assert torch.equal(out[:, :FRONT], twice.tokens[:, :FRONT])
    for sample in range(B):
        for patch in range(PATCHES):
            expected = entered[sample, FRONT + patch]
            if patch in once.layout.index[sample].tolist():
                expected = middle[sample, FRONT + once.layout.index[sample].tolist().index(patch)]
            if patch in twice.layout.index[sample].tolist():
                expected = twice.tokens[sample, FRONT + twice.layout.index[sample].tolist().index(patch)]
            assert torch.equal(out[sample, FRONT + patch], expected)


def test_padded_pictures_are_as_alone() -> None:
    """Padding is never kept before a real patch; each picture keeps the share of its own."""
    encoder = redrawn(Encoder(C, GRID, [(partial(TopKBlock, keep_rate=0.6, mixer=MIXER), 2)]))
    layout = Layout.padded(GRID, torch.tensor([[3, 5], [2, 3]]))
    inside = layout.patch_keys
    assert inside is not None
    x = random(B, GRID.tokens, C)
    kept = encoder.blocks[0](x, layout)
    assert kept.layout.patch_keys.sum(dim=1).tolist() == [9, 4]
    assert inside.gather(1, kept.places)[kept.layout.patch_keys].all()
    out = encoder(x, layout)
    for sample, (rows, columns) in enumerate([(3, 5), (2, 3)]):
        own = torch.cat((torch.ones(FRONT, dtype=torch.bool), inside[sample]))
        alone = encoder(x[sample : sample + 1, own], Layout(Grid(rows, columns, GRID.prefix)))
        assert_close(out[sample, own], alone[0])


def test_gradient_flows_through_what_is_kept() -> None:
    encoder = redrawn(Encoder(C, GRID, [(partial(TopKBlock, keep_rate=0.4, mixer=MIXER), 2)])).train()
    x = random(B, GRID.tokens, C).requires_grad_()
    encoder(x, Layout(GRID))[:, 1].sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in encoder.parameters())
    assert x.grad is not None and x.grad.any(dim=-1).all()  # in the first block all were attended to


def test_state_dict_is_that_of_a_block() -> None:
    block, plain = pair(0.5)
    again = TopKBlock(C, GRID, keep_rate=0.5, mixer=MIXER).double().eval()
    again.load_state_dict(plain.state_dict())
    x = random(B, GRID.tokens, C)
    assert torch.equal(again(x, Layout(GRID)).tokens, block(x, Layout(GRID)).tokens)


@pytest.mark.parametrize("member", MECHANISMS, ids=str)
def test_the_class_tokens_row_is_the_matrixs_or_refused(member: Member) -> None:
    grid = Grid(3, 4, prefix=("reg", "cls"))
    mixer = partial(SelfAttention, num_heads=H, mechanism=member.factory)
    if not member.cross or "Routing" in str(member):
        with pytest.raises(
            ValueError, match=r"^the class token's attention chooses patches, which \w+ does not tell: "
        ):
            TopKBlock(C, grid, mixer=mixer)
        return
    attention = redrawn(TopKBlock(C, grid, mixer=mixer)).mixer
    x, layout = 0.3 * random(B, grid.tokens, C), Layout(grid)
    out, row = attention.with_row(x, layout, 1)
    assert_close(out, attention(x, layout), rtol=0, atol=0)
    seen = record(_Net(attention, layout), x)
    assert len(seen) == 1  # of the row nothing is recorded
    assert_close(row, attention_matrix(seen[0])[:, :, 1])


class _Net(torch.nn.Module):
    def __init__(self, attention: SelfAttention, layout: Layout) -> None:
        super().__init__()
        self.attention, self.layout = attention, layout

    def forward(self, x: Tensor) -> Tensor:
        return self.attention.with_row(x, self.layout, 1)[0]


def test_the_row_is_of_evaluation_and_moves_nothing() -> None:
    x, layout = random(B, GRID.tokens, C), Layout(GRID)
    dropping = redrawn(SelfAttention(C, GRID, num_heads=H, mechanism=partial(Softmax, attn_drop=0.5)))
    calm = dropping.with_row(x, layout, 1)[1]
    assert torch.equal(dropping.train().with_row(x, layout, 1)[1], calm) and dropping.mechanism.training
    drawing = SelfAttention(C, GRID, num_heads=H, mechanism=partial(Performer, redraw=2)).double().train()
    drawing.with_row(x, layout, 1)
    assert drawing.mechanism.calls == 1  # the mixing, and not the row


def test_patches_are_ranked_in_full_precision_under_autocast() -> None:
    attention = redrawn(SelfAttention(C, GRID, num_heads=H)).float()
    x, layout = random(B, GRID.tokens, C).float(), Layout(GRID)
    with torch.autocast("cpu", torch.bfloat16):
        out, row = attention.with_row(x, layout, 1)
        q, k, _ = attention.project(x, layout)
    assert out.dtype == q.dtype == torch.bfloat16
    assert_close(row, (q.float()[:, :, 1:2] @ k.float().mT / q.shape[-1] ** 0.5).softmax(-1)[:, :, 0])


def test_tokens_in_half_precision_take_back_what_came_in_another() -> None:
    encoder = Encoder(C, GRID, [(partial(TopKBlock, keep_rate=0.5, mixer=MIXER, layer_scale=0.1), 2)])
    x = random(B, GRID.tokens, C).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert encoder(x, Layout(GRID)).dtype == torch.float32  # of the scale's product


def test_is_built_in_any_precision_and_without_memory() -> None:
    torch.set_default_dtype(torch.bfloat16)
    try:
        TopKBlock(C, GRID, mixer=MIXER)
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.device("meta"):
        assert next(TopKBlock(C, GRID, mixer=MIXER).parameters()).is_meta


def test_hooks_see_it_as_any_block() -> None:
    encoder, seen = redrawn(Encoder(C, GRID, [(partial(TopKBlock, mixer=MIXER), 2)])), []
    for block in encoder.blocks:
        block.register_forward_hook(lambda *call: seen.append(call[2].tokens.shape[1]))
    encoder(random(B, GRID.tokens, C), Layout(GRID))
    assert seen == [FRONT + 10, FRONT + 7]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"grid": Grid(3, 5)}, r"expected prefix token 'cls', got \[\]"),
        ({"keep_rate": 0.0}, r"keep_rate must lie in \(0, 1\], got 0.0"),
        ({"keep_rate": 1.5}, r"keep_rate must lie in \(0, 1\], got 1.5"),
        ({"mixer": Identity}, "expected vit.layers.SelfAttention, got Identity"),
    ],
)
def test_refused_when_built(options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TopKBlock(**{"dim": C, "grid": GRID, **options})


def test_refused_when_called() -> None:
    x = random(B, GRID.tokens, C)
    block, _ = pair(0.5)
    with pytest.raises(ValueError, match="TopKBlock sees tokens before and after: it cannot honour a causal mask"):
        block(x, Layout(GRID, Mask(causal=True)))
    pairs = torch.ones(1, GRID.tokens, GRID.tokens, dtype=torch.bool)
    with pytest.raises(ValueError, match="TopKBlock asks what one token attends to: it cannot honour a mask of pairs"):
        block(x, Layout(GRID, Mask(pairs=pairs)))
    fixed = partial(SelfAttention, num_heads=H, mechanism=partial(Linformer, rank=5))
    encoder = redrawn(Encoder(C, GRID, [(partial(TopKBlock, mixer=fixed), 2)]))
    with pytest.raises(ValueError, match="Linformer was built for 17 tokens, got 12"):
        encoder(x, Layout(GRID))


def net(keep_rate: float = 0.5, **head: object) -> ViT:
    block = partial(TopKBlock, keep_rate=keep_rate, mixer=MIXER)
    return redrawn(ViT((6, 10), 3, 4, partial(Backbone, patch_size=2, embed_dim=C, depth=3, block=block), **head))


def test_matrices_are_over_the_kept_and_rollout_refuses_in_one_line() -> None:
    images = random(B, 3, 6, 10)
    calls = record(net(), images)
    assert [attention_matrix(call).shape[-1] for call in calls] == [16, 9, 5]
    assert all(call.within for call in calls)
    with pytest.raises(ValueError, match=r"blocks that drop tokens have no global rollout$") as raised:
        rollout_map(net(), images)
    assert "\n" not in str(raised.value)


def test_a_mean_reads_every_patch_and_mae_takes_it() -> None:
    assert net(head=partial(Head, pool=MeanPool))(random(B, 3, 6, 10)).shape == (B, 4)
    block = partial(TopKBlock, mixer=MIXER)
    mae = MAE((6, 10), 3, partial(Backbone, patch_size=2, embed_dim=C, depth=2, block=block))
    assert mae(torch.randn(B, 3, 6, 10), torch.rand(B, 15)).loss.isfinite().all()


COMPILED = """
from functools import partial
import torch
from vit.layers import Encoder, Rotary2d, SelfAttention, TopKBlock
from vit.tokens import Grid, Layout
torch.manual_seed(0)
grid = Grid(3, 5, prefix=("reg", "cls"))
block = partial(TopKBlock, keep_rate=0.5, mixer=partial(SelfAttention, num_heads=3, rotary=Rotary2d))
encoder, x = Encoder(12, grid, [(block, 2)]), torch.randn(2, 17, 12)
compiled = torch.compile(encoder, backend="aot_eager", fullgraph=True)
for training in (False, True):
    encoder.train(training)
    torch.testing.assert_close(compiled(x, Layout(grid)), encoder(x, Layout(grid)))
    assert encoder.blocks[0].mixer.mechanism.training is training
"""


@pytest.mark.slow
def test_compiles_to_the_same() -> None:
    """In a process of its own: the suite's shape checks are not traceable."""
    done = subprocess.run(
        [sys.executable, "-c", COMPILED], cwd=Path(__file__).parents[2], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_exports_to_onnx(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    code = EXPORTED.format(path=tmp_path / "net.onnx", answer=tmp_path / "answer.pt")
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    images, expected = torch.load(tmp_path / "answer.pt")
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    (answer,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    assert_close(torch.from_numpy(answer), expected, rtol=1e-4, atol=1e-5)


EXPORTED = """
from functools import partial
import torch
from vit.layers import TopKBlock
from vit.models import Backbone, ViT
torch.manual_seed(0)
backbone = partial(Backbone, patch_size=2, embed_dim=96, depth=2, block=partial(TopKBlock, keep_rate=0.5))
net, images = ViT((6, 10), 3, 4, backbone).eval(), torch.randn(2, 3, 6, 10)
torch.onnx.export(net, (images,), r"{path}", dynamo=True, verbose=False)
torch.save((images, net(images).detach()), r"{answer}")
"""
