"""The probed matrix is the matrix."""

import pytest
import torch
from torch.testing import assert_close

from tests.analysis.nets import recorded_softmax, softmax_weights
from tests.attention.members import Member, over
from tests.helpers import GRIDS, PREFIXES
from vit.analysis.maps import attention_matrix, is_share
from vit.analysis.record import Recorded
from vit.attention import Mechanism, Softmax
from vit.tokens import Grid, Layout, Mask


@pytest.mark.parametrize("prefix", PREFIXES, ids=len)
@pytest.mark.parametrize("grid", [*GRIDS, (1, 1), (1, 7)], ids=str)
def test_probing_equals_explicit_softmax(grid, prefix):
    recorded = recorded_softmax(Grid(*grid, prefix))
    matrix = attention_matrix(recorded)
    assert matrix.shape == (2, 3, recorded.layout.tokens, recorded.layout.tokens)
    assert_close(matrix.double(), softmax_weights(recorded.q, recorded.k), rtol=0, atol=1e-6)
    assert_close(matrix @ recorded.v, recorded.out, rtol=0, atol=1e-5)
    assert_close(matrix.sum(-1), torch.ones(matrix.shape[:-1]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("width", [1, 5, 16, 17, 40])
def test_any_value_width_fewer_or_more_than_the_tokens(width):
    recorded = recorded_softmax(Grid(3, 5, ("cls", "reg")), value_width=width, dtype=torch.float64)
    assert_close(attention_matrix(recorded), softmax_weights(recorded.q, recorded.k), rtol=0, atol=1e-12)


def test_masked_keys_get_nothing():
    grid = Grid(3, 5, ("cls",))
    keys = torch.rand(2, grid.tokens) < 0.6
    keys[:, 0] = True
    recorded = recorded_softmax(grid, layout=Layout(grid, Mask(keys=keys)))
    matrix = attention_matrix(recorded)
    assert_close(matrix.double(), softmax_weights(recorded.q, recorded.k, keys[:, None, None, :]), rtol=0, atol=1e-6)
    assert (matrix.masked_select(~keys[:, None, None, :].expand_as(matrix)) == 0).all()


def test_causal_mask():
    grid = Grid(3, 5)
    recorded = recorded_softmax(grid, layout=Layout(grid, Mask(causal=True)))
    allowed = torch.ones(15, 15, dtype=torch.bool).tril()
    expected = softmax_weights(recorded.q, recorded.k, allowed)
    assert_close(attention_matrix(recorded).double(), expected, rtol=0, atol=1e-6)


def test_fewer_queries_than_keys():
    layout, mechanism = Layout(Grid(3, 5)), Softmax(3, 5, Grid(3, 5))
    q, k, v = torch.randn(2, 3, 1, 5), torch.randn(2, 3, 15, 5), torch.randn(2, 3, 15, 4)
    matrix = attention_matrix(Recorded(q, k, v, layout, mechanism(q, k, v, layout), mechanism))
    assert_close(matrix.double(), softmax_weights(q, k), rtol=0, atol=1e-6)


def test_permuting_tokens_permutes_the_matrix():
    recorded = recorded_softmax(Grid(3, 5), dtype=torch.float64)
    order = torch.randperm(15)
    shuffled = Recorded(
        *(part[:, :, order] for part in (recorded.q, recorded.k, recorded.v)),
        recorded.layout,
        recorded.out[:, :, order],
        recorded.mechanism,
    )
    expected = attention_matrix(recorded)[:, :, order][:, :, :, order]
    assert_close(attention_matrix(shuffled), expected, rtol=0, atol=1e-12)


def test_half_precision_is_computed_in_float32_and_the_mechanism_left_as_it_was():
    mechanism, layout = Projecting(3, 5, Grid(3, 5)).bfloat16().eval(), Layout(Grid(3, 5))
    q, k, v = torch.randn(3, 2, 3, 15, 5, dtype=torch.bfloat16)
    out = mechanism(q, k, v, layout)
    mechanism.train()  # its dropout must not reach the matrix
    matrix = attention_matrix(Recorded(q, k, v, layout, out, mechanism))
    assert matrix.dtype == torch.float32
    weight = mechanism.turn.weight.double()
    assert_close(matrix.double(), softmax_weights(q.double() @ weight.T, k), rtol=0, atol=1e-6)
    assert mechanism.training
    assert mechanism.turn.weight.dtype == torch.bfloat16


@over()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_mechanism_shows_its_matrix(member: Member, dtype: torch.dtype) -> None:
    layout, n = Layout(Grid(3, 5, ("cls",))), 16
    mechanism = member.build(3, 5, layout.grid).float()
    q, k, v = torch.randn(3, 2, 3, n, 5, dtype=dtype)
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        out = mechanism(q, k, v, layout)
    taken = [part if name in mechanism.inputs else None for name, part in zip("qk", (q, k), strict=True)]
    matrix = attention_matrix(Recorded(*taken, v, layout, out, mechanism))
    assert matrix.shape == (2, 3, n, n)
    assert_close(matrix @ v.float(), out.float(), rtol=0, atol=1e-4 if dtype == torch.float32 else 0.1)
    assert not member.simplex or is_share(matrix)


def test_a_mechanism_that_is_not_linear_in_its_values_is_refused():
    mechanism, layout = Squaring(3, 5, Grid(3, 5)), Layout(Grid(3, 5))
    q, k, v = torch.randn(3, 2, 3, 15, 5)
    with pytest.raises(ValueError, match="Squaring has no attention matrix"):
        attention_matrix(Recorded(q, k, v, layout, mechanism(q, k, v, layout), mechanism))


def test_shares_are_told_from_other_weights():
    shares = torch.rand(2, 3, 5, 5).softmax(-1)
    assert is_share(shares)
    assert not is_share(2 * shares)
    signed = shares.clone()
    signed[..., 0] -= 1.5
    signed[..., 1] += 1.5
    assert not is_share(signed)
    shares[0, 0, 0] = 0  # a query that may see nothing
    assert is_share(shares)


class Projecting(Mechanism):
    """Softmax of queries that pass a layer of its own, with dropout in training."""

    def __init__(self, heads, head_dim, grid):
        super().__init__()
        self.turn = torch.nn.Linear(head_dim, head_dim, bias=False)
        self.softmax = Softmax(heads, head_dim, grid, attn_drop=0.5)

    def forward(self, q, k, v, layout):
        return self.softmax(self.turn(q), k, v, layout)


class Squaring(Mechanism):
    """Breaks the rule of the seam."""

    def __init__(self, heads, head_dim, grid):
        super().__init__()

    def forward(self, q, k, v, layout):
        return v.square()
