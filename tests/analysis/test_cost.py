"""Costs against closed forms and by hand. No time is asserted."""

import numpy as np
import pytest
import torch
from torch import nn

from tests.helpers import D, E, H, N
from vit.analysis import cost
from vit.attention import Softmax
from vit.layers import MapPool
from vit.tokens import Grid, Layout


def test_both_orders_of_three_matrices_by_their_formulas():
    q, k, v = (torch.randn(N, width) for width in (D, D, E))
    assert cost.macs_of(lambda: (q @ k.T) @ v) == cost.scores_macs(N, D, E) == N * N * D + N * N * E
    assert cost.macs_of(lambda: q @ (k.T @ v)) == cost.reordered_macs(N, D, E) == 2 * N * D * E


def test_softmax_attention_multiplies_what_the_formula_says_in_each_head():
    q, k = torch.randn(1, H, N, D), torch.randn(1, H, N, D)
    mechanism = Softmax(H, D, Grid(1, N))
    counted = cost.macs_of(lambda: mechanism(q, k, torch.randn(1, H, N, E), Layout(Grid(1, N))))
    assert counted == H * cost.scores_macs(N, D, E)


def test_views_of_parameters_are_counted_past_and_learn_on():
    """A learned query is expanded and handed to a module."""
    pool = MapPool(48, Grid(1, N))
    linear = N * 2 * 48 * 48 + 2 * 48 * 48  # keys and values; query and projection
    attention, mlp = 2 * N * 48, 8 * 48 * 48
    counted = cost.macs_of(lambda: pool(torch.randn(1, N, 48), Layout(Grid(1, N))), pool)
    assert counted == linear + attention + mlp and all(p.requires_grad for p in pool.parameters())


def test_saved_bytes_are_the_tensors_of_the_backward_pass_each_once():
    net = nn.Linear(D, E)
    x = torch.randn(N, D, requires_grad=True)
    assert cost.saved_bytes(lambda: net(x), net) == 4 * N * D  # the input; the weights are there anyway
    assert cost.saved_bytes(lambda: net(x)) == 4 * (N * D + D * E)
    assert cost.saved_bytes(lambda: x * x) == 4 * N * D
    assert cost.saved_bytes(lambda: (x * x).exp(), net) == 4 * (N * D + N * D)  # and the result, which exp keeps
    with torch.no_grad():
        assert cost.saved_bytes(lambda: net(x), net) == 0


def test_unfused_softmax_keeps_its_matrix():
    q = torch.randn(1, 1, 64, D, requires_grad=True)
    assert cost.saved_bytes(lambda: (q @ q.transpose(-1, -2)).softmax(-1) @ q) >= 4 * 64 * 64


def test_works_take_turns_and_warming_up_is_left_out():
    calls: list[str] = []
    times = cost.alternately([lambda: calls.append("a"), lambda: calls.append("b")], rounds=3, warm_up=2)
    assert times.shape == (3, 2) and (times >= 0).all()
    assert "".join(calls) == "abbaabbaab"


def test_the_rounds_after_warming_up_are_kept(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cost, "seconds", lambda work, device: work())
    clock = iter(range(10))
    times = cost.alternately([lambda: next(clock), lambda: next(clock)], rounds=3, warm_up=2)
    assert times.tolist() == [[4, 5], [7, 6], [8, 9]]


def test_a_factor_is_the_median_of_paired_ones():
    mine = np.array([1.0, 2.0, 4.0])
    assert cost.times_as_fast(mine, 3 * mine) == pytest.approx((3, 3, 3))
    value, low, high = cost.times_as_fast(np.ones(5), np.array([1.0, 1.0, 2.0, 4.0, 4.0]))
    assert value == pytest.approx(2) and low < 2 < high


def test_slope_is_the_exponent():
    assert cost.slope([64, 256, 1024], [3 * n**1.5 for n in (64, 256, 1024)]) == pytest.approx(1.5)
    for sizes, costs in (([64, 64], [1, 2]), ([64, 256], [0, 1])):
        with pytest.raises(ValueError, match="at least two sizes, all positive"):
            cost.slope(sizes, costs)


def test_a_training_step_trains_and_inference_leaves_the_net_alone():
    net: nn.Module = nn.Sequential(nn.Flatten(), nn.Linear(6, 3))
    before = [parameter.clone() for parameter in net.parameters()]
    cost.inference(net, (1, 2, 3), 5)()
    assert not net.training and all(map(torch.equal, before, net.parameters()))
    cost.training(net, (1, 2, 3), 5)()
    assert net.training and not any(map(torch.equal, before, net.parameters()))
    assert all(parameter.grad is None for parameter in net.parameters())


@pytest.mark.gpu
def test_peak_memory_counts_what_was_there():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    held = torch.empty(1 << 20, device="cuda")
    assert cost.peak_bytes(lambda: torch.empty(1 << 20, device="cuda")) >= 2 * 4 * held.numel()
