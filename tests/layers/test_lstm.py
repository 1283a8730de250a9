import math

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from tests.helpers import B, random, redrawn, row
from vit.layers import BiLstm
from vit.tokens import Grid, Layout, Mask

C, N = 5, 7


def states(lstm: nn.LSTM, x: Tensor) -> Tensor:
    """Hochreiter & Schmidhuber's cell with a forget gate, step by step: (b n c) -> (b n h)."""
    weights = dict(lstm.named_parameters())
    hidden = cell = x.new_zeros(x.shape[0], lstm.hidden_size)
    out = []
    for token in x.unbind(dim=1):
        gates = token @ weights["weight_ih_l0"].T + hidden @ weights["weight_hh_l0"].T
        enter, forget, value, leave = (gates + weights["bias_ih_l0"] + weights["bias_hh_l0"]).chunk(4, dim=-1)
        cell = forget.sigmoid() * cell + enter.sigmoid() * value.tanh()
        hidden = leave.sigmoid() * cell.tanh()
        out.append(hidden)
    return torch.stack(out, dim=1)


def test_equals_both_directions_step_by_step() -> None:
    mixer, x = redrawn(BiLstm(C, Grid(1, N), hidden_dim=3)), random(B, N, C)
    both = torch.cat((states(mixer.forwards, x), states(mixer.backwards, x.flip(1)).flip(1)), dim=-1)
    assert_close(mixer(x, row()), mixer.proj(both))


def test_under_a_causal_mask_it_reads_forwards_only() -> None:
    mixer, x = redrawn(BiLstm(C, Grid(1, N), hidden_dim=3)), random(B, N, C)
    ahead = states(mixer.forwards, x)
    out = mixer(x, Layout(Grid(1, N), Mask(causal=True)))
    assert_close(out, mixer.proj(torch.cat((ahead, torch.zeros_like(ahead)), dim=-1)))


def test_padding_anywhere_is_skipped() -> None:
    mixer, x = redrawn(BiLstm(C, Grid(1, N), hidden_dim=3)), random(1, N, C)
    keys = torch.tensor([[False, True, True, False, True, False, True]])
    out = mixer(x, Layout(Grid(1, N), Mask(keys=keys)))
    assert_close(out[keys][None], mixer(x[keys][None], row(4)))


def test_by_hand() -> None:
    """Gates wide open, no recurrence: the state is tanh(cell), the cell sums tanh(x)."""
    mixer = BiLstm(1, Grid(1, 2), hidden_dim=1).double()
    with torch.no_grad():
        for lstm in (mixer.forwards, mixer.backwards):
            weights = dict(lstm.named_parameters())
            weights["weight_ih_l0"].copy_(torch.tensor([[0.0], [0.0], [1.0], [0.0]]))
            weights["weight_hh_l0"].zero_()
            weights["bias_ih_l0"].copy_(torch.tensor([100.0, 100.0, 0.0, 100.0]))
            weights["bias_hh_l0"].zero_()
        mixer.proj.weight.copy_(torch.tensor([[1.0, 10.0]]))
        mixer.proj.bias.zero_()
    out = mixer(torch.tensor([[[0.5], [2.0]]]).double(), row(2))
    one, two = math.tanh(0.5), math.tanh(2.0)
    first = math.tanh(one) + 10 * math.tanh(one + two)
    second = math.tanh(one + two) + 10 * math.tanh(two)
    assert_close(out, torch.tensor([[[first], [second]]]).double())


def test_half_precision_does_not_reach_the_state() -> None:
    mixer, x, seen = redrawn(BiLstm(C, Grid(1, N))).float(), torch.randn(B, N, C), []
    mixer.forwards.register_forward_hook(lambda _, __, out: seen.append(out[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        mixer(x, row())
    assert seen == [torch.float32]


def test_the_state_has_a_width() -> None:
    assert BiLstm(13, Grid(1, N)).forwards.hidden_size == 3
    with pytest.raises(ValueError, match=r"^hidden_dim must be at least 1, got 0$"):
        BiLstm(3, Grid(1, N))
