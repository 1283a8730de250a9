from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from tests.attention.members import Member, over, sees
from tests.helpers import GRIDS, PREFIXES, B, H, N, influence, random, redrawn, row, untyped
from vit.layers import Block, ConformerBlock, ConvModule, Identity, LayerNorm, Mlp, PostNormBlock, SelfAttention, SwiGLU
from vit.tokens import Grid, Layout

C = 15
BLOCKS = [Block, PostNormBlock]


def normed(norm: nn.Module, x: Tensor) -> Tensor:
    if isinstance(norm, nn.RMSNorm):
        return x / (x.pow(2).mean(-1, keepdim=True) + torch.finfo(x.dtype).eps).sqrt() * norm.weight
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * norm.weight + norm.bias


def factors(residual: nn.Module) -> Tensor | float:
    return dict(residual.named_parameters()).get("scale.gamma", 1.0)


@pytest.mark.parametrize("layer_scale", [None, 0.1])
@pytest.mark.parametrize("norm", [LayerNorm, nn.RMSNorm])
@pytest.mark.parametrize("mlp", [Mlp, SwiGLU])
def test_pre_norm_equation(mlp: type, norm: type, layer_scale: float | None) -> None:
    block = redrawn(Block(C, Grid(1, N), mlp=mlp, norm=norm, layer_scale=layer_scale))
    x = random(B, N, C)
    middle = x + factors(block.residual1) * block.mixer(normed(block.norm1, x), row())
    expected = middle + factors(block.residual2) * block.mlp(normed(block.norm2, middle))
    assert_close(block(x, row()), expected)


@pytest.mark.parametrize("layer_scale", [None, 0.1])
@pytest.mark.parametrize("norm", [LayerNorm, nn.RMSNorm])
@pytest.mark.parametrize("mlp", [Mlp, SwiGLU])
def test_post_norm_equation(mlp: type, norm: type, layer_scale: float | None) -> None:
    block = redrawn(PostNormBlock(C, Grid(1, N), mlp=mlp, norm=norm, layer_scale=layer_scale))
    x = random(B, N, C)
    middle = normed(block.norm1, x + factors(block.residual1) * block.mixer(x, row()))
    expected = normed(block.norm2, middle + factors(block.residual2) * block.mlp(middle))
    assert_close(block(x, row()), expected)


@pytest.mark.parametrize("layer_scale", [None, 0.1])
@pytest.mark.parametrize("norm", [LayerNorm, nn.RMSNorm])
@pytest.mark.parametrize("mlp", [Mlp, SwiGLU])
def test_conformer_equation(mlp: type, norm: type, layer_scale: float | None) -> None:
    grid = Grid(2, 3, prefix=("cls",))
    block = redrawn(ConformerBlock(C, grid, mlp=mlp, norm=norm, layer_scale=layer_scale))
    x = out = random(B, N, C)
    out = out + factors(block.residual1) * block.mlp1(normed(block.norm1, out)) / 2
    out = out + factors(block.residual2) * block.mixer(normed(block.norm2, out), Layout(grid))
    out = out + factors(block.residual3) * block.conv(normed(block.norm3, out), Layout(grid))
    out = out + factors(block.residual4) * block.mlp2(normed(block.norm4, out)) / 2
    assert_close(block(x, Layout(grid)), normed(block.norm, out))


@pytest.mark.parametrize("reach", [1, 2])
@pytest.mark.parametrize("prefix", PREFIXES, ids=len)
@pytest.mark.parametrize("size", [(5, 13), (4, 4), (7, 3)], ids=str)
def test_convolution_alone_reaches_half_a_kernel(size: tuple[int, int], prefix: tuple[str, ...], reach: int) -> None:
    """Without attention patches see their neighbourhood, and prefix tokens themselves."""
    grid, front = Grid(*size, prefix=prefix), len(prefix)
    conv = partial(ConvModule, kernel_size=2 * reach + 1)
    block = redrawn(ConformerBlock(3, grid, mixer=Identity, conv=conv))
    sees = influence(lambda x: block(x, Layout(grid)), random(1, grid.tokens, 3))[0, :, 0] > 0
    where = Layout(grid).coordinates(torch.device("cpu"))[0]
    near = (where[:, None] - where).abs().amax(-1) <= reach
    assert_close(sees[front:, front:], near)
    assert_close(sees[:front, :front], torch.eye(front, dtype=torch.bool))
    assert not sees[front:, :front].any() and not sees[:front, front:].any()


@pytest.mark.parametrize("kind", BLOCKS)
def test_identity_mixer_leaves_tokens_alone(kind: type[nn.Module]) -> None:
    """Attention is the only way from one token to another: without it the Jacobian between tokens is zero."""
    block = redrawn(kind(C, Grid(1, N), mixer=Identity))
    sees = influence(lambda x: block(x, row()), random(B, N, C)).flatten(0, 1).flatten(1, 2)
    others = ~torch.eye(B * N, dtype=torch.bool)
    assert sees[others].count_nonzero() == 0
    assert sees.diagonal().min() > 0


@over()
@pytest.mark.parametrize("kind", [*BLOCKS, ConformerBlock])
def test_attention_reaches_every_token_that_may_be_seen_at_once(kind: type[nn.Module], member: Member) -> None:
    """And none of another sample."""
    mixer = partial(SelfAttention, mechanism=member.factory)
    block = redrawn(kind(C, Grid(1, N), mixer=mixer))
    depends = influence(lambda x: block(x, row()), random(B, N, C))
    assert depends[0, :, 1].count_nonzero() == depends[1, :, 0].count_nonzero() == 0
    if member.positive:
        allowed = sees(block, Grid(1, N))
        assert depends[0, :, 0][allowed].min() > 0 < depends[1, :, 1][allowed].min()


@pytest.mark.parametrize("kind", [*BLOCKS, ConformerBlock])
@pytest.mark.parametrize("prefix", PREFIXES, ids=len)
@pytest.mark.parametrize("size", GRIDS, ids=str)
def test_keeps_shape_and_reaches_every_parameter(kind: type, size: tuple[int, int], prefix: tuple[str, ...]) -> None:
    grid = Grid(*size, prefix=prefix)
    block = kind(C, grid, layer_scale=1e-2)
    out = block(torch.randn(1, grid.tokens, C), Layout(grid))
    assert out.shape == (1, grid.tokens, C)
    (out * torch.randn_like(out)).sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.count_nonzero() for p in block.parameters())


@pytest.mark.parametrize(("kind", "branches"), [(Block, 2), (PostNormBlock, 2), (ConformerBlock, 4)])
def test_drop_path_falls_on_all_branches_apart(kind: type[nn.Module], branches: int) -> None:
    block = kind(C, Grid(1, N), 0.5, norm=lambda dim: nn.Identity())
    dropped: list[list[bool]] = [[] for _ in range(branches)]
    for number, seen in enumerate(dropped, start=1):
        residual = block.get_submodule(f"residual{number}")
        residual.drop_path.register_forward_hook(lambda _, __, out, seen=seen: seen.extend((out == 0).all(-1).all(-1)))
    block(torch.randn(64, N, C), row())
    for one in range(branches):
        assert 16 < sum(dropped[one]) < 48
        assert all(dropped[one] != dropped[other] for other in range(one))


@pytest.mark.parametrize("kind", [Block, ConformerBlock])
def test_compiles_without_graph_breaks(kind: type[nn.Module]) -> None:
    mixer = partial(SelfAttention, num_heads=H, qk_norm=LayerNorm)
    block, x = redrawn(kind(C, Grid(1, N), mixer=mixer, layer_scale=0.1)), random(B, N, C)
    compiled = torch.compile(block, fullgraph=True, backend="eager")
    with untyped():
        assert_close(compiled(x, row()), block(x, row()))
