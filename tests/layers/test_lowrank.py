import pytest
import torch
from torch import nn
from torch.testing import assert_close

from tests.helpers import random
from vit.layers import LowRankLinear, merged


def updated(bias: bool = True) -> tuple[nn.Linear, LowRankLinear]:
    """A map, and the same with an update that has been trained."""
    linear = nn.Linear(5, 7, bias=bias).double()
    plain = nn.Linear(5, 7, bias=bias).double()
    plain.load_state_dict(linear.state_dict())
    update = LowRankLinear(linear, rank=3, alpha=6.0)
    nn.init.normal_(update.up)
    return plain, update


def test_at_first_nothing_changes() -> None:
    linear, x = nn.Linear(5, 7).double(), random(2, 3, 5)
    expected = linear(x)
    assert torch.equal(LowRankLinear(linear, rank=2, alpha=4.0)(x), expected)


@pytest.mark.parametrize("bias", [True, False])
def test_an_update_is_its_formula_and_merges_into_the_weight(bias: bool) -> None:
    plain, update = updated(bias)
    x = random(2, 3, 5)
    out = update(x)
    assert_close(out, plain(x) + 2 * x @ update.down.T @ update.up.T)
    assert (out - plain(x)).abs().max() > 0.1
    state = merged(update.state_dict())
    assert state.keys() == plain.state_dict().keys()
    plain.load_state_dict(state)
    assert_close(plain(x), out, rtol=0, atol=1e-12)


def test_only_the_update_is_trained() -> None:
    _, update = updated()
    update(random(2, 3, 5)).sum().backward()
    assert {name for name, p in update.named_parameters() if p.requires_grad} == {"down", "up"}
    assert update.weight.grad is None and update.bias.grad is None
    assert update.down.grad.abs().max() > 0 and update.up.grad.abs().max() > 0


def test_a_state_without_updates_stays_as_it_is() -> None:
    state = nn.Sequential(nn.Linear(5, 7)).state_dict()
    again = merged(state)
    assert all(again[name] is state[name] for name in state) and again.keys() == state.keys()


@pytest.mark.parametrize("rank", [0, 6])
def test_a_rank_has_to_fit(rank: int) -> None:
    with pytest.raises(ValueError, match=rf"rank must be in 1\.\.5, the smaller side of the map, got {rank}"):
        LowRankLinear(nn.Linear(5, 7), rank, 1.0)
