from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from tests.helpers import B, N, random, redrawn, row
from vit.layers import Block, Encoder, Identity, PostNormBlock, SelfAttention
from vit.tokens import Grid, Layout

C = 15


def test_applies_its_blocks_in_order() -> None:
    encoder = redrawn(Encoder(C, Grid(1, N), [(Block, 2), (PostNormBlock, 1)]))
    assert [type(block) for block in encoder.blocks] == [Block, Block, PostNormBlock]
    x = random(B, N, C)
    first, second, third = encoder.blocks
    assert_close(encoder(x, row()), third(second(first(x, row()), row()), row()))


def test_blocks_share_no_parameters() -> None:
    encoder = Encoder(C, Grid(1, N), [(Block, 3)])
    one = sum(p.numel() for p in Block(C, Grid(1, N)).parameters())
    assert sum(p.numel() for p in encoder.parameters()) == 3 * one
    first, second, _ = encoder.blocks
    assert not torch.equal(first.mlp.fc1.weight, second.mlp.fc1.weight)


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_drop_path_rises_linearly_over_all_blocks_one_rate_each(depth: int) -> None:
    early = partial(Block, mixer=Identity)
    encoder = Encoder(C, Grid(1, N), [(early, 1), (Block, depth)], drop_path=0.4)
    rates = [(block.residual1.drop_path.rate, block.residual2.drop_path.rate) for block in encoder.blocks]
    assert rates == [pytest.approx((0.4 * i / depth,) * 2) for i in range(depth + 1)]


@pytest.mark.parametrize("rate", [1.0, -0.5])
def test_drop_path_is_a_share(rate: float) -> None:
    with pytest.raises(ValueError, match=r"^drop_path must lie in \[0, 1\), got "):
        Encoder(C, Grid(1, N), [(Block, 3)], drop_path=rate)


def test_shared_layers_are_one_block_run_again() -> None:
    """As many layers of the same weights, held once, each of an entry's own."""
    encoder = redrawn(Encoder(C, Grid(1, N), [(PostNormBlock, 2), (Block, 0), (Block, 3)], share_layers=True))
    first, second = encoder.blocks
    assert encoder.layers == [first, first, second, second, second]
    apart = Encoder(C, Grid(1, N), [(PostNormBlock, 2), (Block, 3)]).double()
    for layer, shared in zip(apart.blocks, encoder.layers, strict=True):
        layer.load_state_dict(shared.state_dict())
    x = random(B, N, C)
    assert_close(encoder(x, row()), apart(x, row()))
    names = dict(encoder.named_parameters())
    assert (
        set(names)
        == set(encoder.state_dict())
        == {f"blocks.{i}.{n}" for i in (0, 1) for n, _ in first.named_parameters()}
    )


def test_a_shared_block_gets_the_gradients_of_all_its_layers() -> None:
    encoder, x = redrawn(Encoder(C, Grid(1, N), [(Block, 3)], share_layers=True)), random(B, N, C)
    apart = Encoder(C, Grid(1, N), [(Block, 3)]).double()
    for layer in apart.blocks:
        layer.load_state_dict(encoder.blocks[0].state_dict())
    direction = random(B, N, C)
    for net in (encoder, apart):
        (net(x, row()) * direction).sum().backward()
    for name, parameter in encoder.blocks[0].named_parameters():
        assert_close(parameter.grad, sum(layer.get_parameter(name).grad for layer in apart.blocks))


def test_a_shared_blocks_drop_path_is_the_mean_of_its_layers() -> None:
    encoder = Encoder(C, Grid(1, N), [(Block, 2), (Block, 3)], drop_path=0.4, share_layers=True)
    assert [block.residual1.drop_path.rate for block in encoder.blocks] == pytest.approx([0.05, 0.3])


def test_states_are_what_each_layer_leaves() -> None:
    encoder, x = redrawn(Encoder(C, Grid(1, N), [(Block, 2), (PostNormBlock, 1)])), random(B, N, C)
    expected = x
    for block, state in zip(encoder.blocks, encoder.states(x, row()), strict=True):
        expected = block(expected, row())
        assert torch.equal(state, expected)
    assert torch.equal(encoder(x, row()), expected)


def test_no_blocks_is_the_identity() -> None:
    x = random(B, N, C)
    assert Encoder(C, Grid(1, N), [])(x, row()) is x


def test_every_block_gets_the_layout_of_the_call() -> None:
    class Remember(nn.Module):
        def __init__(self, dim: int, grid: Grid) -> None:
            super().__init__()
            self.built, self.seen = grid, []

        def forward(self, x: Tensor, layout: Layout) -> Tensor:
            self.seen.append(layout)
            return x

    encoder = Encoder(C, Grid(1, N), [(partial(Block, mixer=Remember), 2), (partial(Block, mixer=SelfAttention), 1)])
    layout = Layout(Grid(2, 3, prefix=("cls",)))
    encoder(torch.randn(B, N, C), layout)
    for block in encoder.blocks[:2]:
        assert block.mixer.built == Grid(1, N)
        assert block.mixer.seen == [layout]
