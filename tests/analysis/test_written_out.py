"""What is written out step by step is what the modules compute."""

from torch.nn import functional as F
from torch.testing import assert_close

from tests.helpers import B, D, E, H, N, random, redrawn, row
from vit.analysis.written_out import additive_steps, convolved_by_heads, recurrent, shift_heads, token_by_token
from vit.attention import Additive, Linear, Softmax
from vit.tokens import Grid, Layout, Mask


def test_one_query_at_a_time_is_the_matrix_form():
    q, k, v = random(B, H, N, D), random(B, H, N, D), random(B, H, N, E)
    assert_close(token_by_token(q, k, v), Softmax(H, D, Grid(1, N))(q, k, v, row()))


def test_the_steps_of_additive_attention_end_in_its_output():
    mechanism = redrawn(Additive(H, D, Grid(1, N), hidden_dim=13))
    q, k, v = random(B, H, N, D), random(B, H, N, D), random(B, H, N, E)
    steps = additive_steps(mechanism, q, k, v, query=5, sample=1, head=2)
    assert steps.hidden.shape == (N, 13)
    assert_close(steps.weights.sum().item(), 1.0)
    assert_close(steps.context, mechanism(q, k, v, row())[1, 2, 5])
    k[:, :, 3] += 1  # token 3's hidden layer is its own affair
    again = additive_steps(mechanism, q, k, v, query=5, sample=1, head=2)
    changed = (again.hidden != steps.hidden).any(dim=1)
    assert changed.tolist() == [place == 3 for place in range(N)]


def test_the_recurrent_form_of_linear_attention_is_the_parallel_one():
    mechanism = Linear(H, D, Grid(1, N))
    q, k, v = random(B, H, N, D), random(B, H, N, D), random(B, H, N, E)
    out, state = recurrent(mechanism, q, k, v)
    assert_close(out, mechanism(q, k, v, Layout(Grid(1, N), Mask(causal=True))))
    assert state.sums.shape == (B, H, D, E)
    assert state.total.shape == (B, H, D)


def test_heads_that_look_at_one_offset_are_a_convolution():
    pictures, kernel = random(B, 3, 5, 7), random(11, 3, 3, 3)
    assert_close(convolved_by_heads(pictures, kernel), F.conv2d(pictures, kernel, padding=1))
    heads = shift_heads(Grid(5, 7), 3)
    assert heads.shape == (9, 35, 35)
    assert heads.sum(dim=-1).max() == 1
    assert heads[0, 8].argmax() == 0  # the first head looks up and to the left
    assert heads[5, 8].argmax() == 9
