"""Gradient checkpointing changes memory and time, and nothing else: not a bit of a gradient, a buffer or a draw."""

import subprocess
import sys
from copy import deepcopy
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.helpers import B, H, random, redrawn
from vit.analysis.cost import saved_bytes
from vit.attention import Performer, Routing, Softmax
from vit.layers import Block, BlockFactory, ConformerBlock, Encoder, SelfAttention, TopKBlock
from vit.tokens import Grid, Layout

C = 12
GRID = Grid(3, 5, prefix=("cls",))
DEPTH = 4


def mixed_by(mechanism: object, kind: type[nn.Module] = Block, **options: object) -> BlockFactory:
    return partial(kind, mixer=partial(SelfAttention, num_heads=H, mechanism=mechanism), **options)


def pair(block: BlockFactory, **options: object) -> tuple[Encoder, Encoder]:
    """Of the same weights, in training: the second without activations."""
    plain = redrawn(Encoder(C, GRID, [(block, DEPTH)], **options)).train()
    saving = deepcopy(plain)
    saving.grad_checkpointing = True
    return plain, saving


def trained(encoder: Encoder, images: Tensor, steps: int = 2) -> list[Tensor]:
    """Losses, gradients and buffers of some steps, and what a random number is after them."""
    torch.manual_seed(7)
    seen: list[Tensor] = []
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.1)
    for _ in range(steps):
        x = images.clone().requires_grad_()
        loss = encoder(x, Layout(GRID)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen += [loss.detach(), x.grad, *(parameter.grad.clone() for parameter in encoder.parameters())]
        seen += [buffer.clone() for buffer in encoder.buffers()]
    return [*seen, torch.rand(3)]


@pytest.mark.parametrize(
    "block",
    [
        mixed_by(partial(Softmax, attn_drop=0.3)),
        mixed_by(partial(Performer, redraw=1)),
        mixed_by(partial(Performer, redraw=2)),
        mixed_by(partial(Routing, clusters=3)),
        partial(ConformerBlock, layer_scale=0.1),
        mixed_by(Softmax, TopKBlock, keep_rate=0.5),
    ],
    ids=["dropout", "redrawn", "redrawn every second call", "centroids", "convolutions", "fewer tokens go on"],
)
@pytest.mark.parametrize("share_layers", [False, True])
def test_is_the_same_to_the_last_bit(block: BlockFactory, share_layers: bool) -> None:
    plain, saving = pair(block, drop_path=0.3, share_layers=share_layers)
    x = random(B, GRID.tokens, C)
    for ours, expected in zip(trained(saving, x), trained(plain, x), strict=True):
        assert torch.equal(ours, expected)


def test_keeps_what_enters_each_layer_and_no_more() -> None:
    plain, saving = pair(Block)
    x = random(B, GRID.tokens, C)
    kept, most = (saved_bytes(lambda net=net: net(x, Layout(GRID)), net) for net in (saving, plain))
    assert kept == DEPTH * x.numel() * x.element_size()
    assert most > 10 * kept


def test_evaluation_and_what_needs_no_gradient_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    _, saving = pair(Block)
    monkeypatch.setattr("vit.layers.encoder.recomputed", None)
    x = random(B, GRID.tokens, C)
    saving.eval()(x, Layout(GRID))
    with torch.no_grad():
        saving.train()(x, Layout(GRID))
    with pytest.raises(TypeError):
        saving(x, Layout(GRID))


def test_in_bfloat16_too() -> None:
    x, grads = random(B, GRID.tokens, C).float(), []
    for net in pair(Block):
        with torch.autocast("cpu", torch.bfloat16):
            out = net.float()(x, Layout(GRID))
        out.square().mean().backward()  # where autocast is off, as a trainer does it
        grads.append([parameter.grad for parameter in net.parameters()])
    assert all(torch.equal(ours, expected) for ours, expected in zip(*grads, strict=True))


def test_goes_back_as_often_as_asked() -> None:
    _, saving = pair(mixed_by(partial(Performer, redraw=1)))
    loss = saving(random(B, GRID.tokens, C), Layout(GRID)).square().mean()
    once, again = (torch.autograd.grad(loss, list(saving.parameters()), retain_graph=True) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(once, again, strict=True))


COMPILED = """
from functools import partial
import torch
from vit.attention import Performer
from vit.layers import Block, ConformerBlock, Encoder, SelfAttention
from vit.tokens import Grid, Layout
drawing = partial(Block, mixer=partial(SelfAttention, num_heads=3, mechanism=partial(Performer, redraw=1)))
for block, whole in ((Block, True), (ConformerBlock, False), (drawing, False)):
    torch.manual_seed(0)
    encoder = Encoder(12, Grid(3, 5), [(block, 2)], grad_checkpointing=True)
    compiled = torch.compile(encoder, backend="aot_eager", fullgraph=whole)
    x, grads = torch.randn(2, 15, 12), []
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    for net in (compiled, encoder):
        encoder.load_state_dict(before)
        torch.manual_seed(1)
        net(x, Layout(Grid(3, 5))).square().mean().backward()
        grads.append([parameter.grad.clone() for parameter in encoder.parameters()])
        encoder.zero_grad()
    torch.testing.assert_close(*grads)
"""


@pytest.mark.slow
def test_compiles() -> None:
    """In a process of its own: the suite's shape checks are not traceable."""
    done = subprocess.run(
        [sys.executable, "-c", COMPILED], cwd=Path(__file__).parents[2], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
