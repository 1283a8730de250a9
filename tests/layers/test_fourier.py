import math

import torch
from torch.testing import assert_close

from tests.helpers import B, N, random, row
from vit.layers import Fourier
from vit.tokens import Grid, Layout

C = 5


def test_is_the_real_part_of_both_transforms_written_out() -> None:
    x = random(B, N, C)
    tokens = torch.outer(torch.arange(N), torch.arange(N)).double() * (2 * math.pi / N)
    channels = torch.outer(torch.arange(C), torch.arange(C)).double() * (2 * math.pi / C)
    expected = tokens.cos() @ x @ channels.cos() - tokens.sin() @ x @ channels.sin()
    assert_close(Fourier(C, Grid(1, N))(x, row()), expected / math.sqrt(N * C))


def test_by_hand() -> None:
    out = Fourier(2, Grid(1, 2))(torch.tensor([[[1.0, 2.0], [3.0, 8.0]]]), row(2))
    assert_close(out, torch.tensor([[[7.0, -3.0], [-4.0, 2.0]]]))


def test_keeps_the_size_of_values() -> None:
    grid = Grid(14, 14, prefix=("cls",))
    out = Fourier(192, grid)(torch.randn(1, 197, 192), Layout(grid))
    assert 0.6 < out.std() < 0.8  # half the power is in the imaginary part


def test_runs_in_float32_inside_autocast_and_in_half_precision() -> None:
    x = torch.randn(B, N, C)
    exact = Fourier(C, Grid(1, N))(x, row())
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(Fourier(C, Grid(1, N))(x, row()), exact, rtol=0, atol=0)
    for dtype in (torch.bfloat16, torch.float16):
        rough = Fourier(C, Grid(1, N))(x.to(dtype), row())
        assert rough.dtype == dtype
        assert_close(rough.float(), exact, rtol=2e-2, atol=2e-2)
