import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.helpers import B, D, E, H, N, random, row
from vit.attention import (
    DenseSynthesizer,
    FactorizedDenseSynthesizer,
    FactorizedRandomSynthesizer,
    Mechanism,
    RandomSynthesizer,
)
from vit.layers import SelfAttention
from vit.tokens import Grid

LONG = 23
RANDOM = [RandomSynthesizer, FactorizedRandomSynthesizer]
DENSE = [DenseSynthesizer, FactorizedDenseSynthesizer]


def matrix(mechanism: Mechanism, q: Tensor | None, batch: int, n: int) -> Tensor:
    return mechanism(q, None, torch.eye(n).double().expand(batch, H, n, n), row(n))


@pytest.mark.parametrize("kind", RANDOM)
def test_random_gives_every_input_one_matrix_per_head(kind: type[Mechanism]) -> None:
    weights = matrix(kind(H, D, Grid(1, N)).double(), None, B, N)
    assert_close(weights[0], weights[1], rtol=0, atol=0)
    assert not torch.allclose(weights[0, 0], weights[0, 1])


@pytest.mark.parametrize("kind", DENSE)
def test_a_dense_row_is_made_from_its_own_token_alone(kind: type[Mechanism]) -> None:
    mechanism, q = kind(H, D, Grid(1, N)).double(), random(B, H, N, D)
    before = matrix(mechanism, q, B, N)
    q[:, :, 3] = random(B, H, D)
    changed = (matrix(mechanism, q, B, N) - before).abs().amax(dim=-1) > 1e-9
    assert changed[:, :, 3].all()
    assert changed.sum() == B * H


def test_by_the_formulas() -> None:
    plain, low = (kind(H, D, Grid(1, N)).double() for kind in RANDOM)
    assert_close(matrix(plain, None, 1, N)[0], plain.scores.softmax(dim=-1))
    assert_close(matrix(low, None, 1, N)[0], (low.rows @ low.columns.transpose(1, 2)).softmax(dim=-1))
    q = random(1, H, N, D)
    dense, split = (kind(H, D, Grid(1, N)).double() for kind in DENSE)
    torch.nn.init.normal_(dense.bias)
    assert_close(matrix(dense, q, 1, N), (q.relu() @ dense.weight + dense.bias).softmax(dim=-1))
    coarse, fine = q.relu() @ split.rows, q.relu() @ split.columns
    scores = torch.stack([coarse[..., j // 3] * fine[..., j % 3] for j in range(N)], dim=-1)
    assert_close(matrix(split, q, 1, N), scores.softmax(dim=-1))


def test_low_rank_bounds_the_scores_and_not_the_matrix() -> None:
    mechanism = FactorizedRandomSynthesizer(H, D, Grid(1, LONG), rank=4).double()
    weights = matrix(mechanism, None, 1, LONG)[0]
    centred = weights.log() - weights.log().mean(dim=-1, keepdim=True)
    assert torch.linalg.matrix_rank(centred).le(4).all()
    assert torch.linalg.matrix_rank(weights).gt(4).all()


@pytest.mark.parametrize("kind", RANDOM + DENSE)
def test_only_the_projections_it_needs_exist_and_another_number_of_tokens_is_refused(kind: type[Mechanism]) -> None:
    attention = SelfAttention(15, Grid(1, N), H, mechanism=kind)
    assert attention.qkv.weight.shape == (15 * (1 if kind in RANDOM else 2), 15)
    assert attention(torch.randn(B, N, 15), row()).shape == (B, N, 15)
    with pytest.raises(ValueError, match=f"^{kind.__name__} was built for 7 tokens, got 5$"):
        attention(torch.randn(B, 5, 15), row(5))
    with pytest.raises(ValueError, match=f"^{kind.__name__} was built for 11 tokens, where .* it cannot be resized$"):
        kind(H, D, Grid(1, E)).load_state_dict(kind(H, D, Grid(1, N)).state_dict())


def test_rank_is_at_least_one() -> None:
    with pytest.raises(ValueError, match=r"^rank must be at least 1, got 0$"):
        FactorizedRandomSynthesizer(H, D, Grid(1, N), rank=0)
