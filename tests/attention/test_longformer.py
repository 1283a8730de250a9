import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.helpers import PREFIXES, B, D, E, H, random, redrawn
from vit.analysis.maps import attention_matrix
from vit.analysis.record import record
from vit.attention import BlockGather, Dense, EngineFactory, Longformer, Projections
from vit.layers import CrossAttention, SelfAttention
from vit.tokens import Grid, Layout, Mask


def projections(n: int) -> Projections:
    return Projections(*(random(B, H, n, width).requires_grad_() for width in (D, D, E)))


def explicit(
    first: Projections, second: Projections, rows: int, width: int, allowed: Tensor, dilation: int = 1
) -> Tensor:
    """Row by row; the first ones from the second projections."""
    out = []
    for i in range(allowed.shape[-1]):
        q, k, v = second if i < rows else first
        place = torch.arange(allowed.shape[-1])
        near = ((place - i).abs() <= width * dilation) & ((place - i) % dilation == 0)
        sees = allowed[:, i] & ((i < rows) | (place < rows) | near)
        scores = (q[:, :, i, None] @ k.transpose(-1, -2) * D**-0.5).masked_fill(~sees[:, None, None], -torch.inf)
        out.append(scores.softmax(dim=-1).nan_to_num() @ v)
    return torch.cat(out, dim=2)


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("engine", [Dense, BlockGather])
@pytest.mark.parametrize("prefix", PREFIXES, ids=len)
def test_equals_row_by_row_forward_and_backward(prefix: tuple[str, ...], engine: EngineFactory, dilation: int) -> None:
    grid = Grid(3, 5, prefix=prefix)
    first, second = projections(grid.tokens), projections(grid.tokens)
    mechanism, rows = Longformer(H, D, grid, 2, dilation, global_tokens=2, engine=engine), max(2, len(prefix))
    for mask in (None, Mask(keys=torch.rand(B, grid.tokens) < 0.7), Mask(causal=True)):
        allowed = (mask or Mask()).allowed(grid.tokens, torch.device("cpu"))
        ours = mechanism(*first, Layout(grid, mask), second)
        wanted = explicit(first, second, rows, 2, allowed.expand(B, -1, -1), dilation)
        assert_close(ours, wanted)
        direction = torch.randn_like(wanted)
        inputs = (*first, *second)
        assert_close(torch.autograd.grad(ours, inputs, direction), torch.autograd.grad(wanted, inputs, direction))


@pytest.mark.parametrize("prefix", [(), ("cls", "reg")], ids=len)
def test_self_attention_brings_both_sets_and_probing_sees_both(prefix: tuple[str, ...]) -> None:
    grid = Grid(3, 5, prefix=prefix)
    attention = redrawn(SelfAttention(13, grid, H, D, E, mechanism=Longformer))
    assert attention.qkv.weight.shape == (2 * H * (D + D + E), 13)
    x = random(B, grid.tokens, 13)
    first, second = attention.project_sets(x, Layout(grid))
    assert_close(attention.project(x, Layout(grid)), first)
    assert not torch.allclose(first.q, second.q)
    rows = max(len(prefix), 1)
    eye = torch.eye(grid.tokens, dtype=torch.float64).expand(B, H, -1, -1)
    everyone = torch.ones(B, grid.tokens, grid.tokens, dtype=torch.bool)
    wanted = explicit(first._replace(v=eye), second._replace(v=eye), rows, 4, everyone)

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = attention

        def forward(self, x: Tensor) -> Tensor:
            return self.attention(x, Layout(grid))

    (call,) = record(Net(), x)
    assert call.second is not None
    assert_close(attention_matrix(call), wanted)
    (attention(x, Layout(grid))).pow(2).sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in attention.parameters())
    grads = attention.qkv.weight.grad.split(attention.widths)
    assert all(grad.abs().sum() > 0 for grad in grads)


def test_refuses_what_it_cannot_do() -> None:
    grid = Grid(3, 5)
    first = projections(15)
    with pytest.raises(ValueError, match=r"second set of projections for its global tokens, as SelfAttention has$"):
        Longformer(H, D, grid)(*first, Layout(grid))
    with pytest.raises(ValueError, match=r"^global_tokens must be at least 1, got 0$"):
        Longformer(H, D, grid, global_tokens=0)
    attention = CrossAttention(15, grid, H, mechanism=Longformer)
    with pytest.raises(ValueError, match="same 15 tokens; got 2 queries"):
        attention(torch.randn(B, 2, 15), torch.randn(B, 15, 15), Layout(grid))
    some, layout = [part[:, :, :4] for part in first], Layout(grid, index=torch.tensor([[0, 2, 3, 4]] * B))
    with pytest.raises(ValueError, match="kept subset need not hold the 1 global tokens"):
        Longformer(H, D, grid, engine=Dense)(*some, layout, Projections(*some))
