import torch
from torch.testing import assert_close

from tests.helpers import random
from vit.attention.blocks import lay_by_group, take
from vit.attention.numerics import masked_softmax, widen


def test_masked_softmax_is_zero_with_finite_gradients_where_nothing_is_allowed() -> None:
    scores = (1e3 * random(3, 5)).requires_grad_()
    allowed = torch.tensor([[True] * 5, [False] * 5, [True, False] * 2 + [False]])
    weights = masked_softmax(scores, allowed)
    assert_close(weights[0], scores[0].softmax(dim=-1))
    assert weights[1].count_nonzero() == weights[2][~allowed[2]].count_nonzero() == 0
    assert_close(weights.sum(dim=-1), torch.tensor([1.0, 0, 1]).double())
    weights.pow(2).sum().backward()
    assert scores.grad.isfinite().all()
    assert scores.grad[~allowed].count_nonzero() == 0


def test_widen_never_narrows() -> None:
    kinds = torch.bfloat16, torch.float16, torch.float32, torch.float64
    wide = widen(*(torch.ones(2, dtype=kind) for kind in kinds))
    assert [part.dtype for part in wide] == [torch.float32] * 3 + [torch.float64]


def test_groups_lie_in_blocks_of_their_own_in_order() -> None:
    group, taken = torch.tensor([2, 0, 2, 2, 0, 1, 2]), torch.tensor([True] * 5 + [False, True])
    slots = lay_by_group(group, 3, 2, taken)
    n = len(group)
    assert slots.token.tolist() == [1, 4, 0, 2, 3, 6, n, n, n, n, n, n]
    assert slots.slot.tolist() == [2, 0, 3, 4, 1, 12, 5]
    x = random(n, 3)
    assert_close(take(take(x, slots.token), slots.slot), x * taken[:, None])
